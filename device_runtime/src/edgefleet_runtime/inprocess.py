"""Models in the caller's own process: no server, no copies, nothing but the check of what is fed.

    from edgefleet_runtime import Runtime

    with Runtime({"detector": "detector.onnx"}) as runtime:
        outputs = runtime.infer("detector", {"x": image})

Inputs reach the engine as they are and outputs are the engine's own arrays.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgefleet.errors import EdgeFleetError, InvalidModelError, NotFoundError
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.discovery import engine_for
from edgefleet_runtime.serve.table import ServedModel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray

    from edgefleet_runtime.engines.base import LoadedModel
    from edgefleet_runtime.ensemble.declare import Ensemble

    Outputs = dict[str, NDArray[Any]]

INLINE_RUN_US = 200.0  # of a run; handing one to another thread and back costs as much
_FORMATS = {".tflite": "tflite"}  # by a file's ending; all else is taken for ONNX


class Runtime:
    """Models by name, ready to run; may be used by several threads.

    Args:
        models: name to a model file, or to the folder of a bundle. Of a bundle the variant that
            fits this machine is verified and self-tested first.
        ensembles: graphs of those models, and of each other, by the names to run them under.
        providers: execution providers wanted, the best first; empty for the engine's own choice.
        strict: refuse when the first provider wanted is not the one in use.
        threads: for one run; 0 finds out.

    Raises:
        NotFoundError: there is no such file, or no variant of a bundle fits this machine.
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
    ) -> None:
        options = EngineOptions(providers=tuple(providers), strict=strict, threads=threads)
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._work: tempfile.TemporaryDirectory[str] | None = None
        self._models: dict[str, ServedModel] = {}
        try:
            for name, path in models.items():
                self._models[name] = self._opened(name, Path(path), options)
            if ensembles:
                self._models.update(_bound(ensembles, self._models))
        except BaseException:
            self.close()
            raise

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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

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
            if not path.is_file():
                raise NotFoundError(f"model {name!r}: there is no file {str(path)!r}")
            model = engine_for(_FORMATS.get(path.suffix, "onnx")).load(path, options)
            return ServedModel(model, name=name, version="1", bundle="", variant="")
        if self._work is None:
            self._work = tempfile.TemporaryDirectory(prefix="edgefleet-")
        # Laid out files are links where the disk allows it; the name may hold what a path may not.
        return _from_bundle(name, path, Path(self._work.name) / str(len(self._models)), options)


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


def _from_bundle(name: str, folder: Path, work: Path, options: EngineOptions) -> ServedModel:
    """The variant of a bundle that fits this machine, verified, opened and self-tested."""
    from edgefleet.protocol.layout import BundleLayout  # noqa: PLC0415 - a bare file needs none
    from edgefleet.protocol.target import choose_variant, target_of  # noqa: PLC0415
    from edgefleet_runtime.engines.installed import installed_engines  # noqa: PLC0415
    from edgefleet_runtime.ensemble.stepped import with_steps  # noqa: PLC0415
    from edgefleet_runtime.reconciler.selftest import self_test  # noqa: PLC0415
    from edgefleet_runtime.report import host  # noqa: PLC0415

    layout = BundleLayout(folder)
    engines = [engine for engine in installed_engines() if engine.problem is None]
    labels = host.labels(providers={p for engine in engines for p in engine.providers})
    formats = {kind for engine in engines for kind in engine.formats}
    variant = choose_variant(layout.variants, target_of(labels), formats=formats).variant
    details = layout.details(variant.name)
    model = engine_for(variant.format).load(layout.materialize(variant.name, work), options)
    _, wrong = self_test(model, details)
    if wrong is not None:
        model.close()
        raise InvalidModelError(f"model {name!r}, variant {variant.name}: {wrong}")
    try:
        whole = with_steps(model, details)
    except EdgeFleetError as error:
        error.prefixed(f"model {name!r}")
        raise
    return ServedModel(whole, name=name, version="1", bundle=layout.digest, variant=variant.name)
