"""OpenVINO as an engine: opens ``.xml`` files, on Intel's processors, GPUs and NPUs.

Rules kept here:

- openvino is imported when a model is opened, not before: it takes half a second and 30 MB.
- Where a model runs is read back from the compiled model. The library's own choice (``AUTO``) may
  not begin on the CPU and move on later, or what was read back would no longer be true.
- The CPU computes in the precision of the file, as where the file was judged; the library would
  take bfloat16 where it is quicker. GPUs and NPUs compute in 16 bits unless told otherwise.
- Runs at the same time have a request each; requests are used again.
- What takes long to compile is kept in the engine cache: models on GPUs and NPUs, not on the CPU.
- The weights lie beside the file, in a ``.bin`` of the same name, which must be there.
"""

from __future__ import annotations

import logging
from collections import deque
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from edgefleet.errors import (
    InferenceError,
    InvalidModelError,
    MissingExtraError,
    UnsupportedError,
)
from edgefleet.protocol.bundle import Datatype, Interface, TensorSpec
from edgefleet_runtime.engines.base import Engine, EngineOptions, LoadedModel
from edgefleet_runtime.engines.feed import FeedCheck

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_log = logging.getLogger(__name__)

ANY_DEVICE = "OpenVINOExecutionProvider"
CPU = "CPUExecutionProvider"
GPU = "OpenVINOGPUExecutionProvider"
NPU = "OpenVINONPUExecutionProvider"
AUTO = "AUTO"
DEVICES = {ANY_DEVICE: AUTO, CPU: "CPU", GPU: "GPU", NPU: "NPU"}
"""Execution provider wanted -> OpenVINO's name of the device."""
DATATYPES: dict[str, Datatype] = {
    "boolean": "BOOL", "f16": "FP16", "f32": "FP32", "f64": "FP64",
    "u8": "UINT8", "u16": "UINT16", "u32": "UINT32", "u64": "UINT64",
    "i8": "INT8", "i16": "INT16", "i32": "INT32", "i64": "INT64",
}  # fmt: skip
_CURE = "pip install 'edgefleet-runtime[openvino]'"


class OpenVinoEngine(Engine):
    """Opens models in OpenVINO's format, on what its library finds here."""

    formats: ClassVar[frozenset[str]] = frozenset({"openvino"})

    @classmethod
    def available(cls) -> tuple[str, ...]:
        """The CPU, and whatever else the library finds, which a loaded model tells."""
        return () if find_spec("openvino") is None else (ANY_DEVICE, CPU)

    def load(self, entry: Path, options: EngineOptions) -> LoadedModel:
        try:
            import openvino  # noqa: PLC0415 - heavy and optional
        except (ImportError, OSError) as error:
            msg = f"openvino can't be imported: {error}"
            raise MissingExtraError(msg, cure=_CURE) from error
        for path in (entry, entry.with_suffix(".bin")):
            if not path.is_file():
                msg = f"there is no model file {str(path)!r}"
                raise InvalidModelError(msg, cure="a model is an .xml and a .bin of the same name")
        core = openvino.Core()
        device = _device(options, tuple(core.available_devices))
        try:
            compiled = core.compile_model(str(entry), device, _properties(device, options))
        except RuntimeError as error:
            msg = f"OpenVINO can't load {entry.name}: {_brief(error)}"
            raise InvalidModelError(msg, cure="make it again with this version") from error
        return OpenVinoModel(compiled, f"openvino {openvino.__version__.split('-')[0]}")


