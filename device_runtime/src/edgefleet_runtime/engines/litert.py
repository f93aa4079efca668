"""LiteRT (formerly TensorFlow Lite) as an engine: opens ``.tflite`` files, on an Edge TPU too.

Rules kept here:

- ai_edge_litert is imported when a model is opened, not before: it takes 60 MB.
- An interpreter belongs to one run at a time: callers take turns. What runs more at once needs more
  interpreters.
- The Edge TPU runs only what its compiler made for it (``edgetpu-custom-op``); the CPU runs all the
  rest, and both are counted. ``strict`` refuses a rest.
- Tensors are as the file has them: quantized models take and give whole numbers.
"""

from __future__ import annotations

import ctypes
import logging
import re
import threading
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from edgefleet.errors import (
    InferenceError,
    InvalidModelError,
    MissingExtraError,
    UnsupportedError,
)
from edgefleet.protocol.bundle import Interface, TensorSpec
from edgefleet.protocol.tensors import datatype_of
from edgefleet_runtime.engines.base import Engine, EngineOptions, LoadedModel
from edgefleet_runtime.engines.feed import FeedCheck

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_log = logging.getLogger(__name__)

CPU = "CPUExecutionProvider"
EDGE_TPU = "EdgeTpuDelegate"
EDGE_TPU_LIBRARY = "libedgetpu.so.1"  # https://coral.ai/docs/edgetpu/tflite-python/
_COMPILED = "edgetpu-custom-op"
_DELEGATE = "DELEGATE"  # stands beside the operators that it took over
_FOR_EDGE_TPU = (
    "it is compiled for the Edge TPU: install libedgetpu and plug one in, or deliver what "
    "edgetpu_compiler was given"
)
# By what tflite/core/model_builder.cc and interpreter_builder.cc of LiteRT say
_CURES = {
    re.compile("not a valid Flatbuffer|allocation is null/empty|model identifier|schema version"): (
        "copy it again, whole: this is no TensorFlow Lite model, or a part of one"
    ),
    re.compile("Didn't find op for builtin opcode"): (
        "convert it with an older TensorFlow Lite, or upgrade ai-edge-litert"
    ),
    re.compile(f"unresolved custom op: {_COMPILED}"): _FOR_EDGE_TPU,
    re.compile("unresolved custom op"): (
        "convert it without that operator, which is none of LiteRT's own"
    ),
}


class LiteRtEngine(Engine):
    """Opens TensorFlow Lite files on the CPU, or on an Edge TPU where its library is installed."""

    formats: ClassVar[frozenset[str]] = frozenset({"tflite"})

    @classmethod
    def available(cls) -> tuple[str, ...]:
        """The CPU, and the Edge TPU where its library is installed, plugged in or not."""
        if find_spec("ai_edge_litert") is None:
            return ()
        return (EDGE_TPU, CPU) if _has_edge_tpu_library() else (CPU,)

    def load(self, entry: Path, options: EngineOptions) -> LoadedModel:
        try:
            from ai_edge_litert import interpreter as litert  # noqa: PLC0415 - heavy and optional
        except (ImportError, OSError) as error:
            msg = f"ai_edge_litert can't be imported: {error}"
            raise MissingExtraError(msg, cure="pip install 'edgefleet-runtime[litert]'") from error
        if not entry.is_file():
            msg = f"there is no model file {str(entry)!r}"
            raise InvalidModelError(msg)
        wanted = options.providers[0] if options.providers else None
        if options.strict and wanted not in {None, CPU, EDGE_TPU}:
            msg = f"LiteRT runs on {CPU} and {EDGE_TPU}, not on {wanted}"
            raise UnsupportedError(msg, cure="ask for one of these, or allow fallback")
        delegates = _delegates(litert, options) if EDGE_TPU in options.providers else []
        try:
            session = litert.Interpreter(
                model_path=str(entry),
                experimental_delegates=delegates,
                num_threads=options.threads or None,
            )
            session.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            msg = f"LiteRT can't load {entry.name}: {' '.join(str(error).split())[:1000]}"
            raise InvalidModelError(msg, cure=_cure(str(error))) from error
        model = LiteRtModel(session, f"litert {version('ai-edge-litert')}", tpu=bool(delegates))
        if options.strict and wanted == EDGE_TPU and model.nodes.get(CPU):
            msg = f"{entry.name} runs {model.nodes[CPU]} operators on the CPU, not on {EDGE_TPU}"
            raise UnsupportedError(
                msg,
                cure="compile it with edgetpu_compiler so that all of it fits, or allow fallback",
            )
        return model


