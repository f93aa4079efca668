"""Loads and unloads the models of a repository on request, while the others serve.

The semantics are Triton's explicit model control:
https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_management.md

Rules kept here:

- A load that fails changes nothing: what served goes on, and the index tells why.
- A request brings its own configuration or files only where the owner allowed overrides. Files
  stand for the whole folder of the model; the repository is never written to.
- Files from requests lie in a private folder, under names that can't lead out of it, bounded in
  number and size, until their model is loaded anew, unloaded, or the server stops.
- What wasn't loaded from the repository is left alone.
"""

from __future__ import annotations

import logging
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from edgefleet.errors import (
    EdgeFleetError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    UnsupportedError,
)
from edgefleet_runtime.serve.extensions.repository import LoadRequest, ModelState
from edgefleet_runtime.standalone.model_config import RepositoryModelConfig, read_model_config_json
from edgefleet_runtime.standalone.repository import check_model_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgefleet_runtime.serve.table import ModelTable
    from edgefleet_runtime.standalone.repository import ModelRepository
    from edgefleet_runtime.standalone.scratch import Scratch

_log = logging.getLogger(__name__)

MAX_FILES = 256  # of one request
MAX_BYTES = 512 << 20  # of all files from requests that lie here
_REASON_CHARACTERS = 1000


class RepositoryControl:
    """A `edgefleet_runtime.serve.extensions.repository.ModelControl` over a model repository.

    Args:
        repository: what is loaded from it is in the table already.
        table: that it loads into; what it holds beside those models stays.
        scratch: where files from requests lie; None to take neither files nor configurations.
        fixed: names of the models that are not from the repository.
    """

    def __init__(
        self,
        repository: ModelRepository,
        table: ModelTable,
        *,
        scratch: Scratch | None = None,
        fixed: frozenset[str] = frozenset(),
    ) -> None:
        self._repository = repository
        self._table = table
        self._scratch = scratch
        self._fixed = fixed
        self._reasons: dict[str, str] = {}  # by models of the repository
        self._overlays: dict[str, tuple[Path, int]] = {}  # folder and bytes, by model

    def index(self) -> Sequence[ModelState]:
        """Every model of the repository or in service, sorted by name.

        One in service whose last load failed is READY, in the version that serves, with the reason
        of that failure.
        """
        versions = {model.name: model.version for model in self._table}
        known = self._repository.names()
        self._reasons = {name: why for name, why in self._reasons.items() if name in known}
        return [
            ModelState(
                name=name,
                version=versions.get(name, ""),
                state="READY" if name in versions else "UNAVAILABLE",
                reason=self._reasons.get(name, "" if name in versions else "not loaded"),
            )
            for name in sorted({*known, *versions})
        ]

    def load(self, request: LoadRequest) -> None:
        """Serve the newest version of a model, also in place of itself.

        Raises:
            UnsupportedError: overrides are not allowed here, or the model isn't the repository's.
            LimitExceededError: the files are too many or too large.
            EdgeFleetError: as `Scratch.folder` and `ModelRepository.load`.
        """
        name = request.name
        self._check(name)
        if self._scratch is None and (request.config is not None or request.files):
            raise UnsupportedError(
                "a load request's own config and files are refused here",
                cure="ask the owner, who may start the server with --allow-overrides",
            )
        try:
            self._load(request, self._scratch)
        except EdgeFleetError as error:
            self._note(name, error.message)
            raise
        self._reasons.pop(name, None)
        _log.info("loaded %s:%s on request", name, self._table.get(name).version)

    def unload(self, name: str, *, dependents: bool) -> None:
        """Serve a model no longer, nor the ensembles that need it.

        One that isn't loaded, or isn't known, is left so, as in Triton.

        Args:
            name: its name.
            dependents: as of `ModelRepository.unload`.

        Raises:
            InvalidInputError: that can't be a model's name.
            UnsupportedError: the model isn't the repository's.
        """
        self._check(name)
        left = frozenset({name})
        with suppress(NotFoundError):
            left = self._repository.unload(name, dependents=dependents)
            _log.info("unloaded %s on request", ", ".join(sorted(left)))
        for gone in left:
            self._drop(gone)
            self._note(gone, "unloaded" if gone == name else f"unloaded with {name}")

    def _check(self, name: str) -> None:
        check_model_name(name)
        if name in self._fixed:
            raise UnsupportedError(
                f"model {name!r} is not from the model repository",
                cure="start the server with or without it",
            )

    def _load(self, request: LoadRequest, scratch: Scratch | None) -> None:
        name = request.name
        config = None
        if request.config is not None:
            config = read_model_config_json(request.config, name=name)
        if request.files and scratch is not None:
            self._load_files(scratch, name, request.files, config)
        else:
            self._repository.load(name, config=config)
            self._drop(name)

    def _load_files(
        self,
        scratch: Scratch,
        name: str,
        files: Mapping[str, bytes],
        config: RepositoryModelConfig | None,
    ) -> None:
        size = self._fitting(name, files)
        folder = scratch.folder({f"{name}/{path}": data for path, data in files.items()})
        try:
            self._repository.beside(folder).load(name, config=config)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, NotFoundError):  # its cure names a folder that is nobody's
                raise InvalidInputError(
                    f"the files given for model {name!r} hold no version that can be served",
                    cure="name the model's file, such as file:1/model.onnx",
                ) from error
            raise
        self._drop(name)
        self._overlays[name] = folder, size

    def _fitting(self, name: str, files: Mapping[str, bytes]) -> int:
        """How many bytes they have, if that is not too much."""
        if len(files) > MAX_FILES:
            raise LimitExceededError(f"{len(files)} files are given, {MAX_FILES} are allowed")
        size = sum(map(len, files.values()))
        others = sum(held for other, (_, held) in self._overlays.items() if other != name)
        if others + size > MAX_BYTES:
            raise LimitExceededError(
                f"with these {size} bytes the files from requests would have {others + size}, "
                f"{MAX_BYTES} are allowed",
                cure="unload models that came with files, or put the model into the repository",
            )
        return size

    def _drop(self, name: str) -> None:
        """Remove the files that a model came with, if it came with any."""
        if name in self._overlays:
            shutil.rmtree(self._overlays.pop(name)[0], ignore_errors=True)

    def _note(self, name: str, reason: str) -> None:
        if name in self._repository:  # else callers could make it grow without end
            self._reasons[name] = reason[:_REASON_CHARACTERS]
