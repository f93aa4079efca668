"""A release in memory, and the steps that bring its models from the store to readiness."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from msgspec.structs import replace

from edgefleet.errors import EdgeFleetError, InvalidModelError
from edgefleet.protocol.bundle import blobs_of, entry_of, files_of
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.building import CanBuild
from edgefleet_runtime.engines.footprint import estimate
from edgefleet_runtime.ensemble.stepped import proper, with_steps
from edgefleet_runtime.faults import point
from edgefleet_runtime.reconciler.selftest import self_test, warm_up
from edgefleet_runtime.reconciler.shadow import Shadow
from edgefleet_runtime.report import host
from edgefleet_runtime.serve.table import ServedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from edgefleet.protocol.report import SelfTest
    from edgefleet_runtime.engines.base import Engine
    from edgefleet_runtime.engines.parts import Parts
    from edgefleet_runtime.reconciler.acquire import Acquired, Part
    from edgefleet_runtime.reconciler.machine import Key
    from edgefleet_runtime.reconciler.shadow import OnCompared
    from edgefleet_runtime.store.blobs import BlobStore

    EngineFor = Callable[[str], Engine]
    """Gives the engine that opens a model format."""

_log = logging.getLogger(__name__)


class Unit:
    """One model of a release: what documents say, and what became of it in memory."""

    def __init__(self, part: Part, options: EngineOptions) -> None:
        self.part = part
        self.options = options
        self.folder: Path | None = None
        self.served: ServedModel | None = None
        self.outcome: SelfTest | None = None
        self.reason: str | None = None
        self.shadow: Shadow | None = None
        self.shared = False
        """Whether its loaded model served in another release before."""
        self.grew_bytes: int | None = None
        """What the process grew by when it was loaded; other work may have its part in it."""
        self.built_for: Parts | None = None
        """Of the engine that is built for it: the one in use, or with ``build_due`` to come."""
        self.build_due = False
        """Whether the next best provider serves it until its engine is built."""

    @property
    def entry(self) -> Path | None:
        """The file that the engine opens, once the model was verified."""
        part = self.part
        return self.folder and self.folder / entry_of(part.manifest, part.details)

    @property
    def estimated_bytes(self) -> int:
        """What it takes in memory, by estimate."""
        return estimate(sum(file.size for file in files_of(self.part.manifest).values()))

    def share(self, other: Unit) -> None:
        """Serve with the other's loaded model."""
        self.folder, self.served, self.outcome = other.folder, other.served, other.outcome
        self.grew_bytes, self.built_for = other.grew_bytes, other.built_for
        self.build_due, self.shared = other.build_due, True

    def same_as(self, other: Unit) -> bool:
        """Whether the other's loaded model may serve as this one's."""
        return (self.part.model, self.part.variant, self.options) == (
            other.part.model,
            other.part.variant,
            other.options,
        )


class Slot:
    """A release in memory.

    Args:
        acquired: its documents.
        options: how engines open its models, but for what its settings say.
    """

    def __init__(self, acquired: Acquired, options: EngineOptions) -> None:
        self.acquired = acquired
        options = replace(options, strict=acquired.release.settings.strict)
        self.units: dict[Key, Unit] = {part.key: Unit(part, options) for part in acquired.parts}

    @property
    def digest(self) -> str:
        """Digest of the release."""
        return self.acquired.digest

    def served(self) -> dict[str, ServedModel]:
        """Its loaded models by the name that they answer to; shadows answer to none."""
        return {
            name: unit.served
            for (name, role), unit in self.units.items()
            if role == "active" and unit.served is not None
        }

    def begin_shadows(self, on_compared: OnCompared = lambda *_: None) -> None:
        """Let its shadow models see what the active ones of their names are asked from now on.

        Args:
            on_compared: as of `Shadow`.
        """
        settings = self.acquired.release.settings
        for (name, role), unit in self.units.items():
            active = self.units.get((name, "active"))
            if role == "shadow" and unit.served and active and active.served:
                unit.shadow = Shadow(
                    unit.served,
                    active.served,
                    share=settings.shadow_share,
                    max_bytes=settings.shadow_max_bytes,
                    on_compared=on_compared,
                )

    def end_shadows(self) -> None:
        """Let its shadow models see nothing any more; their figures stay."""
        for unit in self.units.values():
            if unit.shadow is not None:
                unit.shadow.stop()

    def footprint(self) -> dict[str, int]:
        """What its models take in memory, by estimate, and by variant."""
        return {
            f"{unit.part.model.role} {unit.part.variant.manifest.digest}": unit.estimated_bytes
            for unit in self.units.values()
        }

    def close(self, *, others: Iterable[Slot | None]) -> None:
        """Free its models, except those that another slot serves too."""
        self.end_shadows()
        shared = {id(u.served) for slot in others if slot is not None for u in slot.units.values()}
        for unit in self.units.values():
            if unit.served is not None and id(unit.served) not in shared:
                unit.served.retire()
            unit.served = None


