"""ONNX Runtime as an engine: opens ``.onnx`` files by path, so that external data files are found.

Rules kept here:

- onnxruntime is imported when a model is opened or its providers are asked for, not before.
- Its own fallback to the CPU is off: it prints and carries on, also in the middle of serving. What
  falls back here is logged, reported, and refused when the options say ``strict``.
- ``strict`` means all of it: one node that computes elsewhere is a refusal, with its operator.
- TensorRT's engines are built into the cache as a whole, and then loaded from it.
- Builds of onnxruntime that overwrote each other are refused before anything is opened.
- The remote Azure provider is never chosen, and libraries of custom operators are never loaded.
- Inputs are checked before a run, so that a caller's mistake never looks like an engine's failure.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import msgspec

from edgefleet.errors import (
    EdgeFleetError,
    InferenceError,
    InvalidInputError,
    InvalidModelError,
    MissingExtraError,
    UnsupportedError,
)
from edgefleet.protocol.bundle import Datatype, Interface, TensorSpec
from edgefleet_runtime.engines import threads
from edgefleet_runtime.engines.base import Engine, EngineOptions, LoadedModel
from edgefleet_runtime.engines.building import CanBuild
from edgefleet_runtime.engines.builds import check_one_build
from edgefleet_runtime.engines.feed import FeedCheck
from edgefleet_runtime.engines.placement import nodes_by_provider, placed, slower_than
from edgefleet_runtime.engines.samples import sample_inputs
from edgefleet_runtime.engines.tensorrt import (
    BUILDER,
    TENSORRT,
    fingerprint,
    folder_options,
    named,
    parts_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgefleet_runtime.engines.building import Tell
    from edgefleet_runtime.engines.parts import Parts

_log = logging.getLogger(__name__)

CPU = "CPUExecutionProvider"
_NEVER_CHOSEN = ("AzureExecutionProvider",)  # sends inputs to a remote endpoint
_SILENT = 4  # ORT_LOGGING_LEVEL_FATAL: whatever else it would print arrives as an exception
_DATATYPES: dict[str, Datatype] = {
    "tensor(bool)": "BOOL", "tensor(string)": "BYTES",
    "tensor(uint8)": "UINT8", "tensor(uint16)": "UINT16", "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64", "tensor(int8)": "INT8", "tensor(int16)": "INT16",
    "tensor(int32)": "INT32", "tensor(int64)": "INT64", "tensor(float16)": "FP16",
    "tensor(float)": "FP32", "tensor(double)": "FP64",
}  # fmt: skip
# core/graph/model_load_utils.h, core/graph/model.cc and core/graph/graph.cc of onnxruntime
_NEW_OPSET = re.compile(
    r"Opset (\d+) is under development.*support for domain (\S+) is till opset (\d+)", re.DOTALL
)
_NEW_IR = re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)")
_NEW_OPERATOR = re.compile(
    r"No Op registered for (\S+) with domain_version of (\d+)|(\S+)\(-?\d+\) is not a registered"
)
_MODELS_FAULT = ("InvalidProtobuf", "InvalidGraph", "NoSuchFile", "NoModel")
_CALLERS_FAULT = re.compile(r"INVALID_ARGUMENT : (Invalid rank|Got invalid dimensions|Unexpected)")


class OnnxRuntimeEngine(Engine, CanBuild):
    """Opens ONNX files on the execution providers of the onnxruntime that is installed."""

    formats: ClassVar[frozenset[str]] = frozenset({"onnx"})

    @classmethod
    def available(cls) -> tuple[str, ...]:
        """The providers this build lists; a GPU build lists CUDA also where there is no GPU."""
        try:
            import onnxruntime  # noqa: PLC0415 - heavy and optional
        except (ImportError, OSError):  # OSError: a shared library it links is missing
            return ()
        return tuple(onnxruntime.get_available_providers())

    def load(self, entry: Path, options: EngineOptions) -> LoadedModel:
        try:
            import onnxruntime  # noqa: PLC0415 - heavy and optional
        except (ImportError, OSError) as error:
            msg = f"onnxruntime can't be imported: {error}"
            raise MissingExtraError(
                msg,
                cure="pip install 'edgefleet-runtime[cpu]', or [gpu] where there is an NVIDIA GPU",
            ) from error
        check_one_build()
        if not entry.is_file():
            msg = f"there is no model file {str(entry)!r}"
            raise InvalidModelError(msg)
        providers = _chosen(options, tuple(onnxruntime.get_available_providers()))
        engine = f"onnxruntime {onnxruntime.__version__}"
        single = msgspec.structs.replace(options, threads=1)
        unsure = not options.threads and providers == (CPU,) and threads.may_be_tiny(entry)
        kept = self._kept_engine(entry, options)
        session = _open(onnxruntime, entry, single if unsure else options, providers, kept)
        if options.strict and options.providers:
            _refuse_slower(entry, session, options.providers[0])
        model = OnnxModel(session, engine)
        if unsure and not threads.is_tiny(model):
            model = OnnxModel(_open(onnxruntime, entry, options, providers), engine)
        return model

    def _kept_engine(self, entry: Path, options: EngineOptions) -> Path | None:
        """The folder with TensorRT's engine, built now if need be; None to build while loading."""
        try:
            return self.build(entry, options)
        except (EdgeFleetError, OSError) as error:
            _log.warning("TensorRT's engine for %s isn't kept: %s", entry.name, error)
            return None

    @classmethod
    def machine(cls) -> Mapping[str, str] | None:
        import onnxruntime  # noqa: PLC0415 - heavy and optional

        found = fingerprint(onnxruntime.__version__)
        return None if found is None else named(found)

    def parts(self, entry: Path, options: EngineOptions) -> Parts | None:
        import onnxruntime  # noqa: PLC0415 - heavy and optional

        available = tuple(onnxruntime.get_available_providers())
        wanted = options.providers or available
        if options.engine_cache is None or TENSORRT not in available or TENSORRT not in wanted[:1]:
            return None
        found = fingerprint(onnxruntime.__version__)
        if found is None:
            _log.warning("TensorRT's engines aren't kept: this machine's versions can't be told")
            return None
        return parts_of(entry, found)

    def interim(self, options: EngineOptions) -> EngineOptions:
        wanted = options.providers or self.available()
        others = tuple(name for name in wanted if name not in {TENSORRT, *_NEVER_CHOSEN})
        return msgspec.structs.replace(options, providers=others)

    def build_into(self, folder: Path, entry: Path, options: EngineOptions, tell: Tell) -> None:
        import onnxruntime  # noqa: PLC0415 - heavy and optional

        tell(0.0)
        providers = _chosen(options, tuple(onnxruntime.get_available_providers()))
        session = _open(onnxruntime, entry, options, providers, folder)
        if TENSORRT not in session.get_providers():
            raise UnsupportedError(f"TensorRT can't build an engine for {entry.name}")
        # Where a length is free, TensorRT builds when it first sees one.
        model = OnnxModel(session, BUILDER)
        model.infer(sample_inputs(model.interface))
        model.close()