class OpenVinoModel(LoadedModel):
    """A compiled model; `infer` may be called from several threads.

    Args:
        compiled: of OpenVINO.
        engine: name and version.
    """

    platform = "openvino_ir"

    def __init__(self, compiled: Any, engine: str) -> None:  # noqa: ANN401 - openvino has no types
        self.engine = engine
        self.interface = Interface(
            inputs=tuple(_spec(port) for port in compiled.inputs),
            outputs=tuple(_spec(port) for port in compiled.outputs),
        )
        self.providers = tuple(
            dict.fromkeys(_provider(name) for name in compiled.get_property("EXECUTION_DEVICES"))
        )
        self._compiled = compiled
        self._idle: deque[Any] = deque()
        self._ports = {
            spec.name: port
            for spec, port in zip(self.interface.outputs, compiled.outputs, strict=True)
        }
        self._check = FeedCheck(self.interface)

    def infer(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, NDArray[Any]]:
        feed = self._check.feed(inputs)
        names = self._check.wanted(outputs) if outputs else list(self._ports)
        compiled, idle, ports = self._compiled, self._idle, self._ports
        if compiled is None:
            msg = "the model is closed"
            raise InferenceError(msg)
        try:
            try:
                request = idle.popleft()
            except IndexError:
                request = compiled.create_infer_request()
            # Outputs are copies: the request's own memory is overwritten by its next run.
            values = request.infer(feed, share_inputs=True)
        except (RuntimeError, ValueError, TypeError) as error:
            msg = f"the model failed: {_brief(error)}"
            raise InferenceError(msg) from error
        if self._compiled is not None:
            idle.append(request)
        return {name: values[ports[name]] for name in names}

    def close(self) -> None:
        self._compiled = None
        self._idle.clear()
        self._ports = {}


def _device(options: EngineOptions, found: tuple[str, ...]) -> str:
    """The device to open a model on.

    Args:
        options: the providers wanted.
        found: names of the devices here, such as ``CPU``, ``GPU`` or ``GPU.1``.

    Raises:
        UnsupportedError: ``strict``, and the first one wanted is not here.
    """
    kinds = {name.split(".", 1)[0] for name in found}
    choice = AUTO if kinds - {"CPU"} else "CPU"
    for place, wanted in enumerate(options.providers):
        device = DEVICES.get(wanted)
        if device == AUTO:
            return choice
        if device in kinds:
            return device
        if options.strict and place == 0:
            msg = f"OpenVINO finds {', '.join(found) or 'no device'} here, which is not {wanted}"
            raise UnsupportedError(msg, cure="install its driver, or allow fallback")
        _log.warning("OpenVINO doesn't run on %s here, it finds %s", wanted, ", ".join(found))
    return choice


def _properties(device: str, options: EngineOptions) -> dict[str, Any]:
    """What to compile with, by OpenVINO's own names; what the operator gives goes before."""
    chosen: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if device == "CPU":
        chosen["INFERENCE_PRECISION_HINT"] = "f32"
        if options.threads:
            chosen["INFERENCE_NUM_THREADS"] = options.threads
    elif options.engine_cache is not None:
        chosen["CACHE_DIR"] = str(options.engine_cache / "openvino")
    if device == AUTO:
        chosen["ENABLE_STARTUP_FALLBACK"] = False
    known = {name for name, kind in DEVICES.items() if kind in {device, AUTO}}
    given = options.provider_options if set(options.providers[:1]) & known else ()
    return {**chosen, **dict(given)}


def _provider(device: str) -> str:
    """The execution provider of a device, such as ``GPU.0``."""
    kind = device.strip("()").split(".", 1)[0]
    return next((name for name, known in DEVICES.items() if known == kind), ANY_DEVICE)


def _spec(port: Any) -> TensorSpec:  # noqa: ANN401 - openvino has no types
    name, kind = port.any_name, port.element_type.get_type_name()
    if kind not in DATATYPES:
        msg = f"{name!r} of the model is {kind}, which this engine doesn't carry"
        raise InvalidModelError(msg, cure="convert it with plain numbers, or use ONNX")
    shape = port.partial_shape
    lengths = shape if shape.rank.is_static else ()
    return TensorSpec(
        name=name,
        datatype=DATATYPES[kind],
        shape=tuple(-1 if length.is_dynamic else length.get_length() for length in lengths),
    )


def _brief(error: Exception) -> str:
    """What the library says, without the places in its source that begin its lines."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(("Exception from", "Check '"))]
    return " ".join(said or lines)[:1000]
