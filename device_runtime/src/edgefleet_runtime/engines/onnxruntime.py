"""ONNX Runtime as an engine: opens ``.onnx`` files by path, so that external data files are found.

Rules kept here:

- onnxruntime is imported when a model is opened or its providers are asked for, not before.
- Its own fallback to the CPU is off: it prints and carries on, also in the middle of serving. What
  falls back here is logged, reported, and refused when the options say ``strict``.
- ``strict`` means all of it: one node that computes elsewhere is a refusal, with its operator.
- TensorRT's engines are built into the cache as a whole, and then loaded from it.
- Builds of onnxruntime that overwrote each other are refused before anything is opened.
- The remote Azure provider is never chosen.
- Libraries of custom operators are loaded only if an operator named their digests.
- Threads of a run that wait for work spin for `SPIN_US` and sleep then: onnxruntime lets them spin
  for about a millisecond, which takes the processor from whoever serves. Where runs meet and
  gain by it they have one thread each, and none waits.
- Inputs are checked before a run, so that a caller's mistake never looks like an engine's failure.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, cast

import msgspec
import numpy as np

from edgefleet.errors import (
    EdgeFleetError,
    InferenceError,
    InvalidModelError,
    MissingExtraError,
    UnsupportedError,
)
from edgefleet.protocol.bundle import Datatype, Interface, TensorSpec
from edgefleet.protocol.tensors import dtype_of
from edgefleet_runtime.engines import binding, threads
from edgefleet_runtime.engines.base import Engine, EngineOptions, LoadedModel
from edgefleet_runtime.engines.building import CanBuild
from edgefleet_runtime.engines.builds import check_one_build
from edgefleet_runtime.engines.crowd import Crowd
from edgefleet_runtime.engines.custom_ops import allowed_libraries
from edgefleet_runtime.engines.feed import FeedCheck
from edgefleet_runtime.engines.footprint import has_room
from edgefleet_runtime.engines.onnxruntime_errors import (
    brief,
    is_models_fault,
    load_error,
    run_error,
)
from edgefleet_runtime.engines.placement import nodes_by_provider, placed, slower_than
from edgefleet_runtime.engines.provider_options import gpu_of, options_for
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
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgefleet_runtime.engines.base import Bound, Throughput
    from edgefleet_runtime.engines.building import Tell
    from edgefleet_runtime.engines.crowd import Run
    from edgefleet_runtime.engines.parts import Parts

_log = logging.getLogger(__name__)

CPU = "CPUExecutionProvider"
SPIN_US = 500  # as quick as for as long as they like: with 60, runs of 2 ms took 4 % longer
_NEVER_CHOSEN = ("AzureExecutionProvider",)  # sends inputs to a remote endpoint
_SILENT = 4  # ORT_LOGGING_LEVEL_FATAL: whatever else it would print arrives as an exception
DATATYPES: dict[str, Datatype] = {
    "tensor(bool)": "BOOL", "tensor(string)": "BYTES",
    "tensor(uint8)": "UINT8", "tensor(uint16)": "UINT16", "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64", "tensor(int8)": "INT8", "tensor(int16)": "INT16",
    "tensor(int32)": "INT32", "tensor(int64)": "INT64", "tensor(float16)": "FP16",
    "tensor(float)": "FP32", "tensor(double)": "FP64",
}  # fmt: skip


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
        shrinking = _shrinking(onnxruntime)
        model = OnnxModel(session, engine, shrinking, options.shrink_above_bytes)
        if unsure and not threads.is_tiny(model):
            session = _open(onnxruntime, entry, options, providers)
            model = OnnxModel(session, engine, shrinking, options.shrink_above_bytes)
            unsure = False
        if not unsure and options.threads != 1 and providers == (CPU,):
            model.meet(options.throughput, partial(self._second, entry, single))
        return model

    def _second(self, entry: Path, single: EngineOptions) -> Any:  # noqa: ANN401 - onnxruntime has no types
        """A session for runs that meet others; None where this machine has no room for it."""
        import onnxruntime  # noqa: PLC0415 - heavy and optional

        if single.throughput == "measured" and not has_room(entry):
            _log.info("there is no room to open %s a second time", entry.name)
            return None
        return _open(onnxruntime, entry, single, (CPU,))

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
        return parts_of(entry, found, options_for(TENSORRT, options))

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

    _memory = binding.GPU  # ONNX Runtime's name for the memory of `device`

    def __init__(
        self,
        session: Any,  # noqa: ANN401 - onnxruntime has no types
        engine: str,
        shrinking: Mapping[str, Any] | None = None,
        shrink_above_bytes: int = 0,
    ) -> None:
        """Take a session.

        Args:
            session: of ONNX Runtime.
            engine: name and version.
            shrinking: run options that give memory back after a run, by kind of device.
            shrink_above_bytes: of the inputs of a run that gets them; 0 for none.
        """
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
        self.device = gpu_of(self.providers, _settings_of(session))
        kind = "cpu" if self.device is None else "gpu"
        # Inputs of fixed shape are never larger than the ones before.
        grows = any(-1 in spec.shape or not spec.shape for spec in self.interface.inputs)
        self._shrink_above = shrink_above_bytes if grows and shrinking else 0
        self._shrinking = (shrinking or {}).get(kind)
        self._run = _run_of(session)
        self._crowd: Crowd | None = None
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
        options = None
        if self._shrink_above:
            size = 0
            for array in feed.values():  # sum() and a generator take 0.3 µs to begin
                size += array.nbytes
            if size > self._shrink_above:
                options = self._shrinking
        try:
            values = self._run(names, feed, options)
        except Exception as error:  # its exceptions have no common base
            raise run_error(error) from error
        if len(names) == 1:
            return {names[0]: values[0]}
        return dict(zip(names, values, strict=True))

    def meet(self, throughput: Throughput, open_second: Callable[[], Any]) -> None:
        """Let runs that go on at the same time take a session of one thread, as `Crowd` does.

        Args:
            throughput: as of `EngineOptions`.
            open_second: opens it; None where there is no room.
        """
        if throughput == "never":
            return

        def second() -> Run | None:
            session = open_second()
            return None if session is None else _run_of(session)

        self._crowd = Crowd(self._run, second, measured=throughput == "measured")
        self._run = self._crowd.run

    def bind(
        self,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any] | Sequence[str] | None = None,
    ) -> Bound:
        session = self._open_session()
        fixed = binding.checked_inputs(self._check, inputs, self.device)
        names = self._check.wanted(outputs) if outputs else self._outputs
        if not isinstance(outputs, Mapping):
            # One run tells shapes that the model leaves open.
            seen = self._on_device(session, fixed, names, ())
            outputs = {name: np.empty_like(array) for name, array in seen.items()}
        shapes = {s.name: (dtype_of(s.datatype), s.shape) for s in self.interface.outputs}
        places = binding.checked_outputs(outputs, shapes, fixed, self.device)
        return binding.OnnxBinding(session, fixed, places, memory=self._memory, failed=run_error)

    def infer_on_device(
        self,
        inputs: Mapping[str, Any],
        outputs: Sequence[str] | None,
        stay: Collection[str],
    ) -> dict[str, Any]:
        session = self._open_session()
        self._check.feed(inputs)
        names = self._check.wanted(outputs) if outputs else self._outputs
        return self._on_device(session, inputs, names, stay)

    def close(self) -> None:
        self._session, self._run = None, _closed
        if self._crowd is not None:
            self._crowd.close()

    def _open_session(self) -> Any:  # noqa: ANN401 - onnxruntime has no types
        return _closed() if self._session is None else self._session

    def _on_device(
        self,
        session: Any,  # noqa: ANN401 - onnxruntime has no types
        inputs: Mapping[str, Any],
        names: Sequence[str],
        stay: Collection[str],
    ) -> dict[str, Any]:
        try:
            return binding.run_on_device(
                session,
                inputs,
                names,
                stay,
                dtypes={s.name: dtype_of(s.datatype) for s in self.interface.outputs},
                memory=self._memory,
                device=self.device or 0,
            )
        except Exception as error:  # its exceptions have no common base
            raise run_error(error) from error


def _run_of(session: Any) -> Run:  # noqa: ANN401 - onnxruntime has no types
    """The call that runs a session.

    Its own `run` looks for missing inputs and values of other libraries first, which `FeedCheck`
    has done: 2 µs, a fifth of a tiny model's run.
    """
    found: Run = getattr(getattr(session, "_sess", session), "run", _closed)
    return found


def _closed(*_: object) -> NoReturn:
    raise InferenceError("the model is closed")


def _shrinking(onnxruntime: Any) -> dict[str, Any]:  # noqa: ANN401 - the module
    """Run options by kind of device, which give back what the arena doesn't use after a run.

    onnxruntime_run_options_config_keys.h: ``memory.enable_memory_arena_shrinkage``.
    """
    made = {}
    for kind, arenas in (("cpu", "cpu:0"), ("gpu", "cpu:0;gpu:0")):
        made[kind] = onnxruntime.RunOptions()
        made[kind].add_run_config_entry("memory.enable_memory_arena_shrinkage", arenas)
    return made


def _settings_of(session: Any) -> Mapping[str, Mapping[str, str]]:  # noqa: ANN401
    ask = getattr(session, "get_provider_options", None)
    return ask() if ask is not None else {}


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
    settings = _settings(onnxruntime, options)
    libraries = allowed_libraries(entry, options.custom_ops)
    for library in libraries:
        _log.warning("%s loads the custom operators of %s", entry.name, library.name)
        settings.register_custom_ops_library(str(library))
    built = {} if engine_folder is None else folder_options(engine_folder)

    def session(names: Sequence[str]) -> Any:  # noqa: ANN401
        asked: list[Any] = []
        for name in names:
            chosen = options_for(name, options, built if name == TENSORRT else None)
            asked.append((name, chosen) if chosen else name)
        if tuple(names) == (CPU,) and options.engine_cache is not None and not libraries:
            return _optimized(onnxruntime, entry, options, asked)
        return onnxruntime.InferenceSession(
            str(entry), settings, providers=asked, enable_fallback=0
        )

    try:
        return session(providers)
    except Exception as error:
        if providers == (CPU,) or is_models_fault(error):
            raise load_error(entry, error, options) from error
        if options.strict and options.providers[:1] != (CPU,):
            msg = f"{providers[0]} can't open {entry.name}: {brief(error)}"
            raise UnsupportedError(msg, cure="fix the installation, or allow fallback") from error
        _log.warning("%s can't open %s, trying the CPU: %s", providers[0], entry.name, error)
    try:
        return session((CPU,))
    except Exception as error:
        raise load_error(entry, error, options) from error


def _settings(onnxruntime: Any, options: EngineOptions) -> Any:  # noqa: ANN401 - the module
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = _SILENT
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.use_deterministic_compute = True
    # Entries that an older onnxruntime doesn't know are ignored.
    settings.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_US))
    # From onnxruntime 1.24 on; older ones have no way to ask.
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return settings


def _optimized(
    onnxruntime: Any,  # noqa: ANN401 - the module
    entry: Path,
    options: EngineOptions,
    providers: Sequence[Any],
) -> Any:  # noqa: ANN401 - onnxruntime has no types
    """A session on the CPU whose optimized graph is kept."""
    from edgefleet_runtime.engines.optimized import (  # noqa: PLC0415 - only with a cache
        WEIGHTS,
        OptimizedModels,
    )

    def load(graph: Path) -> Any:  # noqa: ANN401
        settings = _settings(onnxruntime, options)
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return onnxruntime.InferenceSession(
            str(graph), settings, providers=providers, enable_fallback=0
        )

    def make(graph: Path | None) -> Any:  # noqa: ANN401
        settings = _settings(onnxruntime, options)
        if graph is not None:
            settings.optimized_model_filepath = str(graph)
            # onnxruntime_session_options_config_keys.h
            option = "session.optimized_model_external_initializers_"
            settings.add_session_config_entry(f"{option}file_name", WEIGHTS)
            settings.add_session_config_entry(f"{option}min_size_in_bytes", "1024")
        return onnxruntime.InferenceSession(
            str(entry), settings, providers=providers, enable_fallback=0
        )

    kept = OptimizedModels(cast("Path", options.engine_cache))
    return kept.open(entry, onnxruntime.__version__, load, make, _same_tensors)


def _same_tensors(one: Any, other: Any) -> bool:  # noqa: ANN401 - sessions
    def told(session: Any) -> list[Any]:  # noqa: ANN401
        nodes = (*session.get_inputs(), None, *session.get_outputs())
        return [node and (node.name, node.type, node.shape) for node in nodes]

    return told(one) == told(other)


def _spec(node: Any) -> TensorSpec:  # noqa: ANN401 - onnxruntime has no types
    datatype = DATATYPES.get(node.type)
    if datatype is None:
        msg = f"{node.name!r} of the model is {node.type}, which can't be served"
        cure = "export it with plain tensors (with skl2onnx: options={'zipmap': False})"
        raise InvalidModelError(msg, cure=cure)
    shape = tuple(length if isinstance(length, int) else -1 for length in node.shape)
    return TensorSpec(name=node.name, datatype=datatype, shape=shape)