class OnnxModel(LoadedModel):
    """A session of ONNX Runtime; `infer` may be called from several threads."""

    platform = "onnxruntime_onnx"

    def __init__(self, session: Any, engine: str) -> None:  # noqa: ANN401 - onnxruntime has no types
        self.engine = engine
        self.interface = Interface(
            inputs=tuple(_spec(node) for node in session.get_inputs()),
            outputs=tuple(_spec(node) for node in session.get_outputs()),
        )
        self.nodes = nodes_by_provider(placed(session))
        listed = tuple(session.get_providers())
        # A stable sort: where nothing is known of the nodes, the session's own order stays.
        self.providers = tuple(sorted(listed, key=lambda name: -self.nodes.get(name, 0)))
        self._session = session
        # Its `run` looks for missing inputs and values of other libraries first, which `FeedCheck`
        # has done: 2 µs, a fifth of a tiny model's run.
        self._run = getattr(getattr(session, "_sess", session), "run", _closed)
        self._check = FeedCheck(self.interface)
        self._outputs = [spec.name for spec in self.interface.outputs]

    def infer(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, NDArray[Any]]:
        if self._session is None:
            msg = "the model is closed"
            raise InferenceError(msg)
        feed = self._check.feed(inputs)
        names = self._check.wanted(outputs) if outputs else self._outputs
        try:
            values = self._run(names, feed, None)
        except Exception as error:  # its exceptions have no common base
            if _CALLERS_FAULT.search(str(error)):
                raise InvalidInputError(_brief(error)) from error
            msg = f"the model failed: {_brief(error)}"
            raise InferenceError(msg) from error
        return dict(zip(names, values, strict=True))

    def close(self) -> None:
        self._session = None
        self._run = _closed


def _closed(*_: object) -> NoReturn:
    raise InferenceError("the model is closed")


