"""The ONNX Runtime engine on real files: what it says of itself, what it refuses, and how."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from device_runtime.tests import onnx_models
from device_runtime.tests.engines.rules import EngineRules
from edgefleet.errors import (
    InferenceError,
    InvalidInputError,
    InvalidModelError,
    MissingExtraError,
    UnsupportedError,
)
from edgefleet.protocol.bundle import Interface, TensorSpec
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.onnxruntime import CPU, OnnxRuntimeEngine

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet_runtime.engines.base import LoadedModel

CUDA = "CUDAExecutionProvider"


def load(path: Path, **options: Any) -> LoadedModel:
    return OnnxRuntimeEngine().load(path, EngineOptions(**options))


def f32(*values: float) -> Any:
    return np.array(values, np.float32)


class TestRules(EngineRules):
    engine = OnnxRuntimeEngine

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return onnx_models.plus(tmp_path / "m.onnx", 2, shape=("n", 4))


def test_a_model_tells_its_interface_and_where_it_runs(tmp_path: Path) -> None:
    model = load(onnx_models.mlp(tmp_path / "m.onnx"))
    assert model.interface == Interface(
        inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),),
        outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 2)),),
    )
    assert model.providers == (CPU,)
    assert model.nodes == {CPU: 2}
    assert model.engine.startswith("onnxruntime 1.")
    assert model.platform == "onnxruntime_onnx"


def test_it_gives_what_the_graph_says(tmp_path: Path) -> None:
    model = load(onnx_models.mlp(tmp_path / "m.onnx"), threads=1)
    out = model.infer({"x": f32(1, 0, 0, 0, 0, 0, 0, 1).reshape(2, 4)})
    assert out["y"].tolist() == [[0, 0], [3, 4]]


def test_outputs_come_in_the_order_asked_for(tmp_path: Path) -> None:
    model = load(onnx_models.scalar_and_two_outputs(tmp_path / "m.onnx"))
    x = {"x": np.array(-2, np.float32)}
    assert list(model.infer(x)) == ["minus", "plus"]
    assert list(model.infer(x, ["plus", "minus"])) == ["plus", "minus"]
    assert model.infer(x, ["plus"])["plus"] == 2


def test_weights_in_a_file_beside_the_model_are_found(tmp_path: Path) -> None:
    path = onnx_models.mlp(tmp_path / "m.onnx", external=True)
    assert (tmp_path / "m.onnx.data").stat().st_size > 0
    assert load(path).infer({"x": f32(0, 0, 0, 1).reshape(1, 4)})["y"].tolist() == [[3, 4]]


def test_missing_weights_are_the_models_fault(tmp_path: Path) -> None:
    path = onnx_models.mlp(tmp_path / "m.onnx", external=True)
    (tmp_path / "m.onnx.data").unlink()
    with pytest.raises(InvalidModelError, match=r"m\.onnx"):
        load(path)


def test_strings_go_in_and_out(tmp_path: Path) -> None:
    model = load(onnx_models.identity(tmp_path / "m.onnx", TensorProto.STRING))
    out = model.infer({"x": np.array([b"a", "é".encode(), "z"], object)})
    assert out["y"].tolist() == ["a", "é", "z"]


@pytest.mark.parametrize(
    "kind,dtype",
    [
        (TensorProto.BOOL, "?"),
        (TensorProto.UINT8, "u1"),
        (TensorProto.UINT64, "u8"),
        (TensorProto.INT16, "i2"),
        (TensorProto.FLOAT16, "f2"),
        (TensorProto.DOUBLE, "f8"),
    ],
)
def test_every_datatype_passes_unchanged(tmp_path: Path, kind: int, dtype: str) -> None:
    model = load(onnx_models.identity(tmp_path / "m.onnx", kind))
    x = np.array([0, 1, 1], dtype)
    x.flags.writeable = False  # as views of a request's body are
    seen = model.infer({"x": x})["y"]
    assert seen.dtype == x.dtype
    np.testing.assert_array_equal(seen, x)


@pytest.mark.parametrize(
    "inputs,said",
    [
        ({}, "input 'x' is missing"),
        ({"z": f32(1)}, "input 'x' is missing"),
        ({"x": np.zeros((1, 4)), "z": f32(1)}, "takes FP32, not FP64"),
        ({"x": np.zeros((1, 4), np.float32), "z": f32(1)}, "no input 'z'"),
        ({"x": np.zeros(4, np.float32)}, r"takes shape \[-1, 4\], not \[4\]"),
        ({"x": np.zeros((1, 5), np.float32)}, r"takes shape \[-1, 4\], not \[1, 5\]"),
        ({"x": np.array([["a"] * 4], object)}, "takes FP32, not BYTES"),
    ],
)
def test_bad_inputs_are_refused_before_the_run(
    tmp_path: Path, inputs: dict[str, Any], said: str
) -> None:
    model = load(onnx_models.mlp(tmp_path / "m.onnx"))
    with pytest.raises(InvalidInputError, match=said):
        model.infer(inputs)


@pytest.mark.parametrize("element", [b"\xff", 7])
def test_what_is_no_text_is_refused(tmp_path: Path, element: object) -> None:
    model = load(onnx_models.identity(tmp_path / "m.onnx", TensorProto.STRING))
    with pytest.raises(InvalidInputError, match="element 0 of input 'x'"):
        model.infer({"x": np.array([element], object)})


def test_an_output_that_is_not_there_is_refused(tmp_path: Path) -> None:
    model = load(onnx_models.mlp(tmp_path / "m.onnx"))
    with pytest.raises(InvalidInputError, match="no output 'q'"):
        model.infer({"x": np.zeros((1, 4), np.float32)}, ["y", "q"])


def test_an_input_of_unknown_rank_takes_any(tmp_path: Path) -> None:
    model = load(onnx_models.identity(tmp_path / "m.onnx", TensorProto.FLOAT, None))
    assert model.infer({"x": np.ones((2, 3), np.float32)})["y"].shape == (2, 3)


def test_a_run_that_fails_is_an_inference_error(tmp_path: Path) -> None:
    model = load(onnx_models.expand(tmp_path / "m.onnx"))
    with pytest.raises(InferenceError, match="the model failed"):
        model.infer({"x": f32(1), "shape": np.array([-5], np.int64)})


def test_an_output_larger_than_memory_is_an_inference_error(tmp_path: Path) -> None:
    model = load(onnx_models.expand(tmp_path / "m.onnx"))
    with pytest.raises(InferenceError):
        model.infer({"x": f32(1), "shape": np.array([1 << 20, 1 << 30], np.int64)})


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x09", b"\0" * 4096])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(InvalidModelError, match=r"can't load m\.onnx(.|\n)*cure: copy it again"):
        load(path)


def test_a_file_that_was_cut_off_is_to_be_copied_again(tmp_path: Path) -> None:
    path = onnx_models.mlp(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InvalidModelError, match="cure: copy it again"):
        load(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match="there is no model file"):
        load(tmp_path / "m.onnx")


def test_an_opset_too_new_is_named(tmp_path: Path) -> None:
    path = onnx_models.mlp(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.opset_import[0].version = 999
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InvalidModelError, match=r"opset 999 of ai\.onnx, the newest known here"):
        load(path)


def test_an_ir_version_too_new_is_named(tmp_path: Path) -> None:
    path = onnx_models.mlp(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.ir_version = 99
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InvalidModelError, match="IR version is 99"):
        load(path)


def test_an_operator_that_is_not_built_in_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match="Frobnicate, which is not built in") as refused:
        load(onnx_models.custom_operator(tmp_path / "m.onnx"))
    assert "--allow-custom-ops" in str(refused.value)


def test_an_output_that_is_no_tensor_is_refused_with_a_cure(tmp_path: Path) -> None:
    sequence = onnx.helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
    path = onnx_models.save(
        tmp_path / "m.onnx",
        [onnx.helper.make_node("SequenceConstruct", ["x"], ["y"])],
        [onnx_models.tensor("x", TensorProto.FLOAT, [1])],
        [sequence],
    )
    with pytest.raises(InvalidModelError, match="zipmap"):
        load(path)


@pytest.mark.skipif(CUDA in OnnxRuntimeEngine.available(), reason="this build has CUDA")
def test_strict_refuses_a_provider_that_the_build_lacks(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=CUDA):
        load(onnx_models.mlp(tmp_path / "m.onnx"), providers=(CUDA, CPU), strict=True)


@pytest.mark.skipif(CUDA in OnnxRuntimeEngine.available(), reason="this build has CUDA")
def test_without_strict_the_fallback_is_logged_and_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        model = load(onnx_models.mlp(tmp_path / "m.onnx"), providers=(CUDA,))
    assert model.providers == (CPU,)
    assert CUDA in caplog.text


def test_strict_is_content_when_the_provider_wanted_runs_the_model(tmp_path: Path) -> None:
    model = load(onnx_models.mlp(tmp_path / "m.onnx"), providers=(CPU,), strict=True)
    assert model.providers == (CPU,)


def test_the_remote_provider_is_not_chosen_unasked(tmp_path: Path) -> None:
    model = load(onnx_models.mlp(tmp_path / "m.onnx"))
    assert "AzureExecutionProvider" not in model.providers


def test_without_the_library_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert OnnxRuntimeEngine.available() == ()
    with pytest.raises(MissingExtraError, match=r"edgefleet-runtime\[cpu\]"):
        load(onnx_models.mlp(tmp_path / "m.onnx"))


def test_nothing_is_printed_on_a_failed_load(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(InvalidModelError):
        load(path)
    assert capfd.readouterr() == ("", "")
