"""How long until the release before answers again: on command, by an order, and by itself.

    python benchmarks/back.py [--rounds N]

Models of 40 MB, on ONNX Runtime. *Command*: from the moment the channel has a pointer to the
release before, until that one answers; in one process, without the time that a channel takes.
*Order*: likewise, from the moment an operator's order came; its release is not tried again.
*Budget*: a runtime in a process of its own; from the first answer of a release, which breaks its
latency budget with it, until the first answer of the release before. A client asks all the while
without a pause; an answer that fails ends this with exit code 1.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from device_runtime.tests.node.device import Client, Device, publish
from device_runtime.tests.reconciler.rig import Rig
from device_runtime.tests.support import Repository
from edgefleet.protocol.release import Budget, RuntimeSettings
from edgefleet_runtime.engines.onnxruntime import OnnxRuntimeEngine

PADDING = 40_000_000  # bytes of weights
GOAL_MS = 100.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgefleet-back-") as folder:
        command = _command(Path(folder, "command"), arguments.rounds)
        order = _order(Path(folder, "order"), arguments.rounds)
        budget = _budget(Path(folder, "budget"), arguments.rounds)
    print(f"{'back after':<12}{'median ms':>10}{'slowest ms':>12}{'goal':>8}")
    for name, times in (("command", command), ("order", order), ("budget", budget)):
        middle, slowest = statistics.median(times), max(times)
        print(f"{name:<12}{middle:>10.1f}{slowest:>12.1f}{f'≤ {GOAL_MS:.0f}':>8}", flush=True)


def _release(repository: Repository, factor: float, settings: RuntimeSettings) -> str:
    models = {"digits": publish(repository, factor, padding=PADDING)}
    return repository.release(models, settings=settings)


def _command(root: Path, rounds: int) -> list[float]:
    """Milliseconds of each round."""
    rig = Rig(root, engine=OnnxRuntimeEngine())
    plain = RuntimeSettings()
    old, new = (_release(rig.repository, factor, plain) for factor in (2, 3))
    rig.deploy(old)
    times = []
    for _ in range(rounds):
        rig.deploy(new)
        _expect(rig, 3)
        pointer = rig.repository.pointer(old)
        start = time.perf_counter()
        rig.channel.offer(pointer)
        rig.settle()
        _expect(rig, 2)
        times.append((time.perf_counter() - start) * 1e3)
    return times


def _order(root: Path, rounds: int) -> list[float]:
    """Milliseconds of each round."""
    rig = Rig(root, engine=OnnxRuntimeEngine())
    plain = RuntimeSettings()
    old, new = (_release(rig.repository, factor, plain) for factor in (2, 3))
    rig.deploy(old)
    times = []
    for _ in range(rounds):
        rig.deploy(new)
        _expect(rig, 3)
        start = time.perf_counter()
        answer = rig.driver.roll_back(by="benchmark", reason="")
        rig.driver.poll()
        _expect(rig, 2)
        times.append((time.perf_counter() - start) * 1e3)
        if not answer.result(0).changed:
            sys.exit("error: the order changed nothing")
    return times


def _expect(rig: Rig, factor: float) -> None:
    with rig.table.lease("digits") as served:
        outputs, _ = served.infer({"x": np.ones((1, 4), np.float32)}, ["y"])
    if outputs["y"][0, 0] != factor:
        sys.exit(f"error: the release that answers isn't the one of factor {factor}")


def _budget(root: Path, rounds: int) -> list[float]:
    """Milliseconds of each round."""
    repository = Repository(root / "fleet")
    old = _release(repository, 2, RuntimeSettings())
    repository.point(old)
    broken = RuntimeSettings(budget=Budget(max_p99_us=0.001, window=1, trial_s=1000))
    times = []
    with Device(root / "cam-07", repository, "--healthy-after", "0").start() as device:
        device.active(old)
        with device.client() as client:
            for number in range(rounds):
                repository.point(_release(repository, 3 + number, broken))
                _ask_until(client, 3.0 + number)
                start = time.perf_counter()
                _ask_until(client, 2.0)
                times.append((time.perf_counter() - start) * 1e3)
                device.reported(state="rejected", running=old)
    return times


def _ask_until(client: Client, factor: float) -> None:
    while client.factor() != factor:
        pass


if __name__ == "__main__":
    main()