def _refuse_slower(entry: Path, session: Any, wanted: str) -> None:  # noqa: ANN401
    """Refuse a session of which something runs on another provider than the one wanted."""
    nodes = placed(session)
    slower = slower_than(wanted, nodes)
    if not nodes and session.get_providers()[0] != wanted:
        slower = f"everything on {session.get_providers()[0]}"
    if slower is not None:
        msg = f"{entry.name} doesn't run on {wanted} alone: {slower}"
        cure = "fix the provider's installation, ask for another device, or allow fallback"
        raise UnsupportedError(msg, cure=cure)


def _chosen(options: EngineOptions, available: tuple[str, ...]) -> tuple[str, ...]:
    """The providers to ask the session for: those wanted that this build has, then the CPU."""
    if not options.providers:
        return tuple(name for name in available if name not in _NEVER_CHOSEN)
    first = options.providers[0]
    if options.strict and first not in available:
        msg = f"this build of onnxruntime has no {first}; it has {', '.join(available)}"
        raise UnsupportedError(msg, cure="install a build that has it, or allow fallback")
    missing = [name for name in options.providers if name not in available]
    if missing:
        _log.warning("this build of onnxruntime has no %s", ", ".join(missing))
    kept = [name for name in options.providers if name in available]
    return tuple(dict.fromkeys((*kept, CPU)))


def _open(
    onnxruntime: Any,  # noqa: ANN401 - the module
    entry: Path,
    options: EngineOptions,
    providers: tuple[str, ...],
    engine_folder: Path | None = None,
) -> Any:  # noqa: ANN401 - onnxruntime has no types
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = _SILENT
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.use_deterministic_compute = True
    # From onnxruntime 1.24 on; older ones ignore the entry and have no way to ask.
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")

    built = {} if engine_folder is None else folder_options(engine_folder)

    def session(names: Sequence[str]) -> Any:  # noqa: ANN401
        asked = [(name, built) if built and name == TENSORRT else name for name in names]
        return onnxruntime.InferenceSession(
            str(entry), settings, providers=asked, enable_fallback=0
        )

    try:
        return session(providers)
    except Exception as error:
        if providers == (CPU,) or type(error).__name__ in _MODELS_FAULT or _too_new(error):
            raise _load_error(entry, error) from error
        if options.strict and options.providers[:1] != (CPU,):
            msg = f"{providers[0]} can't open {entry.name}: {_brief(error)}"
            raise UnsupportedError(msg, cure="fix the installation, or allow fallback") from error
        _log.warning("%s can't open %s, trying the CPU: %s", providers[0], entry.name, error)
    try:
        return session((CPU,))
    except Exception as error:
        raise _load_error(entry, error) from error


def _load_error(entry: Path, error: Exception) -> InvalidModelError:
    reason = _too_new(error)
    if reason is not None:
        msg = f"{entry.name} is too new for this onnxruntime: {reason}"
        return InvalidModelError(msg, cure="export with an older opset, or upgrade onnxruntime")
    msg = f"onnxruntime can't load {entry.name}: {_brief(error)}"
    return InvalidModelError(msg)


def _too_new(error: Exception) -> str | None:
    """What onnxruntime lacks, when that is why it refuses a model."""
    text = str(error)
    if found := _NEW_OPSET.search(text):
        opset, domain, newest = found.groups()
        return f"it uses opset {opset} of {domain}, the newest known here is {newest.rstrip('.')}"
    if found := _NEW_IR.search(text):
        return f"its IR version is {found[1]}, the newest known here is {found[2]}"
    if found := _NEW_OPERATOR.search(text):
        if found[1]:
            return f"it uses the operator {found[1]}, unknown in opset {found[2]}"
        return f"it uses the operator {found[3]}, which is not built in"
    return None


def _brief(error: Exception) -> str:
    """The message without onnxruntime's own prefix and source lines, on one line."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : ", "", str(error))
    text = re.sub(r"/onnxruntime_src/\S+ .*?\) ", "", text, flags=re.DOTALL)
    return " ".join(text.split())[:1000]


def _spec(node: Any) -> TensorSpec:  # noqa: ANN401 - onnxruntime has no types
    datatype = _DATATYPES.get(node.type)
    if datatype is None:
        msg = f"{node.name!r} of the model is {node.type}, which can't be served"
        cure = "export it with plain tensors (with skl2onnx: options={'zipmap': False})"
        raise InvalidModelError(msg, cure=cure)
    shape = tuple(length if isinstance(length, int) else -1 for length in node.shape)
    return TensorSpec(name=node.name, datatype=datatype, shape=shape)
