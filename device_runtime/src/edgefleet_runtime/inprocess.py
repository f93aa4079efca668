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

from edgefleet.errors import NotFoundError
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.standalone.loading import load_bundle, load_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray

    from edgefleet_runtime.engines.base import LoadedModel
    from edgefleet_runtime.serve.table import ServedModel

    Outputs = dict[str, NDArray[Any]]

INLINE_RUN_US = 200.0  # of a run; handing one to another thread and back costs as much


class Runtime:
    """Models by name, ready to run; may be used by several threads.

    Args:
        models: name to a model file, which ends in .onnx or .tflite, or to the folder of a bundle.
            Of a bundle the variant that fits this machine is verified and self-tested first.
        providers: execution providers wanted, the best first; empty for the engine's own choice.
        strict: refuse when the first provider wanted is not the one in use.
        threads: for one run; 0 finds out.

    Raises:
        NotFoundError: there is no such file, or no variant of a bundle fits this machine.
        InvalidInputError: the name of a file doesn't tell its format.
        InvalidModelError: a model can't be opened or fails its self-test.
        IntegrityError: a bundle is damaged.
        UnsupportedError: ``strict``, and another provider is in use.
        MissingExtraError: no engine for the model is installed.
    """

    def __init__(
        self,
        models: Mapping[str, str | os.PathLike[str]],
        *,
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
            return load_file(name, path, options)
        if self._work is None:
            self._work = tempfile.TemporaryDirectory(prefix="edgefleet-")
        # Laid out files are links where the disk allows it; the name may hold what a path may not.
        work = Path(self._work.name) / str(len(self._models))
        return load_bundle(name, path, work, options)
