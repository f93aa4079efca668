"""What an ensemble of three models costs over the three `session.run` that it calls.

The models add a number to eight, so that all but the calls is noise. Every round runs all cases in
turn; the sessions have one thread, as the runtime's own have for models so small.

    python benchmarks/ensemble.py [--rounds 15]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx.parser
import onnxruntime

from edgefleet_runtime import Ensemble, ModelStep, Runtime

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = 2000  # of each case in a round
RAW = "three session.run"
MODEL = """
    <ir_version: 9, opset_import: ["": 17]>
    plus (float[n] x) => (float[n] y) <float one = {1.0}> { y = Add(x, one) }
"""
CHAIN = ("x", "t", "u", "y")
STEPS = tuple(
    ModelStep(model=name, inputs={"x": CHAIN[n]}, outputs={"y": CHAIN[n + 1]})
    for n, name in enumerate("abc")
)


def cases(path: Path, runtime: Runtime) -> dict[str, Callable[[Any], Any]]:
    """What is run, by name."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    sessions = [onnxruntime.InferenceSession(str(path), options) for _ in STEPS]

    def raw(x: Any) -> Any:  # noqa: ANN401
        for session in sessions:
            (x,) = session.run(["y"], {"x": x})
        return x

    def one_by_one(x: Any) -> Any:  # noqa: ANN401
        for step in STEPS:
            x = runtime.infer(step.model, {"x": x})["y"]
        return x

    def ensemble(x: Any) -> Any:  # noqa: ANN401
        return runtime.infer("ensemble", {"x": x})["y"]

    return {RAW: raw, "three Runtime.infer": one_by_one, "one ensemble": ensemble}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    x = np.ones(8, np.float32)
    with tempfile.TemporaryDirectory(prefix="edgefleet-bench-") as folder:
        path = Path(folder, "plus.onnx")
        onnx.save(onnx.parser.parse_model(MODEL), path)
        declared = {"ensemble": Ensemble(inputs=("x",), steps=STEPS, outputs=("y",))}
        with Runtime(dict.fromkeys("abc", path), ensembles=declared, threads=1) as runtime:
            found = cases(path, runtime)
            taken: dict[str, list[float]] = {name: [] for name in found}
            for _ in range(rounds):
                for name, run in found.items():
                    if run(x)[0] != x[0] + len(STEPS):
                        raise SystemExit(f"error: {name} gives {run(x)}")
                    start = time.perf_counter()
                    for _ in range(RUNS):
                        run(x)
                    taken[name].append((time.perf_counter() - start) / RUNS * 1e6)
    print(f"three tiny models in a row, {rounds} rounds")
    for name, figures in taken.items():
        over = statistics.median(
            figure - raw for figure, raw in zip(figures, taken[RAW], strict=True)
        )
        print(f"  {name:<20} {statistics.median(figures):5.1f} µs, {over:+5.1f} over {RAW}")


if __name__ == "__main__":
    main()
