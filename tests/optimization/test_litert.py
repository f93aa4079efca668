"""LiteRT files by onnx2tf. The command is a stand-in that writes prepared files, but for the last
tests, which run the real one where it is installed."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from edgefleet.errors import InvalidModelError
from edgefleet.optimization import optimize
from edgefleet.optimization.litert import MISSING, make_tflite
from edgefleet.optimization.litert_session import LiteRtSession
from edgefleet.optimization.makers import NotMade, Source
from edgefleet.optimization.onnx_file import inspect
from edgefleet.optimization.recipes import RECIPES
from edgefleet.optimization.samples import calibration_samples
from edgefleet.optimization.session import OnnxSession
from edgefleet.optimization.sessions import open_session
from edgefleet.protocol.bundle import files_of
from edgefleet.protocol.target import HardwareTarget
from tests.optimization import models

tflite_models = pytest.importorskip(
    "device_runtime.tests.tflite_models", reason="tflite writes the models", exc_type=ImportError
)
pytest.importorskip("ai_edge_litert.interpreter", reason="LiteRT is not installed")
pytest.importorskip("ai_edge_quantizer", reason="the extra 'litert' is not installed")

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.optimization.artifact import Artifact

BY_NAME = {recipe.name: recipe for recipe in RECIPES}
CORAL = HardwareTarget(
    name="coral",
    about="an Edge TPU",
    arch="any",
    precisions=("int8", "fp32"),
    formats=("tflite",),
    providers=("EdgeTpuDelegate", "CPUExecutionProvider"),
)
X = models.inputs_for(20, width=4)

COMMAND = """#!{python}
import json, shutil, sys
from pathlib import Path

here = Path({folder!r})
told = sys.argv[1:]
if told == ["-V"]:
    print("2.6.9")
    raise SystemExit
(here / "seen.json").write_text(json.dumps(told))
out = Path(told[told.index("-o") + 1])
for path in (here / "prepared").iterdir():
    shutil.copyfile(path, out / (Path(told[told.index("-i") + 1]).stem + path.name))
plan = json.loads((here / "plan.json").read_text())
print(plan["says"])
raise SystemExit(plan["code"])
"""


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Puts an ``onnx2tf`` on the path that writes the given files and ends as told."""

    def put(writes: dict[str, Path], *, code: int = 0, says: str = "done") -> Path:
        folder = tmp_path / "tool"
        (folder / "prepared").mkdir(parents=True)
        for name, path in writes.items():
            shutil.copyfile(path, folder / "prepared" / name)
        (folder / "plan.json").write_text(json.dumps({"code": code, "says": says}))
        command = folder / "onnx2tf"
        command.write_text(COMMAND.format(python=sys.executable, folder=str(folder)))
        command.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return folder

    return put


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """y = x + 2 for float32[N, 4]."""
    model = models.model_of(
        [helper.make_node("Add", ["x", "k"], ["y"])],
        [models.floats("x", "N", 4)],
        [models.floats("y", "N", 4)],
        [numpy_helper.from_array(np.full((1, 4), 2, np.float32), "k")],
    )
    return models.save(model, tmp_path / "plus.two.onnx")


def made(path: Path, to: Path, name: str) -> Artifact:
    to.mkdir()
    file = inspect(path)
    shape = [4 if length < 0 else length for length in file.interface.inputs[0].shape[1:]]
    values = np.random.default_rng(0).standard_normal((20, *shape)).astype(np.float32)
    samples = calibration_samples(values, file.interface)
    return make_tflite(BY_NAME[name], Source(file=file, samples=samples), to, lambda _: None)


