"""Models that take milliseconds: how much of the machine is left for them, and what bytes cost."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from multiprocessing.shared_memory import SharedMemory
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.serving import load, models
from benchmarks.serving.figures import Figure, Goal
from benchmarks.serving.raw import RawMaximum, p50_us, session_of
from benchmarks.serving.resnet import resnet50
from benchmarks.serving.under_test import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.serving.bench import Bench
    from benchmarks.serving.models import Request, Subject

CLIENTS = 8
RAW_S = 0.5  # of each way to run the model, twice a round
OURS = ("floor", "ours")
PEERS_SHARE = 4  # they are asked so many times less: some take a tenth of a second for an answer
ONE = 60  # requests of one client
WARM = 24
SETTLE = 3  # rounds' requests before the first: ours finds out by them how many threads runs get


def squeezenet(bench: Bench) -> list[Figure]:
    """Eight clients, and one through shared memory."""
    subject = models.squeezenet()
    return [*_shared(bench, subject), *_busy(bench, subject, 200, Goal(0.85, at_most=False))]


def resnet(bench: Bench) -> list[Figure]:
    """Eight clients."""
    return _busy(bench, resnet50(bench.folder), 40, Goal(0.95, at_most=False))


def _busy(bench: Bench, subject: Subject, requests: int, goal: Goal) -> list[Figure]:
    maximum = RawMaximum(subject)
    raw: list[float] = []
    ways: Counter[str] = Counter()
    seen: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        servers = {k: stack.enter_context(serving(k, subject)) for k in OURS}
        servers |= bench.peers(stack, subject)
        for name, server in servers.items():
            count = SETTLE * requests if name in OURS else WARM
            load.rest(server.rest, server.request, bench.folder, clients=CLIENTS, requests=count)
        for number in bench.each_round():
            # Before and after what is compared: the machine may have slowed down meanwhile.
            before, way = maximum.per_s(RAW_S)
            ways[way] += 1
            for name in bench.in_turn(servers, number):
                spot, request = servers[name].rest, servers[name].request
                count = requests if name in OURS else requests // PEERS_SHARE
                got = load.rest(spot, request, bench.folder, clients=CLIENTS, requests=count)
                seen[name].append(got.per_s)
            after, way = maximum.per_s(RAW_S)
            ways[way] += 1
            raw.append((before + after) / 2)
    best = ways.most_common(1)[0][0]
    name = f"{subject.name}, {CLIENTS} clients: share of the raw maximum"
    others = {key: values for key, values in seen.items() if key not in OURS}
    note = f"raw is best with {best}"
    return [
        Figure(name, "/s", raw, seen["ours"], goal, peers=others, note=note),
        Figure(f"the same of the floor: {name}", "/s", raw, seen["floor"]),
    ]


def _shared(bench: Bench, subject: Subject) -> list[Figure]:
    session = session_of(subject.path)
    raw: list[float] = []
    over: dict[str, list[float]] = defaultdict(list)
    with serving("ours", subject) as server, in_shared_memory(subject, server.rest) as shared:
        load.check_rest(server.rest, shared, subject)
        asked = {"shared": shared, "tensor": subject.binary}
        for request in asked.values():
            load.rest(server.rest, request, bench.folder, clients=1, requests=WARM)
        for _ in bench.each_round():
            # Around what is compared: the machine may have slowed down meanwhile.
            before = p50_us(lambda: session.run(None, subject.inputs), ONE)
            for name, request in asked.items():
                seen = load.rest(server.rest, request, bench.folder, clients=1, requests=ONE)
                over[name].append(seen.p50_us)
            after = p50_us(lambda: session.run(None, subject.inputs), ONE)
            raw.append((before + after) / 2)
    size = sum(array.nbytes for array in subject.inputs.values()) / 1e3
    name = f"squeezenet ({size:.0f} kB in), 1 client: p50 over raw"
    return [
        Figure(f"shared memory, {name}", "µs", raw, over["shared"], Goal(300), difference=True),
        Figure(f"REST binary, {name}", "µs", raw, over["tensor"], difference=True),
    ]


@contextmanager
def in_shared_memory(subject: Subject, spot: load.Spot) -> Iterator[Request]:
    """A request whose input and output lie in a region that the server knows.

    Raises:
        RuntimeError: the server didn't take the region, or wrote another answer there.
    """
    ((name, array),) = subject.inputs.items()
    due = subject.due
    memory = SharedMemory(create=True, size=array.nbytes + due.nbytes)
    try:
        np.ndarray(array.shape, array.dtype, memory.buf)[...] = array
        place = "/v2/systemsharedmemory/region/bench"
        about = {"key": f"/{memory.name}", "offset": 0, "byte_size": memory.size}
        _post(spot, f"{place}/register", about)

        def at(offset: int, size: int) -> dict[str, object]:
            return {
                "shared_memory_region": "bench",
                "shared_memory_offset": offset,
                "shared_memory_byte_size": size,
            }

        given: dict[str, object] = {"name": name, "datatype": "FP32", "shape": [*array.shape]}
        given["parameters"] = at(0, array.nbytes)
        gives = {"name": subject.output, "parameters": at(array.nbytes, due.nbytes)}
        body = json.dumps({"inputs": [given], "outputs": [gives]}).encode()
        headers = {"Content-Type": "application/json"}
        yield models.Request(subject.path_of_infer, body, headers, answers_elsewhere=True)
        seen = np.ndarray(due.shape, due.dtype, memory.buf, offset=array.nbytes).copy()
        subject.check(seen)
        _post(spot, f"{place}/unregister", {})
    finally:
        memory.close()
        memory.unlink()


def _post(spot: load.Spot, path: str, body: dict[str, object]) -> None:
    client = HTTPConnection("127.0.0.1", spot.port, timeout=load.WAIT_S)
    client.request("POST", path, json.dumps(body))
    answer = client.getresponse()
    said = answer.read()
    client.close()
    if answer.status != 200:
        raise RuntimeError(f"{path}: {answer.status} {said[:500]!r}")