class LiteRtModel(LoadedModel):
    """An interpreter; `infer` may be called from several threads, which take turns."""

    platform = "litert_tflite"

    def __init__(self, session: Any, engine: str, *, tpu: bool) -> None:  # noqa: ANN401
        self.engine = engine
        self._inputs = _by_name(session, "input")
        self._outputs = _by_name(session, "output")
        self.interface = Interface(
            inputs=tuple(_spec(name, about) for name, about in self._inputs.items()),
            outputs=tuple(_spec(name, about) for name, about in self._outputs.items()),
        )
        self.nodes = _nodes(session, tpu=tpu)
        listed = (EDGE_TPU, CPU) if tpu else (CPU,)
        self.providers = tuple(sorted(listed, key=lambda name: -self.nodes.get(name, 0)))
        self._session = session
        self._check = FeedCheck(self.interface)
        self._lock = threading.Lock()

    def infer(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, NDArray[Any]]:
        feed = self._check.feed(inputs)
        names = self._check.wanted(outputs) if outputs else list(self._outputs)
        with self._lock:
            session = self._session
            if session is None:
                msg = "the model is closed"
                raise InferenceError(msg)
            try:
                self._shape(session, feed)
                for name, array in feed.items():
                    session.set_tensor(self._inputs[name]["index"], array)
                session.invoke()
                # Copies: the interpreter's own memory is overwritten by the next run.
                return {name: session.get_tensor(self._outputs[name]["index"]) for name in names}
            except (ValueError, RuntimeError) as error:
                msg = f"the model failed: {' '.join(str(error).split())[:1000]}"
                raise InferenceError(msg) from error

    def close(self) -> None:
        with self._lock:
            self._session = None

    def _shape(self, session: Any, feed: Mapping[str, NDArray[Any]]) -> None:  # noqa: ANN401
        """Make room for inputs of other lengths than those of the last run."""
        changed = False
        for name, array in feed.items():
            about = self._inputs[name]
            if tuple(about["shape"]) != array.shape:
                session.resize_tensor_input(about["index"], array.shape, strict=True)
                about["shape"] = array.shape
                changed = True
        if changed:
            session.allocate_tensors()


def _cure(said: str) -> str | None:
    """What helps against LiteRT's reason not to open a file, where that is known."""
    return next((cure for reason, cure in _CURES.items() if reason.search(said)), None)


def _delegates(litert: Any, options: EngineOptions) -> list[Any]:  # noqa: ANN401 - a module
    """The Edge TPU's delegate, if it can be had."""
    why = f"{EDGE_TPU_LIBRARY} is not installed"
    if _has_edge_tpu_library():
        try:
            return [litert.load_delegate(EDGE_TPU_LIBRARY)]
        except (ValueError, OSError) as error:  # ValueError: no device is plugged in
            why = " ".join(str(error).split())[:300] or "no Edge TPU answers"
    if options.strict and options.providers[0] == EDGE_TPU:
        msg = f"the Edge TPU can't be used: {why}"
        raise UnsupportedError(msg, cure="install libedgetpu and plug it in, or allow fallback")
    _log.warning("the Edge TPU can't be used, trying the CPU: %s", why)
    return []


def _has_edge_tpu_library() -> bool:
    try:
        ctypes.CDLL(EDGE_TPU_LIBRARY)
    except OSError:
        return False
    return True


def _by_name(session: Any, kind: str) -> dict[str, dict[str, Any]]:  # noqa: ANN401
    """Details of inputs or outputs by the name in the only signature, else by the tensor's own."""
    signatures = session.get_signature_list()
    if len(signatures) == 1:
        runner = session.get_signature_runner(next(iter(signatures)))
        return dict(getattr(runner, f"get_{kind}_details")())
    return {about["name"]: about for about in getattr(session, f"get_{kind}_details")()}


def _spec(name: str, about: Mapping[str, Any]) -> TensorSpec:
    try:
        datatype = datatype_of(about["dtype"]().dtype)
    except (AttributeError, TypeError, ValueError) as error:
        msg = f"{name!r} of the model is {about['dtype'].__name__}, which can't be served"
        raise InvalidModelError(msg, cure="export it with plain numbers") from error
    if datatype == "BYTES":
        msg = f"{name!r} of the model holds text, which this engine doesn't carry"
        raise InvalidModelError(msg, cure="tokenize before the model, or use ONNX")
    lengths = about["shape_signature"] if len(about["shape_signature"]) else about["shape"]
    return TensorSpec(name=name, datatype=datatype, shape=tuple(int(length) for length in lengths))


def _nodes(session: Any, *, tpu: bool) -> dict[str, int]:  # noqa: ANN401
    """Operators by provider; none where this version doesn't tell (the call is a private one)."""
    ask = getattr(session, "_get_ops_details", None)
    operators = [op["op_name"] for op in ask()] if ask is not None else []
    plain = sum(name not in {_DELEGATE, _COMPILED} for name in operators)
    compiled = sum(name == _COMPILED for name in operators) if tpu else 0
    return {name: count for name, count in ((EDGE_TPU, compiled), (CPU, plain)) if count}
