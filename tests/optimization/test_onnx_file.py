from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgefleet.errors import InvalidModelError, MissingExtraError
from edgefleet.optimization.onnx_file import inspect
from edgefleet.protocol.bundle import TensorSpec
from edgefleet.protocol.target import ORT_IR_CEILING, ORT_OPSET_CEILING
from tests.optimization import models

if TYPE_CHECKING:
    from pathlib import Path

    from tests.optimization.conftest import Digits


def test_a_trained_model_tells_its_interface(digits: Digits) -> None:
    file = inspect(digits.path)
    assert file.interface.inputs == (TensorSpec(name="X", datatype="FP32", shape=(-1, 64)),)
    assert [(spec.name, spec.datatype) for spec in file.interface.outputs] == [
        ("label", "INT64"),
        ("probabilities", "FP32"),
    ]
    assert (file.opset, file.precision, file.external) == (17, "fp32", ())
    assert file.producer.startswith("skl2onnx")
    assert file.custom_domains == ()
    assert file.size_bytes == digits.path.stat().st_size


def test_initializers_that_are_listed_as_inputs_are_no_inputs(tmp_path: Path) -> None:
    model = models.linear()
    model.graph.input.append(models.floats("w", 8, 8))
    file = inspect(models.save(model, tmp_path / "old.onnx"))
    assert [spec.name for spec in file.interface.inputs] == ["x"]


def test_the_shape_of_an_output_is_inferred_where_the_file_lacks_it(tmp_path: Path) -> None:
    model = models.linear()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    file = inspect(models.save(model, tmp_path / "m.onnx"))
    assert file.interface.outputs[0].shape == (-1, 8)


@pytest.mark.parametrize(
    "content, says",
    [
        (b"", "empty"),
        (b"not a model, only text\n" * 9, "not an ONNX file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "not an ONNX file"),
        (b"\x08\x08", "not a whole ONNX model"),
        (bytes(range(256)) * 8, "not an ONNX file"),
    ],
    ids=["empty", "text", "image", "header only", "noise"],
)
def test_what_is_no_model_is_refused_by_name(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "file.onnx"
    path.write_bytes(content)
    with pytest.raises(InvalidModelError, match=says) as caught:
        inspect(path)
    assert str(path) in str(caught.value)
    assert caught.value.cure


@pytest.mark.parametrize(
    "name, cure",
    [
        ("net.pt", "torch.onnx.export"),
        ("net.keras", "tf2onnx"),
        ("forest.PKL", "edgefleet.convert"),
        ("net.tflite", "Bundle.add_variant"),
        ("net.onnx", "cut short"),
    ],
)
def test_who_brings_another_kind_of_file_reads_how_onnx_comes_of_it(
    tmp_path: Path, name: str, cure: str
) -> None:
    path = tmp_path / name
    path.write_bytes(bytes(range(256)))
    with pytest.raises(InvalidModelError, match=r"is not an ONNX file") as caught:
        inspect(path)
    assert cure in str(caught.value.cure)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    data = models.linear().SerializeToString()
    path = tmp_path / "cut.onnx"
    for length in range(len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(InvalidModelError):
            inspect(path)


def test_a_missing_file_a_folder_and_a_link_are_refused(tmp_path: Path) -> None:
    models.save(models.linear(), tmp_path / "real.onnx")
    (tmp_path / "link.onnx").symlink_to("real.onnx")
    for name, says in (("none.onnx", "no model file"), ("", "is no file"), ("link.onnx", "link")):
        with pytest.raises(InvalidModelError, match=says):
            inspect(tmp_path / name)


def test_the_ceilings_are_what_onnxruntime_loads(tmp_path: Path) -> None:
    import onnxruntime

    def loads(opset: int, ir_version: int) -> bool:
        model = models.linear(opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except onnxruntime.capi.onnxruntime_pybind11_state.Fail:
            return False
        return True

    assert loads(ORT_OPSET_CEILING, ORT_IR_CEILING)
    assert not loads(ORT_OPSET_CEILING + 1, ORT_IR_CEILING)
    assert not loads(ORT_OPSET_CEILING, ORT_IR_CEILING + 1)


def test_an_opset_or_format_beyond_the_ceiling_is_refused_with_a_cure(tmp_path: Path) -> None:
    newer = [helper.make_opsetid("", ORT_OPSET_CEILING + 1)]
    path = models.save(models.linear(opset_imports=newer), tmp_path / "opset.onnx")
    with pytest.raises(InvalidModelError, match=f"opset {ORT_OPSET_CEILING + 1}.*cure.*export"):
        _one_line(path)
    path = models.save(models.linear(ir_version=ORT_IR_CEILING + 1), tmp_path / "ir.onnx")
    with pytest.raises(InvalidModelError, match=r"format 14.*cure: set model\.ir_version = 13"):
        _one_line(path)


def _one_line(path: Path) -> None:
    """Inspect, with the message on one line, for patterns that span message and cure."""
    try:
        inspect(path)
    except InvalidModelError as error:
        raise InvalidModelError(str(error).replace("\n", " ")) from error


def test_outputs_that_are_no_tensors_name_the_option_that_cures_them(digits: Digits) -> None:
    with pytest.raises(InvalidModelError, match=r"sequence.*'zipmap': False"):
        _one_line(digits.zipmap_path)


def test_elements_that_cannot_be_asked_for_are_refused(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.COMPLEX64, [1])
    out = helper.make_tensor_value_info("y", TensorProto.COMPLEX64, [1])
    model = models.model_of([helper.make_node("Identity", ["x"], ["y"])], [value], [out])
    with pytest.raises(InvalidModelError, match="COMPLEX64"):
        inspect(models.save(model, tmp_path / "m.onnx"))


def test_a_model_without_inputs_is_refused(tmp_path: Path) -> None:
    model = models.linear()
    model.graph.input.pop()
    with pytest.raises(InvalidModelError, match="no input"):
        inspect(models.save(model, tmp_path / "m.onnx"))


def test_domains_that_need_a_library_are_noted_and_local_functions_are_not(tmp_path: Path) -> None:
    function = helper.make_function(
        "mine",
        "Twice",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", models.OPSET)],
    )
    model = models.model_of(
        [
            helper.make_node("Twice", ["x"], ["h"], domain="mine"),
            helper.make_node("Fancy", ["h"], ["y"], domain="acme"),
        ],
        [models.floats("x", "N", 8)],
        [models.floats("y", "N", 8)],
        functions=[function],
        opset_imports=[
            helper.make_opsetid("", models.OPSET),
            helper.make_opsetid("mine", 1),
            helper.make_opsetid("acme", 1),
        ],
    )
    file = inspect(models.save(model, tmp_path / "m.onnx"))
    assert file.custom_domains == ("acme",)
    assert file.domains == {"ai.onnx": models.OPSET, "mine": 1, "acme": 1}


@pytest.mark.parametrize(
    "dtype, precision",
    [("float32", "fp32"), ("float16", "fp16"), ("float64", "fp64")],
)
def test_precision_is_what_most_weights_are(tmp_path: Path, dtype: str, precision: str) -> None:
    model = models.linear()
    model.graph.initializer.append(models.weights("more", 32, 32, dtype=dtype))
    assert inspect(models.save(model, tmp_path / "m.onnx")).precision == precision


def test_a_quantized_model_is_int8_whatever_its_scales_are(tmp_path: Path) -> None:
    model = models.model_of(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
        ],
        [models.floats("x", "N", 8)],
        [models.floats("y", "N", 8)],
        [
            numpy_helper.from_array(np.array(0.1, np.float32), "s"),
            numpy_helper.from_array(np.array(0, np.uint8), "z"),
        ],
    )
    assert inspect(models.save(model, tmp_path / "m.onnx")).precision == "int8"


def test_external_data_is_listed_with_its_size(tmp_path: Path) -> None:
    path = models.with_external(tmp_path, location="parts/deep/weights.bin")
    file = inspect(path)
    part = file.external[0]
    assert (part.location, part.size_bytes) == ("parts/deep/weights.bin", 16 + 8 * 8 * 4)
    assert part.path.read_bytes()[:16] == bytes(16)
    assert file.size_bytes == path.stat().st_size + part.size_bytes


def test_external_data_of_subgraphs_and_attributes_is_found(tmp_path: Path) -> None:
    inner = models.weights("inner", 8, 8)
    data = bytes(inner.raw_data)
    (tmp_path / "inner.bin").write_bytes(data)
    inner.ClearField("raw_data")
    inner.data_location = TensorProto.EXTERNAL
    entry = inner.external_data.add()
    entry.key, entry.value = "location", "inner.bin"
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=inner)], "b", [], [models.floats("c", 8, 8)]
    )
    model = models.model_of(
        [helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch)],
        [helper.make_tensor_value_info("flag", TensorProto.BOOL, [])],
        [models.floats("y", 8, 8)],
    )
    file = inspect(models.save(model, tmp_path / "m.onnx"))
    assert [part.location for part in file.external] == ["inner.bin"]


