"""Building engines from models: what an engine offers that can.

A build takes minutes. `edgefleet_runtime.engines.build` has it done beside what serves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from edgefleet_runtime.engines.base import EngineOptions
    from edgefleet_runtime.engines.parts import Parts

    Tell = Callable[[float], object]
    """Called with the share that is done, 0 to 1, by a builder that knows it."""


class CanBuild(ABC):
    """An engine that compiles models for this very machine before they run at full speed."""

    @classmethod
    @abstractmethod
    def machine(cls) -> Mapping[str, str] | None:
        """What builds depend on beside the model, by name; None when a part of it can't be told."""

    @abstractmethod
    def parts(self, entry: Path, options: EngineOptions) -> Parts | None:
        """What an engine built from this model depends on.

        None when nothing is to be built with these options, or it could not be kept safely.
        """

    @abstractmethod
    def interim(self, options: EngineOptions) -> EngineOptions:
        """The options of the next best provider, that serves while an engine is built."""

    @abstractmethod
    def build_into(self, folder: Path, entry: Path, options: EngineOptions, tell: Tell) -> None:
        """Build an engine into a folder; files only, no folders in it.

        Raises:
            EdgeFleetError: it can't be built.
        """

    @final
    def built(self, entry: Path, options: EngineOptions) -> Path | None:
        """The folder with the engine for this model; None when there is none yet."""
        parts = self.parts(entry, options)
        if parts is None or options.engine_cache is None:
            return None
        from edgefleet_runtime.engines.cache import EngineCache  # noqa: PLC0415 - few keep any

        return EngineCache(options.engine_cache).find(parts.key)

    @final
    def build(
        self, entry: Path, options: EngineOptions, tell: Tell = lambda _: None
    ) -> Path | None:
        """Build an engine into the cache, unless it is there; returns its folder.

        Raises:
            EdgeFleetError: it can't be built.
        """
        found = self.built(entry, options)
        parts = self.parts(entry, options)
        if found is not None or parts is None or options.engine_cache is None:
            return found
        from edgefleet_runtime.engines.cache import EngineCache  # noqa: PLC0415 - few keep any

        with EngineCache(options.engine_cache).building(parts) as folder:
            self.build_into(folder, entry, options, tell)
        return options.engine_cache / parts.key
