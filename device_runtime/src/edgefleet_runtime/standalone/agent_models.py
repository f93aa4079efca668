"""Models that clients of Edge Manager's agent load by themselves, from below one folder.

Rules kept here:

- Nothing outside the folder that the operator named is opened, whatever leads there: a path, a
  link, a link within a model's folder. What lies elsewhere is not there, for a client.
- A name that is taken stays with the model that has it; a client unloads only what one loaded.
- A model that can't run here is refused with the reason, and nothing of it stays.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.errors import (
    AlreadyExistsError,
    ConflictError,
    EdgeFleetError,
    LimitExceededError,
    NotFoundError,
)
from edgefleet_runtime.standalone.loading import FORMATS, load_bundle, load_file

if TYPE_CHECKING:
    from edgefleet_runtime.engines.base import EngineOptions
    from edgefleet_runtime.serve.table import ModelTable, ServedModel

MAX_MODELS = 64  # loaded by clients at a time
MAX_FILES = 4096  # in one model's folder
_BUNDLE = "oci-layout"  # what every OCI image layout has
_COMPILED = "export the model to ONNX: what SageMaker Neo compiled runs in AWS's agent alone"


class FolderModels:
    """Loads and unloads what clients ask for; see `edgefleet_runtime.serve.edgemanager.models`.

    Args:
        root: the folder; what lies outside isn't opened.
        table: takes the models; may hold others, which are left alone.
        options: how to open them.
        work: a folder for files of bundles, laid out while they serve.

    Raises:
        NotFoundError: there is no such folder.
    """

    def __init__(self, root: Path, table: ModelTable, options: EngineOptions, work: Path) -> None:
        if not root.is_dir():
            raise NotFoundError(f"there is no folder of models {root}")
        self._root = root.resolve()
        self._table = table
        self._options = options
        self._work = work
        self._loaded: dict[str, tuple[ServedModel, str, Path | None]] = {}

    def load(self, url: str, name: str) -> ServedModel:
        """Serve the model file, the bundle, or the one model of the folder at that path."""
        if any(model.name == name for model in self._table):
            raise AlreadyExistsError(f"model {name!r} is loaded already")
        if len(self._loaded) >= MAX_MODELS:
            raise LimitExceededError(f"{MAX_MODELS} models are loaded", cure="unload one of them")
        place = self._inside(url)
        laid_out: Path | None = None
        try:
            if (place / _BUNDLE).is_file():
                laid_out = self._work / uuid.uuid4().hex
                served = load_bundle(name, place, laid_out, self._options)
            else:
                served = load_file(name, _file_of(place), self._options)
            try:
                self._table.add(served)
            except AlreadyExistsError:
                served.retire()
                raise
        except BaseException as error:
            if laid_out is not None:
                shutil.rmtree(laid_out, ignore_errors=True)
            if isinstance(error, MemoryError):
                raise LimitExceededError(f"there is no memory for model {name!r}") from error
            if isinstance(error, EdgeFleetError) and not isinstance(error, AlreadyExistsError):
                # AWS's word for a model that isn't made for this machine.
                raise ConflictError(error.message, cure=error.cure, retryable=False) from error
            raise
        self._loaded[name] = (served, url, laid_out)
        return served

    def unload(self, name: str) -> None:
        """Serve it no longer; it closes when its last prediction ends."""
        if name not in self._loaded:
            if any(model.name == name for model in self._table):
                raise ConflictError(
                    f"model {name!r} was loaded by the server's owner",
                    cure="leave it, or ask the owner",
                    retryable=False,
                )
            raise NotFoundError(f"model {name[:100]!r} is not loaded")
        served, _, laid_out = self._loaded.pop(name)
        self._table.remove(served)
        served.retire()
        if laid_out is not None:
            shutil.rmtree(laid_out, ignore_errors=True)

    def url_of(self, name: str) -> str:
        """Where its client said that it is."""
        return self._loaded[name][1] if name in self._loaded else ""

    def _inside(self, url: str) -> Path:
        """The place that a client means, with no way out of the folder.

        Raises:
            NotFoundError: nothing is there, or it is elsewhere.
            ConflictError: something in it leads elsewhere.
        """
        missing = NotFoundError(
            f"there is no model at {url[:200]!r}", cure=f"put it below {self._root}"
        )
        if not url:
            raise missing
        try:
            place = (self._root / url).resolve(strict=True)
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: links in a circle
            raise missing from error
        if not place.is_relative_to(self._root):
            raise missing
        for number, entry in enumerate(_below(place)):
            if number >= MAX_FILES:
                raise ConflictError(f"{url[:200]} has more than {MAX_FILES} files", retryable=False)
            try:
                inside = entry.resolve(strict=True).is_relative_to(self._root)
            except (OSError, RuntimeError):
                inside = False
            if not inside:
                raise ConflictError(
                    f"{entry.relative_to(self._root)} leads out of the folder of models",
                    cure="copy the file there",
                    retryable=False,
                )
        return place


def _below(place: Path) -> list[Path]:
    if not place.is_dir():
        return [place]
    found: list[Path] = []
    for root, folders, files in os.walk(place):
        found += (Path(root, name) for name in (*folders, *files))
        if len(found) > MAX_FILES:
            break
    return found


def _file_of(place: Path) -> Path:
    """The model file that a path means: itself, or the only one in the folder."""
    if not place.is_dir():
        return place
    files = sorted(path for path in place.iterdir() if path.suffix.lower() in FORMATS)
    named = [path for path in files if path.stem == "model"]
    if len(files) != 1 and len(named) != 1:
        seen = f"{len(files)} model files" if files else "no model file"
        raise ConflictError(
            f"{place.name} has {seen}, where one of {', '.join(FORMATS)} is needed",
            cure="name the file" if files else _COMPILED,
            retryable=False,
        )
    return files[0] if len(files) == 1 else named[0]
