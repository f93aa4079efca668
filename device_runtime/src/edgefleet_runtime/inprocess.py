"""Models in the caller's own process: no server, no copies, nothing but the check of what is fed.

    from edgefleet_runtime import Runtime

    with Runtime({"detector": "detector.onnx"}) as runtime:
        outputs = runtime.infer("detector", {"x": image})

Inputs reach the engine as they are and outputs are the engine's own arrays. `Runtime.bind` goes one
step further for models that run again and again: outputs are written where the caller wants them.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgefleet.errors import InvalidInputError, InvalidModelError, NotFoundError
from edgefleet.protocol.names import several
from edgefleet_runtime.bound import INLINE_RUN_US, BoundModel
from edgefleet_runtime.closing import Closing
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.standalone.loading import load_bundle, load_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edgefleet_runtime.engines.base import LoadedModel, Throughput
    from edgefleet_runtime.ensemble.declare import Ensemble
    from edgefleet_runtime.serve.table import ServedModel

    Outputs = dict[str, NDArray[Any]]


class Runtime(Closing):
    """Models by name, ready to run; may be used by several threads.

    Args:
        models: name to a model file, which ends in .onnx, .tflite or .xml, or to a bundle's folder.
            Of a bundle the variant that fits this machine is verified and self-tested first.
        ensembles: graphs of those models, and of each other, by the names to run them under.
        providers: execution providers wanted, the best first; empty for the engine's own choice.
        strict: refuse when the first provider wanted is not the one in use.
        threads: for one run; 0 finds out.
        throughput: whether runs at the same time get one thread each, which takes the memory of
            models twice; ``measured``: where there is room and their own traffic shows a gain.
        engine_cache: folder that keeps what engines build of models for the next start.
        provider_options: of the first provider wanted, by its vendor's names.
        memory_max_bytes: of a GPU that one model may take; 0 for all.
        custom_ops: digests (``sha256:…``) of libraries of custom operators that may be loaded from
            a model's own folder.

    Raises:
        NotFoundError: there is no such file, or no variant of a bundle fits this machine.
        InvalidInputError: the name of a file doesn't tell its format, or something isn't given as
            it is above, such as a model without a name.
        InvalidModelError: a model can't be opened or fails its self-test, or an ensemble's steps
            don't fit together.
        IntegrityError: a bundle is damaged.
        UnsupportedError: ``strict``, and another provider is in use.
        MissingExtraError: no engine for the model is installed.
    """

    def __init__(
        self,
        models: Mapping[str, str | os.PathLike[str]],
        *,
        ensembles: Mapping[str, Ensemble] | None = None,
        providers: Sequence[str] = (),
        strict: bool = False,
        threads: int = 0,
        throughput: Throughput = "measured",
        engine_cache: str | os.PathLike[str] | None = None,
        provider_options: Mapping[str, str] | None = None,
        memory_max_bytes: int = 0,
        custom_ops: Sequence[str] = (),
    ) -> None:
        named = _by_name(models, "models", "a path", '{"detector": "detector.onnx"}')
        declared = _by_name(ensembles or {}, "ensembles", "an Ensemble", '{"both": Ensemble(…)}')
        options = EngineOptions(
            providers=several(providers, "providers", '["CPUExecutionProvider"]'),
            strict=strict,
            threads=threads,
            throughput=throughput,
            engine_cache=None if engine_cache is None else Path(engine_cache),
            provider_options=tuple((provider_options or {}).items()),
            memory_max_bytes=memory_max_bytes,
            custom_ops=several(custom_ops, "custom_ops", '["sha256:…"]'),
        )
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._work: tempfile.TemporaryDirectory[str] | None = None
        self._models: dict[str, ServedModel] = {}
        try:
            for name, path in named.items():
                self._models[name] = self._opened(name, _path_of(name, path), options)
            if declared:
                self._models.update(_bound(declared, self._models))
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<runtime of {', '.join(self._models) or 'no models'}>"

    @property
    def models(self) -> tuple[str, ...]:
        """The names that `infer` takes."""
        return tuple(self._models)

    def model(self, name: str) -> LoadedModel:
        """A model, for its interface and for the providers that run it.

        Raises:
            NotFoundError: there is none of that name.
        """
        return self._get(name).model

    def infer(
        self,
        name: str,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Sequence[str] | None = None,
    ) -> Outputs:
        """Run a model once; arguments and errors beside this one as of `LoadedModel.infer`.

        Raises:
            NotFoundError: there is no model of that name, or the runtime is closed.
        """
        served = self._models.get(name) or self._get(name)
        return served.infer(inputs, outputs)[0]

    async def infer_async(
        self,
        name: str,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Sequence[str] | None = None,
    ) -> Outputs:
        """Run a model without holding up the event loop; as `infer`.

        A model that runs as briefly as it takes to hand it to a thread runs on the loop's own.
        """
        served = self._get(name)
        run_us = served.recent_p50_us
        if run_us is not None and run_us < INLINE_RUN_US:
            return served.infer(inputs, outputs)[0]
        loop = asyncio.get_running_loop()
        pool = self._threads()
        return (await loop.run_in_executor(pool, served.infer, inputs, outputs))[0]

    def bind(
        self,
        name: str,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any] | Sequence[str] | None = None,
    ) -> BoundModel:
        """Fix where a model's inputs and outputs lie, for runs without copies and allocations.

        Args:
            name: of the model.
            inputs: one tensor an input, C-contiguous and of its dtype and shape: numpy arrays,
                arrays of other libraries that have ``__dlpack__``, and where the model runs on a
                GPU also `edgefleet_runtime.engines.device_memory.DeviceTensor` and arrays that have
                ``__cuda_array_interface__``. Their content is read in each run.
            outputs: tensors that each run overwrites, likewise and writable; or the names wanted
                (None for all): then the model runs once, and arrays of the shapes that this gave
                are made here.

        Raises:
            NotFoundError: there is no model of that name, or the runtime is closed.
            InvalidInputError: a tensor doesn't fit the model, or can't be bound; says how to cure.
            UnsupportedError: the model's engine can't.
        """
        served = self._get(name)
        _by_name(inputs, "inputs", "a tensor", '{"x": array}')
        served.acquire()
        try:
            return BoundModel(served, served.model.bind(inputs, outputs), self._threads)
        except BaseException:
            served.release()
            raise

    def close(self) -> None:
        """Wait for what runs and free the models; may be called twice."""
        models, self._models = self._models, {}
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()
        for served in models.values():
            served.retire()
        if self._work is not None:
            self._work.cleanup()

    def _get(self, name: str) -> ServedModel:
        served = self._models.get(name)
        if served is None:
            raise NotFoundError(
                f"there is no model {name!r} in this runtime",
                cure=f"it has {', '.join(self._models) or 'none: it is closed'}",
            )
        return served

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="edgefleet")
            return self._pool

    def _opened(self, name: str, path: Path, options: EngineOptions) -> ServedModel:
        if not path.is_dir():
            return load_file(name, path, options)
        if self._work is None:
            self._work = tempfile.TemporaryDirectory(prefix="edgefleet-")
        # Laid out files are links where the disk allows it; the name may hold what a path may not.
        work = Path(self._work.name) / str(len(self._models))
        return load_bundle(name, path, work, options)


def _by_name(given: object, what: str, each: str, example: str) -> Mapping[str, Any]:
    """What is given by name, if it is; a model's path alone is what one easily writes."""
    if not isinstance(given, Mapping):
        raise InvalidInputError(
            f"{what}: {repr(given)[:200]} is no mapping of names",
            cure=f"give {each} by name: {example}",
        )
    return given


def _path_of(name: str, path: object) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise InvalidInputError(
            f"model {name!r}: {repr(path)[:200]} is no path",
            cure="give the path of a model file, or of a bundle's folder",
        )
    return Path(path)


def _bound(
    ensembles: Mapping[str, Ensemble], models: Mapping[str, ServedModel]
) -> dict[str, ServedModel]:
    from edgefleet_runtime.ensemble.binding import bound  # noqa: PLC0415 - most have none

    for name in ensembles:
        if name in models:
            raise InvalidModelError(
                f"a model and an ensemble are both called {name!r}", cure="give each its name"
            )
    return bound({name: (ensemble, "1") for name, ensemble in ensembles.items()}, models)
