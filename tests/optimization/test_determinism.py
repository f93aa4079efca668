"""Every maker gives the same bytes for the same inputs, in any process."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper

from tests.optimization import models

if TYPE_CHECKING:
    from pathlib import Path

NAMES = (
    *("int8", "int8-percentile", "int8-entropy", "int8-mixed", "int8-signed", "int8-dynamic"),
    *("fp16", "fp32-graph", "channels-25", "weights-50"),
)

SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from edgefleet.optimization.gate import Verdict
from edgefleet.optimization.makers import Source, maker_of
from edgefleet.optimization.onnx_file import inspect
from edgefleet.optimization.recipes import RECIPES
from edgefleet.optimization.samples import calibration_samples

path, work, *names = sys.argv[1:]
file = inspect(path)
samples = calibration_samples(np.load(path + ".npy"), file.interface)
judged = []

def judge(artifact):
    judged.append(artifact)
    return Verdict(passed=len(judged) > 1, reason="", drop=0.0)

source = Source(file=file, samples=samples, judge=judge)
for recipe in RECIPES:
    if recipe.name in names:
        to = Path(work) / recipe.name
        to.mkdir(parents=True)
        made = maker_of(recipe)(recipe, source, to, lambda _: None)
        print(recipe.name, made.digest(), sorted(made.notes.items()))
"""


def two_convolutions() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["c0"]),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1"], ["c1"]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Flatten", ["r1"], ["f"]),
        helper.make_node("Gemm", ["f", "w2"], ["y"]),
    ]
    return models.model_of(
        nodes,
        [models.floats("x", "N", 3, 8, 8)],
        [models.floats("y", "N", 5)],
        [
            models.weights("w0", 8, 3, 3, 3),
            models.weights("w1", 16, 8, 3, 3),
            models.weights("w2", 256, 5),
        ],
    )


def test_every_maker_gives_the_same_bytes_and_notes_in_any_process(tmp_path: Path) -> None:
    path = models.save(two_convolutions(), tmp_path / "m.onnx")
    np.save(f"{path}.npy", models.inputs_for(40, width=192).reshape(40, 3, 8, 8))
    seen = []
    for seed in ("1", "33"):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, path, tmp_path / seed, *NAMES],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        )
        seen.append(done.stdout.splitlines())
    assert [line.split()[0] for line in seen[0]] == list(NAMES)
    assert [name for name, one, two in zip(NAMES, *seen, strict=True) if one != two] == []
