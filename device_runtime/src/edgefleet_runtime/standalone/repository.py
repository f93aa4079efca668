"""A Triton model repository: ``NAME/VERSION/model.onnx`` with an optional ``NAME/config.pbtxt``.

https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_repository.md

Rules kept here:

- Versions are whole numbers above 0 without leading zeros, as in Triton; other folders are passed
  over. One version is served: the latest that the configuration allows.
- Nothing outside the repository is opened: a link that leads out of it is refused, wherever it is.
- A model is in the table whole or not at all; a load that fails leaves what served before.
- An ensemble loads the members that don't serve yet. A member that is loaded anew takes the
  ensembles that need it along: they are bound to it and swapped together. One that is unloaded
  takes them out of the table with it, as in Triton.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgefleet.errors import (
    EdgeFleetError,
    InvalidInputError,
    InvalidModelError,
    LimitExceededError,
    NotFoundError,
)
from edgefleet.protocol.files import read_small
from edgefleet_runtime.engines.devices import providers_of
from edgefleet_runtime.ensemble.binding import bind, members_of, needing, replaced
from edgefleet_runtime.standalone.loading import load_file
from edgefleet_runtime.standalone.model_config import (
    MAX_BYTES,
    RepositoryModelConfig,
    read_model_config,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgefleet.protocol.bundle import TensorSpec
    from edgefleet_runtime.engines.base import EngineOptions
    from edgefleet_runtime.serve.table import ModelTable, ServedModel

MAX_MODELS = 1024
MAX_FILES = 4096  # in one version's folder
CONFIG_FILE = "config.pbtxt"
_VERSION = re.compile(r"[1-9][0-9]{0,17}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}")
_DEFAULT_FILES = ("model.onnx", "model.tflite", "model.xml")


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A model of the repository that can be opened."""

    name: str
    version: str
    path: Path
    """Its file; of an ensemble, which has none, its version's folder."""
    config: RepositoryModelConfig


