"""In-process runs: `Runtime.infer` and `Runtime.bind` against `session.run`, in turns.

    python benchmarks/binding.py [--rounds 15]

Sessions run on one thread, so that what else the machine does disturbs them least; all three are
asked in turn for a block of runs, and ratios are of blocks that followed each other. Exits with
1 when a bound run is slower than `session.run`, or `infer` over its goal, by more than a tenth.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.serving import models
from edgefleet_runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable

INFER_GOALS = {"mlp": 1.25, "squeezenet": 1.02}
BIND_GOAL = 1.0
SLACK = 1.1


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    over = False
    with tempfile.TemporaryDirectory(prefix="edgefleet-bench-") as name:
        for subject, blocks, runs in (
            (models.mlp(Path(name)), rounds, 2000),
            (models.squeezenet(), rounds * 10, 1),
        ):
            raw_us, infer, bind = measure(subject, blocks, runs)
            for what, ratio, goal in (
                ("infer", infer, INFER_GOALS[subject.name]),
                ("bind", bind, BIND_GOAL),
            ):
                verdict = "" if ratio <= goal else "  OVER ITS GOAL"
                over = over or ratio > goal * SLACK
                print(
                    f"{subject.name:<10} {what:<5} {ratio:.2f} of session.run ({raw_us:.1f} us), "
                    f"at most {goal:.2f}{verdict}"
                )
    if over:
        sys.exit("error: in-process runs are slower than they should be")


def measure(subject: models.Subject, blocks: int, runs: int) -> tuple[float, float, float]:
    """Median time of `session.run` in microseconds, and the ratios of `infer` and `bind` to it."""
    session = raw_session(subject)
    raw, infer, bind = [], [], []
    with (
        Runtime({subject.name: subject.path}, threads=1) as runtime,
        runtime.bind(subject.name, subject.inputs) as bound,
    ):
        for _ in range(blocks):
            base = p50_us(lambda: session.run(None, subject.inputs), runs)
            raw.append(base)
            infer.append(p50_us(lambda: runtime.infer(subject.name, subject.inputs), runs) / base)
            bind.append(p50_us(bound.run, runs) / base)
    return statistics.median(raw), statistics.median(infer), statistics.median(bind)


def raw_session(subject: models.Subject) -> Any:  # noqa: ANN401 - onnxruntime has no types
    """A session of ONNX Runtime on one thread, beside nothing of ours."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        str(subject.path), settings, providers=["CPUExecutionProvider"]
    )


def p50_us(call: Callable[[], object], runs: int) -> float:
    """Median time of a call in microseconds."""
    times = []
    for _ in range(runs):
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times) / 1e3


if __name__ == "__main__":
    main()
