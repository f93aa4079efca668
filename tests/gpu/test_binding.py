"""Tensors that stay on the GPU from run to run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgefleet.errors import InvalidInputError
from edgefleet_runtime.engines.device_memory import DeviceTensor

if TYPE_CHECKING:
    from edgefleet_runtime.engines.base import LoadedModel


def on_gpu(array: Any) -> tuple[Any, DeviceTensor]:
    """A copy of an array on GPU 0: onnxruntime's own value, and its place."""
    from onnxruntime import OrtValue

    value = OrtValue.ortvalue_from_numpy(array, "cuda", 0)
    fields = {"dtype": array.dtype, "shape": array.shape, "keeper": value}
    return value, DeviceTensor(value.data_ptr(), **fields)


def test_a_run_reads_and_writes_device_memory_in_place(on_cuda: LoadedModel) -> None:
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    given, x_there = on_gpu(x)
    written, y_there = on_gpu(np.zeros((2, 2), np.float32))
    bound = on_cuda.bind({"x": x_there}, {"y": y_there})
    for step in range(3):
        given.update_inplace(x + step)
        bound.run()
        np.testing.assert_allclose(
            written.numpy(), on_cuda.infer({"x": x + step})["y"], rtol=1e-3, atol=1e-3
        )


def test_host_and_device_memory_mix(on_cuda: LoadedModel) -> None:
    x = np.ones((1, 4), np.float32)
    _, there = on_gpu(x)
    bound = on_cuda.bind({"x": there})
    np.testing.assert_allclose(bound.run()["y"], on_cuda.infer({"x": x})["y"], rtol=1e-3, atol=1e-3)


def test_an_output_stays_on_the_gpu(on_cuda: LoadedModel) -> None:
    x = np.ones((1, 4), np.float32)
    _, there = on_gpu(x)
    found = on_cuda.infer_on_device({"x": there}, None, {"y"})["y"]
    assert isinstance(found, DeviceTensor)
    again = on_cuda.infer({"x": x})["y"]
    assert (found.device, found.shape, found.dtype) == (0, again.shape, again.dtype)


def test_memory_of_another_gpu_is_refused(on_cuda: LoadedModel) -> None:
    far = DeviceTensor(256, device=7, dtype=np.float32, shape=(1, 4))
    with pytest.raises(InvalidInputError, match="on GPU 7"):
        on_cuda.bind({"x": far})