def test_without_the_command_the_row_names_what_to_install_and_the_compiler_after_it(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    bundle = optimize(
        path,
        targets=[CORAL, "any"],
        calibration=X,
        evaluate=lambda predict: float(predict(X).shape == X.shape),
        progress=False,
    )
    assert bundle.report.row("tflite-int8").why == MISSING
    coral = bundle.report.targets[0]
    assert coral.variant is None
    assert "needs onnx2tf" in coral.why
    assert coral.why.endswith(
        "the Edge TPU needs edgetpu_compiler; add its output with bundle.add_variant"
    )


def test_a_file_that_the_command_wrote_is_judged_and_shipped(
    path: Path, tool: Callable[..., Path], tmp_path: Path
) -> None:
    tool({"_float32.tflite": tflite_models.add(tmp_path / "a.tflite", 2.0)})
    board = HardwareTarget(
        name="board", about="", arch="any", precisions=("fp32",), formats=("tflite",)
    )
    bundle = optimize(
        path,
        targets=[board],
        calibration=X,
        evaluate=lambda predict: float(np.allclose(predict(X), X + 2)),
        candidates=["tflite"],
        progress=False,
    )
    bundle.verify()
    assert bundle.report.targets[0].variant == "tflite"
    assert set(files_of(bundle.manifest("tflite"))) == {"model.tflite"}
    details = bundle.details("tflite")
    assert details.self_test
    assert details.lineage["onnx2tf"] == "2.6.9"


def test_inputs_and_outputs_keep_their_names_and_layout(
    path: Path, tool: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tool({"_float32.tflite": tflite_models.add(tmp_path / "a.tflite", 2.0)})
    made(path, tmp_path / "made", "tflite")
    told = json.loads((folder / "seen.json").read_text())
    assert told[told.index("-kat") + 1] == "x"
    assert "-coion" in told
    assert sorted(p.name for p in (tmp_path / "made").iterdir()) == ["model.tflite"]


@pytest.mark.parametrize("name,room", [("tflite-fp16", 0.01), ("tflite-int8", 0.1)])
def test_smaller_files_answer_floats_to_floats_the_same_at_every_run(
    path: Path, tool: Callable[..., Path], tmp_path: Path, name: str, room: float
) -> None:
    tool({"_float32.tflite": tflite_models.add(tmp_path / "a.tflite", 2.0)})
    artifact = made(path, tmp_path / "made", name)
    inside = np.clip(X, -1, 1)  # of what the samples reach
    seen = open_session(artifact).predict(inside)
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen, inside + 2, atol=room)
    assert made(path, tmp_path / "again", name).digest() == artifact.digest()
    assert artifact.notes["ai-edge-quantizer"]


def test_int8_takes_its_ranges_from_the_samples(
    path: Path, tool: Callable[..., Path], tmp_path: Path
) -> None:
    tool({"_float32.tflite": tflite_models.add(tmp_path / "a.tflite", 2.0)})
    session = open_session(made(path, tmp_path / "made", "tflite-int8"))
    far = np.full((1, 4), 1000, np.float32)
    assert float(session.predict(far).max()) < 20


def test_without_the_quantizer_only_the_float_file_is_made(
    path: Path, tool: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool({"_float32.tflite": tflite_models.add(tmp_path / "a.tflite", 2.0)})
    monkeypatch.setitem(sys.modules, "ai_edge_quantizer", None)
    made(path, tmp_path / "float", "tflite")
    with pytest.raises(NotMade, match=r"pip install 'edgefleet\[litert\]'"):
        made(path, tmp_path / "int8", "tflite-int8")


def test_a_file_that_was_written_counts_though_the_command_failed_later(
    path: Path, tool: Callable[..., Path], tmp_path: Path
) -> None:
    writes = {"_float32.tflite": tflite_models.add(tmp_path / "a.tflite", 2.0)}
    tool(writes, code=1, says="RuntimeError: of another file")
    artifact = made(path, tmp_path / "made", "tflite")
    np.testing.assert_allclose(open_session(artifact).predict(X), X + 2, atol=1e-6)


def test_a_command_that_writes_nothing_gives_its_error_as_the_reason(
    path: Path, tool: Callable[..., Path], tmp_path: Path
) -> None:
    tool({}, code=1, says="warming up\nValueError: no such operator\n  at: somewhere")
    with pytest.raises(NotMade, match=r"^onnx2tf failed: ValueError: no such operator$"):
        made(path, tmp_path / "made", "tflite")


def test_a_file_that_the_quantizer_cannot_read_gives_its_error_as_the_reason(
    path: Path, tool: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "broken.tflite").write_bytes(b"broken" * 20)
    tool({"_float32.tflite": tmp_path / "broken.tflite"})
    with pytest.raises(NotMade, match=r"^ai-edge-quantizer failed: "):
        made(path, tmp_path / "made", "tflite-int8")


def test_a_file_of_one_sample_a_call_answers_any_number(path: Path, tmp_path: Path) -> None:
    file = tflite_models.add(tmp_path / "a.tflite", 2.0)
    session = LiteRtSession(file, inspect(path).interface)
    for count in (1, 7, 3):
        np.testing.assert_array_equal(session.predict(X[:count]), X[:count] + 2)


def test_a_file_with_other_datatypes_is_not_usable(tmp_path: Path) -> None:
    model = models.model_of(
        [helper.make_node("Cast", ["x"], ["y"], to=1)],
        [helper.make_tensor_value_info("x", 10, ["N", 4])],
        [models.floats("y", "N", 4)],
    )
    half = inspect(models.save(model, tmp_path / "half.onnx"))
    file = tflite_models.add(tmp_path / "a.tflite", 2.0)
    with pytest.raises(InvalidModelError, match="'x' holds float32, the model's FP16"):
        LiteRtSession(file, half.interface)


def test_without_the_library_opening_names_it(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tflite_models.add(tmp_path / "a.tflite", 2.0)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(InvalidModelError, match="needs LiteRT: pip install"):
        LiteRtSession(file, inspect(path).interface)


# The command itself, where somebody installed it.

REAL = pytest.mark.skipif(shutil.which("onnx2tf") is None, reason="onnx2tf is not installed")


def layers() -> Any:
    """Images in ONNX's layout through a convolution; a second output before the last step."""
    return models.model_of(
        [
            helper.make_node("Conv", ["image", "k"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("GlobalAveragePool", ["r"], ["g"]),
            helper.make_node("Flatten", ["g"], ["f"]),
            helper.make_node("Gemm", ["f", "w", "b"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["probabilities"]),
        ],
        [models.floats("image", "N", 3, 16, 16)],
        [models.floats("probabilities", "N", 5), models.floats("scores", "N", 5)],
        [
            models.weights("k", 8, 3, 3, 3),
            models.weights("w", 8, 5, seed=2),
            models.weights("b", 5, seed=3),
        ],
    )


@REAL
@pytest.mark.parametrize(
    "name,apart", [("tflite", 1e-4), ("tflite-fp16", 1e-3), ("tflite-int8", 0.1)]
)
def test_the_real_command_keeps_names_layout_and_answers(
    tmp_path: Path, name: str, apart: float
) -> None:
    path = models.save(layers(), tmp_path / "layers.onnx")
    artifact = made(path, tmp_path / "made", name)
    images = np.random.default_rng(1).standard_normal((6, 3, 16, 16)).astype(np.float32)
    due = OnnxSession(path, artifact.interface).predict(images)
    seen = open_session(artifact).predict(images)
    assert set(seen) == {"probabilities", "scores"}
    room = apart * float(np.abs(due["scores"]).max())
    np.testing.assert_allclose(seen["scores"], due["scores"], atol=room)
    assert made(path, tmp_path / "again", name).digest() == artifact.digest()
