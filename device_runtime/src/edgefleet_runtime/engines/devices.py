"""Short names of what models can run on, and the execution providers that they stand for."""

from __future__ import annotations

from edgefleet.errors import InvalidInputError

# Names: https://onnxruntime.ai/docs/execution-providers/. TensorRT alone hands nodes it can't take
# to CUDA, the others hand them to the CPU.
_PROVIDERS: dict[str, tuple[str, ...]] = {
    "auto": (),
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider",),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
    "openvino": ("OpenVINOExecutionProvider",),
    "intel-gpu": ("OpenVINOGPUExecutionProvider",),
    "intel-npu": ("OpenVINONPUExecutionProvider",),
    "qnn": ("QNNExecutionProvider",),
    "coreml": ("CoreMLExecutionProvider",),
    "edgetpu": ("EdgeTpuDelegate",),
}


def providers_of(device: str) -> tuple[str, ...]:
    """The execution providers of a device, the best first; none for ``auto``: the engine chooses.

    Args:
        device: a short name, or an execution provider's own name.

    Raises:
        InvalidInputError: it is neither.
    """
    if device.endswith(("ExecutionProvider", "Delegate")):
        return (device,)
    try:
        return _PROVIDERS[device.lower()]
    except KeyError:
        raise InvalidInputError(
            f"there is no device {device!r}", cure=f"choose one of {', '.join(_PROVIDERS)}"
        ) from None