class Workbench:
    """Brings a slot's models from the store to readiness, one step a call.

    Args:
        store: holds their blobs.
        engine_for: gives the engine for a format.
        check: called between two files; raises to stop the step.
    """

    def __init__(
        self, store: BlobStore, engine_for: EngineFor, check: Callable[[], None] = lambda: None
    ) -> None:
        self._store = store
        self._engine_for = engine_for
        self._check = check

    def plan_build(self, unit: Unit) -> EngineOptions:
        """The options to load a verified model with now: while a build is due, the next best.

        ``strict`` allows no other provider, even for a while: loading then waits for the build.
        """
        engine = self._engine_for(unit.part.variant.format)
        if unit.entry is None or not isinstance(engine, CanBuild):
            return unit.options
        unit.built_for = engine.parts(unit.entry, unit.options)
        built = unit.built_for is None or engine.built(unit.entry, unit.options) is not None
        unit.build_due = not built and not unit.options.strict
        return engine.interim(unit.options) if unit.build_due else unit.options

    def verify(self, unit: Unit) -> None:
        """Read every blob of a model and lay its files out for the engine.

        Raises:
            IntegrityError: a blob is damaged; names its file. It was removed from the store.
            NotFoundError: a blob is gone.
        """
        manifest = unit.part.manifest
        names = {layer.digest: path for path, layer in files_of(manifest).items()}
        for blob in blobs_of(manifest):
            self._check()
            name = f"{names.get(blob.digest, 'document')} of {unit.part.model.name}"
            self._store.verify(blob, name=name)
        unit.folder = self._store.materialize(unit.part.variant.manifest.digest, manifest)
        point("model.verified")

    def load(self, unit: Unit, *, others: Iterable[Slot | None]) -> None:
        """Open a verified model, or share the one that another slot has open.

        Raises:
            InvalidModelError: the engine can't open it, or its steps don't fit it.
            UnsupportedError: ``strict``, and the provider wanted is not the one in use.
        """
        for slot in others:
            twin = slot.units.get(unit.part.key) if slot is not None else None
            if twin is not None and twin.served is not None and unit.same_as(twin):
                unit.share(twin)
                return
        if unit.entry is None:
            raise InvalidModelError(f"model {unit.part.model.name} was not verified")
        part = unit.part
        engine = self._engine_for(part.variant.format)
        options = self.plan_build(unit)
        before = host.rss_bytes()
        model = engine.load(unit.entry, options)
        try:
            whole = with_steps(model, part.details)
        except EdgeFleetError as error:
            error.prefixed(f"model {part.model.name}")
            raise
        unit.served = ServedModel(
            whole,
            name=part.model.name,
            version=part.model.version,
            bundle=part.model.bundle,
            variant=part.variant.name,
        )
        after = host.rss_bytes()
        if before is not None and after is not None:
            unit.grew_bytes = max(0, after - before)
        point("model.loaded")

    def warm_up(self, unit: Unit) -> None:
        """Run a loaded model once; what goes wrong is left for the self-test to judge."""
        if unit.served is None or unit.outcome is not None:
            return
        try:
            warm_up(proper(unit.served.model), unit.part.details)
        except EdgeFleetError as error:
            _log.info("warming up %s: %s", unit.part.model.name, error.message)
        point("model.warmed")

    def self_test(self, unit: Unit) -> None:
        """Run a model's recorded vectors, unless the model shared has passed them already.

        Raises:
            InvalidModelError: an output is out of tolerance; ``unit.outcome`` has the figures.
        """
        if unit.served is None:
            raise InvalidModelError(f"model {unit.part.model.name} was not loaded")
        if unit.outcome is None:
            began = time.perf_counter()
            unit.outcome, wrong = self_test(proper(unit.served.model), unit.part.details)
            if unit.outcome.cases:
                # At most that long; without it the first requests would go the way of long runs.
                took_us = (time.perf_counter() - began) * 1e6
                unit.served.recent_p50_us = took_us / unit.outcome.cases
            if wrong is not None:
                raise InvalidModelError(
                    f"{unit.part.model.name}:{unit.part.model.version}, variant "
                    f"{unit.part.variant.name} on {', '.join(unit.served.model.providers)}: {wrong}"
                )
        point("model.tested")
