"""What a server's process takes, and what the runtime costs without one."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.serving import load, models, peers
from benchmarks.serving.figures import Figure, Goal
from benchmarks.serving.raw import p50_us, session_of
from benchmarks.serving.under_test import UnderTest, serving, serving_alone

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from benchmarks.serving.bench import Bench

ASKED = 500  # requests before memory is read
TURNS = 6  # a round, for nothing has to be started for one
MB = 1e6


def footprint(bench: Bench) -> list[Figure]:
    """Memory and cold start, over REST alone and with gRPC."""
    subject = models.mlp(bench.folder)
    starts: dict[str, Callable[[], AbstractContextManager[UnderTest]]] = {
        "floor": lambda: serving("floor", subject),
        "ours": lambda: serving_alone(subject),
        "floor+grpc": lambda: serving("floor+grpc", subject),
        "ours+grpc": lambda: serving("ours+grpc", subject),
    }
    ready: dict[str, list[float]] = defaultdict(list)
    memory: dict[str, list[float]] = defaultdict(list)
    if bench.peers_folder is not None:
        for name in peers.installed(bench.peers_folder):
            starts[name] = partial(peers.serving, name, bench.peers_folder, subject, bench.folder)
    for start in starts.values():  # compiles modules, fills the page cache
        with start():
            pass
    for number in bench.each_round():
        for kind in bench.in_turn(starts, number):
            with starts[kind]() as server:
                ready[kind].append(server.ready_s)
                if server.spot is not None:
                    load.rest(server.rest, server.request, bench.folder, clients=1, requests=ASKED)
                if server.calls is not None:
                    load.calls(server.grpc, subject, bench.folder, clients=1, requests=ASKED)
                memory[kind].append(server.pss_bytes() / MB)
    others = [kind for kind in starts if kind.partition("+")[0] not in {"floor", "ours"}]
    found = []
    for suffix, more in (("", ""), ("+grpc", ", gRPC")):
        floor, ours = f"floor{suffix}", f"ours{suffix}"
        note = "ours speaks REST as well, the floor doesn't" if suffix else "serve --model"
        found += [
            Figure(
                f"memory (PSS) with the MLP{more}: over the floor",
                "MB",
                memory[floor],
                memory[ours],
                Goal(12),
                difference=True,
                peers={} if suffix else {name: memory[name] for name in others},
                note=note,
            ),
            Figure(
                f"cold start to the first right answer{more}: against the floor's",
                "s",
                ready[floor],
                ready[ours],
                Goal(1.3),
                peers={} if suffix else {name: ready[name] for name in others},
                note=note,
            ),
        ]
    return found


def in_process(bench: Bench) -> list[Figure]:
    """`Runtime.infer` against `session.run` in the same process, in turns; IOBinding beside it."""
    from edgefleet_runtime import Runtime

    found = []
    cases = ((models.mlp(bench.folder), 1, 3000, 1.25), (models.squeezenet(), 0, 40, 1.02))
    for subject, threads, runs, goal in cases:
        session = session_of(subject.path, threads)
        binding = session.io_binding()
        for name, array in subject.inputs.items():
            binding.bind_cpu_input(name, array)
        answer = np.empty_like(subject.due)
        binding.bind_output(subject.output, "cpu", 0, np.float32, answer.shape, answer.ctypes.data)
        seen: dict[str, list[float]] = defaultdict(list)
        with Runtime({subject.name: subject.path}) as runtime:
            ways: dict[str, Callable[[], object]] = {
                "raw": partial(session.run, None, subject.inputs),
                "ours": partial(runtime.infer, subject.name, subject.inputs),
                "bound": partial(session.run_with_iobinding, binding),
            }
            for number in range(TURNS * len(bench.each_round())):
                for name in bench.in_turn(ways, number):
                    # Runs after those of another session are slower for some 40 ms.
                    p50_us(ways[name], runs)
                    seen[name].append(p50_us(ways[name], runs))
        subject.check(answer)
        found += [
            Figure(
                f"in process, {subject.name}: against session.run",
                "µs",
                seen["raw"],
                seen["ours"],
                Goal(goal),
            ),
            Figure(
                f"onnxruntime's own IOBinding, {subject.name}: against session.run",
                "µs",
                seen["raw"],
                seen["bound"],
                note="bound once, the same buffers in every run",
            ),
        ]
    return found
