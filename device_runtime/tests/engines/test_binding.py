"""Models with fixed inputs and outputs: what can be bound, and what a run does then."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto

from device_runtime.tests import onnx_models
from device_runtime.tests.cuda_simulator import host_as_gpu
from device_runtime.tests.serving import FakeModel
from edgefleet.errors import InferenceError, InvalidInputError, UnsupportedError
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.device_memory import DeviceTensor
from edgefleet_runtime.engines.onnxruntime import OnnxRuntimeEngine

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet_runtime.engines.base import LoadedModel


@pytest.fixture
def mlp(tmp_path: Path) -> LoadedModel:
    return OnnxRuntimeEngine().load(onnx_models.mlp(tmp_path / "m.onnx"), EngineOptions())


def x(rows: int = 1) -> Any:
    return np.arange(4 * rows, dtype=np.float32).reshape(rows, 4)


def f32(*shape: int) -> Any:
    return np.zeros(shape, np.float32)


def test_a_run_reads_the_inputs_as_they_are_now_and_writes_outputs_in_place(
    mlp: LoadedModel,
) -> None:
    given, written = x(2), f32(2, 2)
    bound = mlp.bind({"x": given}, {"y": written})
    for _ in range(3):
        given += 1
        assert bound.run()["y"] is written
        np.testing.assert_array_equal(written, mlp.infer({"x": given})["y"])


def test_without_outputs_arrays_of_the_right_shape_are_made(mlp: LoadedModel) -> None:
    bound = mlp.bind({"x": x(3)})
    assert list(bound.outputs) == ["y"]
    np.testing.assert_array_equal(bound.run()["y"], mlp.infer({"x": x(3)})["y"])


def test_outputs_can_be_chosen_by_name(tmp_path: Path) -> None:
    path = onnx_models.scalar_and_two_outputs(tmp_path / "m.onnx")
    model = OnnxRuntimeEngine().load(path, EngineOptions())
    bound = model.bind({"x": np.array(-2, np.float32)}, ["plus"])
    assert dict(bound.run()) == {"plus": 2.0}


@pytest.mark.parametrize(
    "inputs,outputs,said",
    [
        ({}, None, "input 'x' is missing"),
        ({"x": x().astype("f8")}, None, "takes FP32, not FP64"),
        ({"x": f32(1, 5)}, None, "takes shape"),
        ({"x": x(8)[::2]}, None, r"numpy\.ascontiguousarray"),
        ({"x": np.asfortranarray(x(2))}, None, r"numpy\.ascontiguousarray"),
        ({"x": np.frombuffer(bytes(17), "u1")[1:].view("f4").reshape(1, 4)}, None, "aligned"),
        ({"x": [1, 2]}, None, "tells no address"),
        ({"x": x(2)}, {"z": f32(2, 2)}, "no output 'z'"),
        ({"x": x(2)}, {"y": np.zeros((2, 2))}, "gives FP32, not FP64"),
        ({"x": x(2)}, {"y": f32(2, 3)}, r"gives shape \[-1, 2\], not \[2, 3\]"),
        ({"x": x(2)}, {"y": f32(2)}, "gives shape"),
        ({"x": x(2)}, {"y": np.broadcast_to(f32(1, 2), (2, 2))}, r"numpy\.ascontiguousarray"),
        ({"x": x(2)}, {"y": np.frombuffer(bytes(16), "f4").reshape(2, 2)}, "read-only"),
        ({"x": x(2)}, {"y": DeviceTensor(64, dtype="f4", shape=(2, 2))}, "on GPU 0, the model"),
        ({"x": DeviceTensor(64, dtype="f4", shape=(2, 4))}, None, "on GPU 0, the model"),
    ],
)
def test_what_cannot_be_bound_is_refused_at_once(
    mlp: LoadedModel, inputs: Any, outputs: Any, said: str
) -> None:
    with pytest.raises(InvalidInputError, match=said):
        mlp.bind(inputs, outputs)


def test_text_has_no_fixed_place(tmp_path: Path) -> None:
    path = onnx_models.identity(tmp_path / "m.onnx", TensorProto.STRING)
    model = OnnxRuntimeEngine().load(path, EngineOptions())
    with pytest.raises(InvalidInputError, match="is text"):
        model.bind({"x": np.array(["a"], object)})


def test_an_output_on_an_input_is_refused(mlp: LoadedModel) -> None:
    memory = f32(16)
    given = memory[:8].reshape(2, 4)
    with pytest.raises(InvalidInputError, match="lies on 'x'"):
        mlp.bind({"x": given}, {"y": memory[6:10].reshape(2, 2)})
    mlp.bind({"x": given}, {"y": memory[8:12].reshape(2, 2)})


def test_an_output_of_another_shape_in_a_later_run_is_an_error(tmp_path: Path) -> None:
    path = onnx_models.expand(tmp_path / "m.onnx")
    model = OnnxRuntimeEngine().load(path, EngineOptions())
    shape = np.array([2, 2], np.int64)
    bound = model.bind({"x": np.ones(1, np.float32), "shape": shape})
    assert bound.run()["y"].tolist() == [[1, 1], [1, 1]]
    shape[:] = 3
    with pytest.raises(InferenceError, match="the model failed"):
        bound.run()


def test_a_closed_binding_lets_go_of_the_tensors(mlp: LoadedModel) -> None:
    import sys

    given = x()
    held = sys.getrefcount(given)
    bound = mlp.bind({"x": given})
    assert sys.getrefcount(given) > held
    bound.close()
    bound.close()
    assert sys.getrefcount(given) == held
    with pytest.raises(InferenceError, match="closed"):
        bound.run()


def test_a_closed_model_cannot_be_bound(mlp: LoadedModel) -> None:
    mlp.close()
    with pytest.raises(InferenceError, match="closed"):
        mlp.bind({"x": x()})


def test_threads_take_turns_on_one_binding(mlp: LoadedModel) -> None:
    bound = mlp.bind({"x": x()})
    due = bound.run()["y"].copy()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: bound.run(), range(200)))
    np.testing.assert_array_equal(bound.outputs["y"], due)


def test_an_engine_without_bindings_says_so() -> None:
    with pytest.raises(UnsupportedError, match=r"call infer\(\)"):
        FakeModel().bind({"x": f32(1)})


@pytest.fixture
def gpu(tmp_path: Path) -> Any:
    return host_as_gpu(onnx_models.mlp(tmp_path / "g.onnx"))


def on_gpu(array: Any, **more: Any) -> DeviceTensor:
    fields = {"dtype": array.dtype, "shape": array.shape, "keeper": array, **more}
    return DeviceTensor(array.ctypes.data, **fields)


def test_tensors_in_device_memory_are_bound_by_address(gpu: LoadedModel) -> None:
    given, written = x(2), f32(2, 2)
    bound = gpu.bind({"x": on_gpu(given)}, {"y": on_gpu(written)})
    bound.run()
    np.testing.assert_array_equal(written, gpu.infer({"x": given})["y"])
    assert isinstance(bound.outputs["y"], DeviceTensor)


def test_an_output_may_stay_in_device_memory(gpu: LoadedModel) -> None:
    given = x(2)
    found = gpu.infer_on_device({"x": on_gpu(given)}, None, {"y"})["y"]
    assert isinstance(found, DeviceTensor)
    assert (found.shape, found.dtype, found.nbytes) == ((2, 2), np.float32, 16)
    due = gpu.infer({"x": given})["y"]
    import ctypes

    np.testing.assert_array_equal(
        np.frombuffer(ctypes.string_at(found.pointer, found.nbytes), "f4").reshape(2, 2), due
    )
    assert isinstance(gpu.infer_on_device({"x": given}, ["y"], ())["y"], np.ndarray)


@pytest.mark.parametrize(
    "change,said",
    [({"device": 1}, "on GPU 1, the model runs on GPU 0"), ({"writable": False}, "read-only")],
)
def test_device_memory_that_does_not_fit_is_refused(
    gpu: LoadedModel, change: Any, said: str
) -> None:
    with pytest.raises(InvalidInputError, match=said):
        gpu.bind({"x": on_gpu(x(2))}, {"y": on_gpu(f32(2, 2), **change)})


def test_outputs_on_each_other_in_device_memory_are_refused(gpu: LoadedModel) -> None:
    given = x(2)
    with pytest.raises(InvalidInputError, match="lies on 'x'"):
        gpu.bind({"x": on_gpu(given)}, {"y": on_gpu(given[:1].reshape(2, 2))})


def foreign(array: Any, **more: Any) -> Any:
    about = {
        "typestr": array.dtype.str,
        "shape": array.shape,
        "data": (array.ctypes.data, False),
        "version": 3,
        **more,
    }
    return SimpleNamespace(
        __cuda_array_interface__=about, __dlpack_device__=lambda: (2, 3), kept=array
    )


def test_arrays_of_other_libraries_tell_their_address_and_device() -> None:
    found = DeviceTensor.of(foreign(x(2), strides=(16, 4)))
    assert (found.device, found.shape, found.dtype, found.writable) == (3, (2, 4), np.float32, True)


@pytest.mark.parametrize(
    "change,said",
    [
        ({"strides": (4, 16)}, "C order"),
        ({"mask": 1}, "masked"),
        ({"data": (0, False)}, "can't be"),
    ],
)
def test_arrays_that_are_not_plain_are_refused(change: Any, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        DeviceTensor.of(foreign(x(2), **change))


def test_arrays_of_the_host_come_by_dlpack(mlp: LoadedModel) -> None:
    class Other:
        def __init__(self, array: Any) -> None:
            self.array = array

        def __dlpack__(self, **_: Any) -> Any:
            return self.array.__dlpack__()

        def __dlpack_device__(self) -> Any:
            return self.array.__dlpack_device__()

    given = x()
    bound = mlp.bind({"x": Other(given)})
    given += 1
    np.testing.assert_array_equal(bound.run()["y"], mlp.infer({"x": given})["y"])


def test_a_tensor_on_a_gpu_is_not_read_by_chance() -> None:
    with pytest.raises(InvalidInputError, match="isn't there"):
        DeviceTensor(64, dtype="f4", shape=(1,)).to_host()
