"""What a good release gains while it serves: a faster variant, an engine built for this machine.

Rules kept here:

- Nothing is touched before the release that serves counts as good, or while another is on its way;
  a newer pointer ends what was begun.
- Further variants are fetched within the policy's ``trial_bytes``, loaded within the memory cap,
  and timed on the recorded inputs for a small share of the time.
- What replaces a model was self-tested like any other. The one before stays loaded until the new
  one has proved itself, and comes back when it breaks the release's budget.
- A try is noted on the disk before it begins: what brings the process down isn't tried for ever.
- An engine is built by a process of its own. Whatever ends it leaves none that is half done.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from msgspec.structs import replace

from edgefleet.errors import (
    AccessDeniedError,
    CancelledError,
    EdgeFleetError,
    InvalidModelError,
    LimitExceededError,
    StorageFullError,
)
from edgefleet.protocol.report import MAX_TEXT, BuildReport, VariantReport
from edgefleet_runtime.engines.cache import MAX_BYTES, EngineCache
from edgefleet_runtime.faults import point
from edgefleet_runtime.reconciler import candidates as c
from edgefleet_runtime.reconciler.duel import Duel, percentile
from edgefleet_runtime.reconciler.ledger import Ledger, said
from edgefleet_runtime.reconciler.machine import Key, Stage
from edgefleet_runtime.reconciler.selftest import recorded_inputs
from edgefleet_runtime.retry import RetryTimer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefleet.protocol.target import Choice
    from edgefleet_runtime.engines.base import EngineOptions
    from edgefleet_runtime.engines.build import Build
    from edgefleet_runtime.reconciler.acquire import Acquirer, OpenSources
    from edgefleet_runtime.reconciler.rack import Rack
    from edgefleet_runtime.reconciler.slot import Slot, Unit
    from edgefleet_runtime.reconciler.timings import Record, TimingsFile
    from edgefleet_runtime.reconciler.trial import Trial

    StartBuild = Callable[[str, Path, EngineOptions], Build]
    """Begins to build an engine for a model of a format."""

_log = logging.getLogger(__name__)

BUILD_STEP_S = 10  # by which a report counts how long a build takes
PROGRESS_S = 1.0  # between two looks at how far it is


class Attempt:
    """One try to improve a model of the running release.

    Args:
        key: which model.
        subject: digest under which figures and tries are kept.
        choice: the variant to try; None to build an engine for the one that serves.
        max_bytes: what it may fetch.
    """

    def __init__(
        self, key: Key, subject: str, choice: Choice | None = None, max_bytes: int = 0
    ) -> None:
        self.key = key
        self.subject = subject
        self.choice = choice
        self.max_bytes = max_bytes
        self.charged = self.spent_before = 0
        self.noted = False
        self.slot: Slot | None = None
        self.stage = Stage.FETCHED
        self.build: Build | None = None
        self.provider = ""
        """What the engine is built for."""
        self.duel: Duel | None = None


class Improver:
    """Improves what serves, one step a call. One thread calls it.

    Args:
        rack: the releases in memory.
        acquirer: fetches further variants.
        timings: what is known of variants on this machine.
        trial: watches what replaced a model until it has proved itself.
        start_build: begins a build.
        cache: the engines on the disk; None where none are built.
        cache_max_bytes: their cap.
        trial_max_bytes: the device's own cap of what trials fetch, beside the policy's.
        pause: waits for so many seconds; may raise to break off.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        rack: Rack,
        acquirer: Acquirer,
        timings: TimingsFile,
        trial: Trial,
        start_build: StartBuild,
        cache: EngineCache | None = None,
        cache_max_bytes: int = MAX_BYTES,
        trial_max_bytes: int | None = None,
        pause: Callable[[float], object],
        clock: Callable[[], float],
    ) -> None:
        self._rack = rack
        self._acquirer = acquirer
        self._timings = timings
        self._trial = trial
        self._start_build = start_build
        self._cache = cache
        self._cache_max_bytes = cache_max_bytes
        self._trial_max_bytes = trial_max_bytes
        self._pause = pause
        self._retry = RetryTimer(clock)
        self._attempt: Attempt | None = None
        self._before: Slot | None = None
        """What the revised slot replaced, until that one has proved itself."""
        self._passed_over: set[str] = set()
        """Subjects that don't fit, for as long as this process lasts."""

    def step(self, ledger: Ledger, sources: OpenSources) -> bool:
        """Do the next thing that improves what serves; False when there is none now.

        Raises:
            CancelledError: something changed outside; what was begun goes on with the next call.
        """
        slot = self._rack.running
        if slot is None or self._retry.due_in_s():
            return False
        self._retry.cancel()
        if self._before is not None:
            return self._watched(slot, ledger)
        if self._attempt is None:
            self._attempt = self._next(slot)
        attempt = self._attempt
        if attempt is None or (attempt.build is not None and attempt.build.running):
            return False
        try:
            self._go_on(attempt, slot, ledger, sources)
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - engines raise anything
            self._failed(attempt, ledger, error)
        return True

    def due_in_s(self) -> float | None:
        """Seconds until `step` has something to do, whatever happens outside; None for never."""
        builds = self._attempt is not None and self._attempt.build is not None
        times = (self._retry.due_in_s(), self._trial.due_in_s(), PROGRESS_S if builds else None)
        return min((at for at in times if at is not None), default=None)

    def drop(self) -> None:
        """Let go of all that was begun: something else comes first, or the process ends.

        What replaced a model stays and counts as proved: that nobody waited is no fault of its own.
        """
        if self._attempt is not None:
            self._forget(self._attempt)
            self._close(self._attempt)
        if self._before is not None and self._rack.running is not None:
            self._prove(self._rack.running)
        self._retry.reset()

    def report(self, unit: Unit) -> tuple[tuple[VariantReport, ...], BuildReport | None]:
        """What a report says of a running model's variants, and of the engine built for it."""
        slot, attempt, build = self._rack.running, self._attempt, None
        if slot is None or unit.part.model.role != "active":
            return (), None
        if attempt is not None and attempt.build is not None and attempt.key == unit.part.key:
            build = BuildReport(
                provider=attempt.provider,
                elapsed_s=int(attempt.build.elapsed_s) // BUILD_STEP_S * BUILD_STEP_S,
                progress=attempt.build.progress,
            )
        allowed = self._max_bytes(slot)
        return c.describe(unit.part.candidates, self._record, max_bytes=allowed), build

    # ------------------------------------------------------------------------------------- choosing

    def _next(self, slot: Slot) -> Attempt | None:
        active = [(key, unit) for key, unit in slot.units.items() if key[1] == "active"]
        for key, unit in active:
            if unit.build_due and unit.built_for is not None:
                subject = f"sha256:{unit.built_for.key}"
                hopeless = self._timings.get(subject).hopeless is not None
                if not hopeless and subject not in self._passed_over:
                    return Attempt(key, subject)
        for key, unit in active:
            found = self._untried(slot, unit)
            if found is not None:
                choice, allowed = found
                return Attempt(key, choice.variant.manifest.digest, choice, allowed)
        return None

    def _untried(self, slot: Slot, unit: Unit) -> tuple[Choice, int] | None:
        part = unit.part
        if not part.details.self_test:
            return None  # what can't be tested must not come by itself
        return c.untried(
            (
                part.candidates[0],
                *(
                    choice
                    for choice in part.candidates[1:]
                    if choice.variant.manifest.digest not in self._passed_over
                ),
            ),
            self._record,
            cost_of=lambda choice: self._acquirer.cost(part, choice),
            max_bytes=self._max_bytes(slot),
        )

    def _max_bytes(self, slot: Slot) -> int:
        policy, own = slot.acquired.release.settings.trial_bytes, self._trial_max_bytes
        return policy if own is None else min(policy, own)

    def _record(self, choice: Choice) -> Record:
        return self._timings.get(choice.variant.manifest.digest)

    # --------------------------------------------------------------------------------------- trying

    def _go_on(self, attempt: Attempt, running: Slot, ledger: Ledger, sources: OpenSources) -> None:
        if not attempt.noted:
            self._note(attempt, running)
        if attempt.slot is None:
            self._fetch(attempt, running, sources)
            return
        unit = attempt.slot.units[attempt.key]
        if attempt.stage is Stage.VERIFIED and self._builds(attempt, unit, ledger):
            return
        if attempt.stage < Stage.TESTED:
            stage = Stage(attempt.stage + 1)
            self._rack.prepare(unit, stage)
            attempt.stage = stage
            if stage is Stage.LOADED:
                point("trial.loaded")
                if unit.build_due:
                    raise InvalidModelError("the engine that was built can't be loaded")
            return
        if attempt.choice is None:
            what = f"{unit.part.model.name} runs on its own engine now"
            self._replace(attempt, attempt.slot, running, ledger, what)
        else:
            self._time(attempt, attempt.slot, running, ledger)

    def _note(self, attempt: Attempt, running: Slot) -> None:
        record = self._timings.get(attempt.subject)
        if attempt.choice is not None:
            part = running.units[attempt.key].part
            attempt.charged = self._acquirer.cost(part, attempt.choice)
        attempt.spent_before = 0 if record.tries else record.spent_bytes
        spent = attempt.spent_before + attempt.charged
        if record.tries:
            spent = max(spent, record.spent_bytes)
        self._timings.save(attempt.subject, tries=record.tries + 1, spent_bytes=spent)
        attempt.noted = True
        point("trial.noted")

    def _fetch(self, attempt: Attempt, running: Slot, sources: OpenSources) -> None:
        unit, acquired = running.units[attempt.key], running.acquired
        if attempt.choice is not None:
            acquired = self._acquirer.acquire_other(
                acquired, unit.part, attempt.choice, sources, max_bytes=attempt.max_bytes
            )
        slot = self._rack.revised(acquired, attempt.key)
        if slot is None:
            raise LimitExceededError("there is no room in memory for it beside what is loaded")
        attempt.slot = slot
        point("trial.fetched")

    def _builds(self, attempt: Attempt, unit: Unit, ledger: Ledger) -> bool:
        """Whether an engine has to be built first; begins to."""
        if attempt.build is None:
            self._rack.plan_build(unit)
            if not unit.build_due or unit.entry is None or unit.built_for is None:
                return False
            attempt.provider = unit.built_for.provider
            attempt.build = self._start_build(unit.part.variant.format, unit.entry, unit.options)
            ledger.tell("engine-building", f"an engine is built for {unit.part.model.name}")
            point("build.begun")
            return True
        failure = attempt.build.failure
        if failure is not None:
            raise InvalidModelError(f"the engine can't be built: {failure}")
        attempt.build = None
        if self._cache is not None:
            units = [u for s in (attempt.slot, *self._rack.slots) for u in _units(s)]
            in_use = {u.built_for.key for u in units if u.built_for is not None}
            self._cache.make_room(self._cache_max_bytes, in_use=in_use)
        self._rack.plan_build(unit)
        return False

    def _time(self, attempt: Attempt, slot: Slot, running: Slot, ledger: Ledger) -> None:
        old, new = running.units[attempt.key], slot.units[attempt.key]
        if old.served is None or new.served is None:
            raise InvalidModelError("the models to time are not loaded")
        if attempt.duel is None:
            attempt.duel = Duel(recorded_inputs(new.part.details), pause=self._pause)
        duel = attempt.duel
        if not duel.over:
            duel.run(old.served.model, new.served.model)
            return
        for unit, times in ((old, duel.old_us), (new, duel.new_us)):
            self._timings.save(
                unit.part.variant.manifest.digest,
                p50_us=percentile(times, 0.5),
                p95_us=percentile(times, 0.95),
                memory_bytes=unit.grew_bytes,
            )
        point("trial.timed")
        before, after = percentile(duel.old_us, 0.5), percentile(duel.new_us, 0.5)
        if c.clearly_faster(after, before):
            name = old.part.variant.name
            new.part = replace(new.part, why=c.why_faster(name, after, before))
            what = f"{new.part.model.name}: {new.part.variant.name} is {new.part.why}"
            self._replace(attempt, slot, running, ledger, what)
        else:
            self._timings.save(attempt.subject, tries=0)
            self._close(attempt)

    def _replace(
        self, attempt: Attempt, slot: Slot, running: Slot, ledger: Ledger, what: str
    ) -> None:
        self._rack.revise(slot)
        point("trial.swapped")
        self._trial.begin(slot)
        self._before, attempt.slot = running, None
        ledger.tell("model-improved", what)

    # --------------------------------------------------------------------------------------- ending

    def _watched(self, slot: Slot, ledger: Ledger) -> bool:
        """Judge what replaced a model."""
        broken, before = self._trial.broken, self._before
        if broken is not None and before is not None and self._attempt is not None:
            self._rack.revise(before)
            self._trial.end()
            self._before = None
            point("trial.taken-back")
            self._attempt.slot = slot
            self._failed(self._attempt, ledger, InvalidModelError(broken[1]))
            return True
        if self._trial.due_in_s() == 0:
            self._prove(slot)
            return True
        return False

    def _prove(self, slot: Slot) -> None:
        before, self._before = self._before, None
        self._trial.end()
        if self._attempt is not None:
            self._forget(self._attempt)
            self._close(self._attempt)
        if before is not None:
            self._rack.release(before)
        self._rack.pin(good=slot.digest)

    def _failed(self, attempt: Attempt, ledger: Ledger, error: Exception) -> None:
        tried = "a built engine" if attempt.choice is None else attempt.choice.variant.name
        what = f"{attempt.key[0]} goes on as it is, without {tried}: {said(error)}"
        waits = isinstance(error, EdgeFleetError) and (
            error.retryable or isinstance(error, AccessDeniedError | StorageFullError)
        )
        if waits:
            _log.info("%s", what)
            self._forget(attempt)
            self._retry.wait()
        elif isinstance(error, LimitExceededError):
            _log.info("%s", what)
            self._forget(attempt)
            self._passed_over.add(attempt.subject)
        else:
            ledger.note(what)
            self._save(attempt.subject, tries=0, failed=said(error)[:MAX_TEXT])
            self._passed_over.add(attempt.subject)
        self._close(attempt)

    def _forget(self, attempt: Attempt) -> None:
        """Undo the note of a try that ended in order, and charge only for what came."""
        if not attempt.noted:
            return
        spent = attempt.spent_before + attempt.charged
        running = self._rack.running
        if attempt.choice is not None and running is not None and attempt.key in running.units:
            left = self._acquirer.cost(running.units[attempt.key].part, attempt.choice)
            spent = max(attempt.spent_before, spent - left)
        self._save(attempt.subject, tries=0, spent_bytes=spent)

    def _save(self, subject: str, **changes: object) -> None:
        """Save what may get lost without harm."""
        try:
            self._timings.save(subject, **changes)
        except OSError as error:
            _log.warning("cannot save figures: %s", error)

    def _close(self, attempt: Attempt) -> None:
        if attempt.build is not None:
            attempt.build.stop()
        if attempt.slot is not None:
            self._rack.release(attempt.slot)
        self._rack.pin()  # what was fetched for it may go when room is needed
        self._attempt = None


def _units(slot: Slot | None) -> tuple[Unit, ...]:
    return () if slot is None else tuple(slot.units.values())