@pytest.mark.parametrize(
    "change, says",
    [
        ({"location": "../weights.bin"}, "unsafe"),
        ({"location": "/etc/hostname"}, "unsafe"),
        ({"location": ""}, "unsafe"),
        ({"location": "a\\b"}, "unsafe"),
        ({"location": "*/_ORT_MEM_ADDR_/*"}, "unsafe"),
        ({"location": "elsewhere.bin"}, "not there"),
        ({"offset": "17"}, "ends at byte 273"),
        ({"length": "300"}, "takes 256 bytes"),
        ({"length": "12"}, "takes 256 bytes"),
        ({"offset": "-4"}, "not a whole number"),
        ({"offset": "٣"}, "not a whole number"),
        ({"length": "1e3"}, "not a whole number"),
    ],
    ids=str,
)
def test_bad_external_data_is_refused(tmp_path: Path, change: dict[str, str], says: str) -> None:
    path = models.with_external(tmp_path / "model", change=change)
    (tmp_path / "weights.bin").write_bytes(bytes(1024))
    with pytest.raises(InvalidModelError, match=says) as caught:
        inspect(path)
    assert "'w'" in str(caught.value)
    assert str(path) in str(caught.value)


def test_links_on_the_way_to_external_data_are_refused(tmp_path: Path) -> None:
    path = models.with_external(tmp_path, location="data/weights.bin")
    inspect(path)
    file = tmp_path / "data" / "weights.bin"
    file.rename(tmp_path / "real.bin")
    file.symlink_to(tmp_path / "real.bin")
    with pytest.raises(InvalidModelError, match="symbolic link"):
        inspect(path)
    file.unlink()
    (tmp_path / "real.bin").rename(file)
    (tmp_path / "data").rename(tmp_path / "moved")
    (tmp_path / "data").symlink_to("moved")
    with pytest.raises(InvalidModelError, match="symbolic link"):
        inspect(path)


def test_a_data_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    path = models.with_external(tmp_path)
    (tmp_path / "weights.bin").unlink()
    (tmp_path / "weights.bin").mkdir()
    with pytest.raises(InvalidModelError, match="no plain file"):
        inspect(path)


def test_onnx_itself_accepts_what_passed(tmp_path: Path) -> None:
    path = models.with_external(tmp_path)
    inspect(path)
    onnx.checker.check_model(str(path))


def test_a_missing_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'edgefleet\[optimize\]'"):
        inspect(tmp_path / "m.onnx")