class ModelRepository:
    """A folder of models, and the table that they are loaded into.

    Args:
        root: the repository.
        table: takes the models; may hold others, which are left alone.
        options: how to open them. Without providers, a model's own ``instance_group`` decides.

    Raises:
        NotFoundError: there is no such folder.
    """

    def __init__(self, root: Path, table: ModelTable, options: EngineOptions) -> None:
        if not root.is_dir():
            raise NotFoundError(f"there is no model repository {root}")
        self.root = root.resolve()
        self._table = table
        self._options = options
        self._implied: set[str] = set()  # loaded for ensembles alone

    def names(self) -> tuple[str, ...]:
        """Names of the models in it, sorted, loadable or not.

        Raises:
            LimitExceededError: there are more than `MAX_MODELS`.
        """
        found = sorted(
            entry.name
            for entry in os.scandir(self.root)
            if entry.is_dir() and not entry.name.startswith(".")
        )
        if len(found) > MAX_MODELS:
            raise LimitExceededError(f"{self.root} has more than {MAX_MODELS} models")
        return tuple(found)

    def __contains__(self, name: str) -> bool:
        """Whether it has a model of that name, loadable or not."""
        return _NAME.fullmatch(name) is not None and (self.root / name).is_dir()

    def beside(self, root: Path) -> ModelRepository:
        """Another folder as a repository, for the same table and opened the same way."""
        return ModelRepository(root, self._table, self._options)

    def find(self, name: str, *, config: RepositoryModelConfig | None = None) -> Found:
        """The version of a model that should be served.

        Args:
            name: its name.
            config: stands for the configuration in its folder.

        Raises:
            NotFoundError: no such model, or none of its versions may be served.
            InvalidModelError: its configuration is malformed, or something leads out of here.
            UnsupportedError: it asks for what isn't served here.
        """
        check_model_name(name)
        folder = self.root / name
        if not folder.is_dir():
            raise NotFoundError(f"the repository has no model {name!r}")
        self._inside(folder, name)
        if config is None:
            config = self._config(folder, name)
        versions = sorted(_versions(folder), reverse=True)
        allowed = [v for v in versions if not config.versions or v in config.versions]
        for version in allowed:
            if config.ensemble is not None:
                self._inside(place := folder / str(version), name)
                return Found(name=name, version=str(version), path=place, config=config)
            if (path := self._model_file(folder / str(version), name, config)) is not None:
                return Found(name=name, version=str(version), path=path, config=config)
        seen = ", ".join(map(str, versions)) or "none"
        if config.versions:
            seen += f"; its version_policy allows: {', '.join(map(str, config.versions))}"
        place = folder / str((*allowed, *config.versions, 1)[0])
        raise NotFoundError(
            f"model {name!r} has no version that can be served; its versions: {seen}",
            cure=f"make the folder {place}, which stays empty"
            if config.ensemble is not None
            else f"put the model at {place / (config.filename or _DEFAULT_FILES[0])}",
        )

    def load(self, name: str, *, config: RepositoryModelConfig | None = None) -> ServedModel:
        """Open a model and put it in the table, in place of what it served before.

        Members of an ensemble that don't serve yet are put there with it.

        Args:
            name: its name.
            config: stands for the configuration in its folder.

        Raises:
            EdgeFleetError: as `find` and `Engine.load`, and as `ensemble.binding.bound`.
        """
        serving = self._serving()
        fresh: dict[str, ServedModel] = {}
        try:
            self._open(name, serving, fresh, (), config)
            after = replaced(serving, fresh)
        except EdgeFleetError:
            # The last ones first: an ensemble holds leases on its members.
            for served in reversed(fresh.values()):
                served.retire()
            raise
        self._implied -= {name}
        self._implied |= fresh.keys() - {name}
        self._swap(after)
        return after[name]

    def ensure(self, name: str) -> None:
        """`load` a model, unless it serves already as a member of an ensemble."""
        if name in self._serving():
            self._implied.discard(name)
        else:
            self.load(name)

    def _open(
        self,
        name: str,
        serving: Mapping[str, ServedModel],
        fresh: dict[str, ServedModel],
        above: tuple[str, ...],
        config: RepositoryModelConfig | None = None,
    ) -> None:
        """Open a model into ``fresh``, after the members that it lacks.

        Args:
            name: of the model.
            serving: what the table has.
            fresh: what was opened already.
            above: the ensembles that it is opened for.
            config: stands for the configuration in its folder.
        """
        if name in above:
            raise InvalidModelError(
                f"ensembles need each other in a circle: {' -> '.join((*above, name))}"
            )
        found = self.find(name, config=config)
        if (ensemble := found.config.ensemble) is None:
            fresh[name] = self._opened(found)
            return
        for member in ensemble.models:
            if member not in above and (member in serving or member in fresh):
                continue
            try:
                self._open(member, serving, fresh, (*above, name))
            except EdgeFleetError as error:
                error.prefixed(f"ensemble {name!r}")
                raise
        models = {**serving, **fresh}
        models.pop(name, None)
        fresh[name] = bind(name, ensemble, models, version=found.version)

    def _opened(self, found: Found) -> ServedModel:
        options = self._options
        if not options.providers and found.config.device:
            options = msgspec.structs.replace(options, providers=providers_of(found.config.device))
        served = load_file(found.name, found.path, options, version=found.version)
        try:
            _agree(served, found.config)
        except EdgeFleetError:
            served.retire()
            raise
        return served

    def unload(self, name: str, *, dependents: bool = False) -> frozenset[str]:
        """Take a model out of the table; it closes when its last request ends.

        Ensembles that need it leave with it.

        Args:
            name: of the model.
            dependents: Triton's ``unload_dependents``: also the members that were loaded for it,
                and not by their own names, if no other ensemble needs them.

        Returns:
            The names of all that left.

        Raises:
            NotFoundError: it is not being served.
        """
        serving = self._serving()
        if name not in serving:
            raise NotFoundError(f"model {name!r} is not loaded")
        leaving = {name} | needing(serving, {name})
        if dependents:
            leaving |= self._orphans(serving, leaving)
        self._implied -= leaving
        self._swap({known: served for known, served in serving.items() if known not in leaving})
        return frozenset(leaving)

    def _orphans(self, serving: Mapping[str, ServedModel], leaving: set[str]) -> set[str]:
        """Members that were loaded for what leaves, and that nothing else needs."""
        members = members_of(serving, leaving) & self._implied
        return {name for name in members if needing(serving, {name}) <= leaving | members}

    def _serving(self) -> dict[str, ServedModel]:
        return {model.name: model for model in self._table}

    def _swap(self, models: dict[str, ServedModel]) -> None:
        for left in self._table.swap(models):
            left.retire()

    def _config(self, folder: Path, name: str) -> RepositoryModelConfig:
        path = folder / CONFIG_FILE
        if not os.path.lexists(path):
            return RepositoryModelConfig()
        self._inside(path, name)
        try:
            data = read_small(path.resolve(), MAX_BYTES)
        except EdgeFleetError as error:
            error.prefixed(f"model {name!r}")
            raise
        return read_model_config(data, name=name)

    def _model_file(self, folder: Path, name: str, config: RepositoryModelConfig) -> Path | None:
        candidates = (config.filename,) if config.filename else _DEFAULT_FILES
        for candidate in candidates:
            path = folder / candidate
            if not os.path.lexists(path):
                continue
            for number, entry in enumerate(_below(folder)):
                if number >= MAX_FILES:
                    raise LimitExceededError(f"{folder} has more than {MAX_FILES} files")
                self._inside(entry, name)
            return path
        return None

    def _inside(self, path: Path, name: str) -> None:
        try:
            inside = path.resolve(strict=True).is_relative_to(self.root)
        except (OSError, RuntimeError):  # RuntimeError: links in a circle, before Python 3.13
            inside = False
        if not inside:
            raise InvalidModelError(
                f"model {name!r}: {path.relative_to(self.root)} leads out of the repository, or "
                "nowhere",
                cure="copy the file into the repository",
            )


def check_model_name(name: str) -> None:
    """Refuse what can't be the name of a model's folder.

    Raises:
        InvalidInputError: it is no such name.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInputError(
            f"not a model's name: {name[:100]!r}",
            cure="use up to 128 letters, digits, _, - and .",
        )


def _versions(folder: Path) -> Iterator[int]:
    for entry in os.scandir(folder):
        if _VERSION.fullmatch(entry.name) and entry.is_dir():
            yield int(entry.name)


def _below(folder: Path) -> Iterator[Path]:
    """The folder and all that lies in it; linked folders are named, not entered."""
    yield folder
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield Path(root, name)


def _agree(served: ServedModel, config: RepositoryModelConfig) -> None:
    """Refuse a configuration that describes another model: its clients would be misled."""
    interface = served.model.interface
    for kind, described, specs in (
        ("input", config.inputs, interface.inputs),
        ("output", config.outputs, interface.outputs),
    ):
        known: dict[str, TensorSpec] = {spec.name: spec for spec in specs}
        for name, datatype in described:
            spec = known.get(name)
            if spec is None or spec.datatype != datatype:
                seen = f"has it as {spec.datatype}" if spec else "has none of that name"
                raise InvalidModelError(
                    f"model {served.name!r}: its config.pbtxt describes {kind} {name[:100]!r} as "
                    f"{datatype}, the model {seen}",
                    cure="correct or remove the config.pbtxt",
                )
