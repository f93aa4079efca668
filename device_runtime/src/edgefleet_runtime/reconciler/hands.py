"""The reconciler's hands: carries out one action of `machine` with disk, engines and table.

Rules kept here:

- Memory is written before the act that it must outlive: the trial before anything is loaded, the
  running release before the table is swapped. So a power cut at any instant leaves the old release
  or the new one.
- Only going back swaps first: a disk may take longer than requests should go on failing. After a
  power cut in between the release is on trial again and is taken back again; an order to take it
  back, which nobody was told has been followed, is given again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.errors import CancelledError, IntegrityError, NotFoundError
from edgefleet.protocol.digest import short
from edgefleet_runtime.faults import point
from edgefleet_runtime.reconciler import machine as m
from edgefleet_runtime.reconciler import memory as mem
from edgefleet_runtime.reconciler.describe import describe_coming, describe_taken_back
from edgefleet_runtime.reconciler.ledger import said

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.protocol.release import Release
    from edgefleet.protocol.report import ModelReport
    from edgefleet_runtime.reconciler.ledger import Ledger
    from edgefleet_runtime.reconciler.outside import Outside
    from edgefleet_runtime.reconciler.rack import Rack
    from edgefleet_runtime.reconciler.trial import Trial


class Hands:
    """Acts for a driver.

    Args:
        rack: the releases in memory.
        ledger: what is remembered and told.
        outside: gives the sources.
        trial: watches what begins to serve.
        on_release: called with each release that begins to answer requests.
    """

    def __init__(
        self,
        *,
        rack: Rack,
        ledger: Ledger,
        outside: Outside,
        trial: Trial,
        on_release: Callable[[Release], object],
    ) -> None:
        self.given_up: tuple[ModelReport, ...] = ()
        """What a report says of the models of the release that was rejected last."""
        self._rack = rack
        self._ledger = ledger
        self._outside = outside
        self._trial = trial
        self._on_release = on_release

    def perform(  # noqa: PLR0911 - one an action
        self, action: m.Action, state: m.State
    ) -> tuple[m.Event, ...]:
        """Carry out an action; returns what came of it, in order.

        Raises:
            EdgeFleetError: it failed.
        """
        match action:
            case m.Fetch(release):
                return self._fetch(release, state)
            case m.Advance():
                return (self._advance(action),)
            case m.Swap(release):
                return self._swap(release)
            case m.Unload(release):
                self._ledger.save(mem.tried(self._ledger.memory, release))
                self._trial.end()
                self._rack.unload()
                point("swap.unloaded")
                self._ledger.note("the release before was unloaded first: both don't fit in memory")
                return (m.Unloaded(release),)
            case m.Reload(release):
                return (self._reload(release),)
            case m.GoBack(release, reason):
                return (self._go_back(release, reason, state),)
            case m.Reject(release, reason):
                self.given_up = describe_coming(self._rack.candidate, state.progress)
                self._rack.discard()
                order = state.order
                self._ledger.remember(mem.given_up(self._ledger.memory, release, order=order))
                self._ledger.note(reason if order is None else f"release {short(release)} {reason}")
                self._ledger.tell(_what(state), f"release {short(release)}: {reason}")
                return (m.Rejected(release, reason),)
            case m.Wait() | m.Rest():
                return ()

    @property
    def can_go_back(self) -> bool:
        """Whether a release is known that may serve in place of the one that does."""
        running = self._rack.running
        known = running and mem.before(self._ledger.memory, running.digest)
        return self._rack.kept is not None or known is not None

    def serves(self) -> None:
        """Begin what goes with a release that begins to answer requests."""
        slot, trial = self._rack.running, self._ledger.memory.trial
        self._trial.end()
        if slot is not None:
            if trial is not None and trial.release == slot.digest:
                self._trial.begin(slot)
            self._on_release(slot.acquired.release)

    def _fetch(self, release: str, state: m.State) -> tuple[m.Event, ...]:
        models, alone = self._rack.fetch(release, lambda: self._outside.sources(state.pointer))
        fetched = m.Fetched(release, models, alone)
        return (fetched,) if self._rack.kept is not None else (m.Unkept(), fetched)

    def _advance(self, action: m.Advance) -> m.Event:
        if action.to is m.Stage.LOADED:
            self._ledger.save(mem.tried(self._ledger.memory, action.release))
        try:
            advanced = self._rack.advance(action.release, action.model, action.to)
        except (IntegrityError, NotFoundError) as error:
            if action.to is not m.Stage.VERIFIED:
                raise
            self._ledger.note(error.message)
            return m.Damaged(action.release, error.message)
        if not advanced:
            return m.Damaged(action.release, "the release on its way is no longer at hand")
        return m.Reached(action.release, action.model, action.to)

    def _swap(self, release: str) -> tuple[m.Event, ...]:
        slot = self._rack.ready(release)
        if slot is None:
            gone = m.Damaged(release, "the release that was loaded is no longer at hand")
            return (m.Unkept(), gone)
        self._ledger.save(mem.swapped(self._ledger.memory, release))
        point("swap.saved")
        self._rack.swap(slot)
        if self._rack.kept is None:
            self._rack.hold(self._ledger.memory.previous)
        self.given_up = ()
        self.serves()
        self._ledger.tell("release-active", f"release {short(release)} serves")
        return (m.Swapped(release, self._rack.kept.digest if self._rack.kept else None),)

    def _reload(self, release: str) -> m.Event:
        self._rack.discard()
        for digest in {release: 0, self._ledger.memory.good or release: 0}:
            try:
                self._rack.restore(digest)
            except CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - engines raise anything
                self._ledger.note(f"cannot load release {short(digest)} again: {said(error)}")
                continue
            self._rack.pin(good=self._ledger.memory.good)
            self.serves()
            return m.Reloaded(release, digest)
        return m.Reloaded(release, None)

    def _go_back(self, release: str, reason: str, state: m.State) -> m.Event:
        slot, broken = self._rack.running, self._trial.broken
        culprits = {broken[0]} if broken else slot.units.keys() if slot else ()
        given_up = describe_taken_back(slot, culprits, reason) if slot else ()
        memory, to = self._ledger.memory, None
        try:
            to = self._rack.go_back(mem.before(memory, release))
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - engines raise anything
            self._ledger.note(f"cannot go back to the last good release: {said(error)}")
        point("back.swapped")
        if to is None and state.order is not None:
            for unit in slot.units.values() if slot else ():
                unit.reason = None
            if self._rack.running is not slot:  # it made room, and is loaded again
                self.serves()
            return m.WentBack(release, reason, None)
        self._trial.end()
        self._ledger.note(f"release {short(release)} {reason}")
        if to is None:
            self._ledger.note(f"release {short(release)} goes on: there is none to go back to")
            return m.WentBack(release, reason, None)
        self.given_up = given_up
        self._ledger.remember(mem.went_back(memory, release, to, reason, order=state.order))
        self.serves()
        self._ledger.tell(_what(state), f"release {short(release)} {reason}")
        return m.WentBack(release, reason, to)


def _what(state: m.State) -> str:
    """What a health event calls the end of a release."""
    return "release-rejected" if state.order is None else "release-rolled-back"
