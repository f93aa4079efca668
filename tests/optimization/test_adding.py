"""A file that was made elsewhere, as one more variant: checked where an engine here opens it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from edgefleet.errors import AccuracyGateError, InvalidInputError, InvalidModelError
from edgefleet.optimization import bundle_from_onnx
from edgefleet.optimization.adding import add_variant
from edgefleet.optimization.bundle import Bundle
from edgefleet.optimization.report import OptimizationReport, TargetRow
from edgefleet.protocol.bundle import files_of
from edgefleet.protocol.layout import BundleLayout
from tests.optimization import models
from tests.optimization.device import arrays

tflite_models = pytest.importorskip(
    "device_runtime.tests.tflite_models", reason="tflite writes the models", exc_type=ImportError
)
pytest.importorskip("ai_edge_litert.interpreter", reason="LiteRT is not installed")

if TYPE_CHECKING:
    import onnx

REPORT = OptimizationReport(
    model="plus-two",
    machine="x86_64",
    max_accuracy_drop=0.01,
    calibration_samples=0,
    rows=(),
    targets=(TargetRow(target="coral", variant=None, why="nothing"),),
)


def plus(addend: float, *, output: str = "y", width: int = 4) -> onnx.ModelProto:
    """y = x + addend for float32[N, width]."""
    return models.model_of(
        [helper.make_node("Add", ["x", "k"], [output])],
        [models.floats("x", "N", width)],
        [models.floats(output, "N", width)],
        [numpy_helper.from_array(np.full((1, width), addend, np.float32), "k")],
    )


@pytest.fixture
def plain(tmp_path: Path) -> BundleLayout:
    path = models.save(plus(2.0), tmp_path / "given.onnx")
    inputs = models.inputs_for(4, width=4)
    return bundle_from_onnx(path, tmp_path / "plain", name="plus-two", self_test_inputs=inputs)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made: Path = tflite_models.add(tmp_path / "plus.tflite", 2.001)
    return made


def add(bundle: BundleLayout, file: Any, to: Path, **more: Any) -> Any:
    return add_variant(bundle, file, to, **{"model": "plus-two", "target": "coral", **more})


def test_a_bundle_with_one_more_variant_is_another_bundle_and_the_first_stays(
    plain: BundleLayout, file: Path
) -> None:
    before = plain.digest
    more = Bundle(plain.root, report=REPORT).add_variant(file, target="coral", precision="int8")
    more.verify()
    assert BundleLayout(plain.root).digest == before
    added = more.variant("coral-tflite")
    assert (added.format, added.precision, added.targets) == ("tflite", "int8", ("coral",))
    assert more.variant("fp32") == plain.variant("fp32")


def test_a_file_that_opens_here_is_compared_and_records_its_own_answers(
    plain: BundleLayout, file: Path, tmp_path: Path
) -> None:
    made = add(plain, file, tmp_path / "more")
    details = made.details("coral-tflite")
    assert details.self_test
    for vector in details.self_test:
        x, y = arrays(vector.inputs)["x"], arrays(vector.outputs)["y"]
        np.testing.assert_allclose(y, x + np.float32(2.001), atol=1e-6)
    assert "opened here" in details.lineage["checked"]
    assert details.lineage["added_to"] == plain.digest
    (output,) = made.row.outputs
    assert output.output == "y"
    assert output.max_error == pytest.approx(0.001, rel=0.05)


def test_the_report_has_a_row_of_it_and_its_target_gets_it(plain: BundleLayout, file: Path) -> None:
    bundle = Bundle(plain.root, report=REPORT)
    more = bundle.add_variant(file, target="coral").add_variant(file, target="other")
    row = more.report.row("coral-tflite")
    assert (row.outcome, row.targets, row.size_bytes) == (
        "shipped",
        ("coral",),
        file.stat().st_size,
    )
    assert row.why.startswith("made elsewhere; opened here")
    assert [(t.target, t.variant) for t in more.report.targets] == [
        ("coral", "coral-tflite"),
        ("other", "other-tflite"),
    ]
    assert bundle.report == REPORT


def test_another_model_is_refused_unless_asked_to_take_it(
    plain: BundleLayout, tmp_path: Path
) -> None:
    other = tflite_models.add(tmp_path / "other.tflite", 9.0)
    with pytest.raises(InvalidModelError, match=r"answers otherwise .*'y' is off by up to 7"):
        add(plain, other, tmp_path / "more")
    assert not (tmp_path / "more").exists()
    made = add(plain, other, tmp_path / "more", check=False)
    assert made.details("coral-tflite").lineage["checked"] == "not checked: as asked"


@pytest.mark.parametrize(
    "path,said",
    [("length", "has lengths"), ("output", "outputs are z"), ("broken", "LiteRT cannot load")],
)
def test_a_file_for_other_callers_is_refused(
    plain: BundleLayout, tmp_path: Path, path: str, said: str
) -> None:
    file = tmp_path / "other.tflite"
    if path == "broken":
        file.write_bytes(b"made elsewhere")
    else:
        tflite_models.add(file, 2.0, **({"length": 5} if path == "length" else {"output": "z"}))
    with pytest.raises(InvalidModelError, match=said):
        add(plain, file, tmp_path / "more")
    assert not (tmp_path / "more").exists()


def test_evaluate_judges_it_against_the_first_variant(
    plain: BundleLayout, file: Path, tmp_path: Path
) -> None:
    x = models.inputs_for(20, width=4)

    def nearness(predict: Any) -> float:
        return 1.0 - float(np.abs(predict(x) - (x + 2)).max())

    made = add(plain, file, tmp_path / "more", evaluate=nearness)
    assert made.row.accuracy == pytest.approx(0.999, abs=1e-4)
    assert made.row.accuracy_drop == pytest.approx(0.001, abs=1e-4)
    assert made.details("coral-tflite").metrics == {"accuracy": made.row.accuracy}
    with pytest.raises(AccuracyGateError, match=r"plus\.tflite: accuracy 0\.999"):
        add(plain, file, tmp_path / "none", evaluate=nearness, max_accuracy_drop=0.0001)


def test_what_nothing_here_runs_says_so_and_leaves_the_device_room(
    plain: BundleLayout, tmp_path: Path
) -> None:
    file = tmp_path / "net.engine"
    file.write_bytes(b"an engine")
    made = add(plain, file, tmp_path / "more", target="jetson-orin", precision="int8")
    made.verify()
    details = made.details("jetson-orin-tensorrt")
    first = plain.details("fp32")
    assert made.variant("jetson-orin-tensorrt").format == "tensorrt"
    assert details.lineage["checked"] == "not checked here: nothing here runs tensorrt files"
    assert details.self_test == first.self_test
    assert details.tolerance.absolute > 10 * first.tolerance.absolute


def test_a_file_for_the_edge_tpu_is_left_to_the_device(plain: BundleLayout, tmp_path: Path) -> None:
    file = tmp_path / "parts_edgetpu.tflite"
    file.write_bytes(b"TFL3 edgetpu-custom-op")
    made = add(plain, file, tmp_path / "more", precision="int8")
    assert made.row.why == ("made elsewhere; not checked here: it was compiled for an Edge TPU")


def test_without_the_engines_library_it_is_left_to_the_device(
    plain: BundleLayout, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    made = add(plain, file, tmp_path / "more")
    assert "not checked here: ai_edge_litert is not installed" in made.row.why


def test_the_same_file_gives_the_same_digest(
    plain: BundleLayout, file: Path, tmp_path: Path
) -> None:
    made = [add(plain, file, tmp_path / to).digest for to in ("a", "b")]
    assert made[0] == made[1]


def test_an_onnx_file_brings_its_weights_and_is_checked(
    plain: BundleLayout, tmp_path: Path
) -> None:
    made = add(plain, models.save(plus(2.0), tmp_path / "again.onnx"), tmp_path / "more")
    assert made.variant("coral-onnx").opset == models.OPSET
    assert made.details("coral-onnx").lineage["checked"].endswith("are equal")
    other = models.save(plus(2.0, output="z"), tmp_path / "z.onnx")
    with pytest.raises(InvalidModelError, match=r"its outputs are z \(FP32, 2 axes\)"):
        add(plain, other, tmp_path / "none")


def test_openvinos_weights_are_found_beside_it(plain: BundleLayout, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    path = tmp_path / "net.xml"
    model = openvino.Core().read_model(models.save(plus(2.0), tmp_path / "m.onnx"))
    openvino.save_model(model, path, compress_to_fp16=False)
    made = add(plain, path, tmp_path / "more", target="gateway")
    assert set(files_of(made.manifest("gateway-openvino"))) == {"net.xml", "net.bin"}
    assert "opened here" in made.row.why
    path.with_suffix(".bin").unlink()
    with pytest.raises(InvalidInputError, match=r"no file at .*net\.bin"):
        add(plain, path, tmp_path / "none", target="gateway")


def test_outputs_of_another_shape_are_refused_though_their_values_are_the_same(
    plain: BundleLayout, tmp_path: Path
) -> None:
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    flat = plus(2.0, output="sum")
    flat.graph.node.append(helper.make_node("Reshape", ["sum", "any"], ["y"]))
    flat.graph.initializer.append(numpy_helper.from_array(np.array([-1]), "any"))
    flat.graph.output[0].CopyFrom(models.floats("y", "N"))
    path = tmp_path / "net.xml"
    model = openvino.Core().read_model(models.save(flat, tmp_path / "m.onnx"))
    openvino.save_model(model, path, compress_to_fp16=False)
    with pytest.raises(InvalidModelError, match=r"'y' has shape \[4\], .* \[1, 4\]"):
        add(plain, path, tmp_path / "more", target="gateway")


def test_a_folder_and_several_files_travel_whole(plain: BundleLayout, tmp_path: Path) -> None:
    folder = tmp_path / "neo"
    (folder / "parts").mkdir(parents=True)
    for name in ("compiled.so", "manifest.json", "parts/a.params"):
        (folder / name).write_text(name)
    made = add(plain, folder, tmp_path / "more", target="box")
    assert set(files_of(made.manifest("box-neo"))) == {
        "compiled.so",
        "manifest.json",
        "parts/a.params",
    }
    assert made.details("box-neo").entry == "compiled.so"
    files = [folder / "compiled.so", folder / "manifest.json"]
    listed = add(plain, files, tmp_path / "listed", target="box")
    assert set(files_of(listed.manifest("box-neo"))) == {"compiled.so", "manifest.json"}


@pytest.mark.parametrize(
    "ending,form",
    [
        (".plan", "tensorrt"),
        (".bin", "qnn"),
        (".dlc", "qnn"),
        (".cavalry", "cvflow"),
        (".tar", "neo"),
    ],
)
def test_the_ending_tells_the_format(
    plain: BundleLayout, tmp_path: Path, ending: str, form: str
) -> None:
    file = tmp_path / f"net{ending}"
    file.write_bytes(b"made elsewhere")
    assert add(plain, file, tmp_path / "more").variant(f"coral-{form}").format == form


@pytest.mark.parametrize(
    "changes,word",
    [
        ({"name": "fp32"}, "has a variant"),
        ({"precision": "fp8"}, "fp8"),
        ({"target": "jetson-nano"}, "format tflite is not opened there"),
        ({"target": "coral-usb", "model_format": "tflite"}, "precision fp32 does not suit it"),
        ({"file": Path("nothing.tflite")}, "no file"),
        ({"file": Path("nothing.weights")}, "no file"),
        ({"file": []}, "0 files"),
    ],
)
def test_what_cannot_be_a_variant_is_refused_and_leaves_nothing(
    changes: dict[str, object], word: str, plain: BundleLayout, file: Path, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {"file": file, **changes}
    with pytest.raises(InvalidInputError, match=word):
        add(plain, asked.pop("file"), tmp_path / "more", **asked)
    assert not (tmp_path / "more").exists()


def test_an_ending_or_a_folder_that_tells_nothing_is_refused(
    plain: BundleLayout, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a.weights", "b.weights"):
        (folder / name).write_text(name)
    with pytest.raises(InvalidInputError, match=r"ending of a\.weights tells no format"):
        add(plain, folder / "a.weights", tmp_path / "more")
    with pytest.raises(InvalidInputError, match="doesn't tell which file"):
        add(plain, folder, tmp_path / "more")
