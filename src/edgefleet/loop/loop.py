"""`Loop`: what a user holds. Reads a file, goes on with a turn, tells how it stands."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from edgefleet.actor import current_actor
from edgefleet.errors import InvalidInputError, NotFoundError
from edgefleet.loop import lease, triggers, turning
from edgefleet.loop.fleet_sources import FleetSources
from edgefleet.loop.reading import read_spec
from edgefleet.loop.record import LoopRecord, Wish, encode_record, key_of, read_record
from edgefleet.loop.status import LoopStatus
from edgefleet.loop.work import Work, default_root

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.fleet import Fleet
    from edgefleet.interfaces.values import ModelVersion
    from edgefleet.loop.record import Turn
    from edgefleet.loop.sources import Sources
    from edgefleet.loop.spec import LoopSpec
    from edgefleet.loop.status import State
    from edgefleet.loop.triggers import Reading

POLL_S = 5.0  # seconds between looks at what is waited for


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Loop:
    """Keeps a model good: from drift to a new version, step by step, by whoever calls `run`.

    Args:
        spec: what it does.
        sources: where drift and samples come from; None for the fleet's own.
        now: the time, for schedules and spans.
        clock: monotonic seconds, by which another's lease is watched.
        sleep: waits so many seconds, for that and between looks.
        files: folder for files of turns; None for the user's cache folder.
    """

    def __init__(
        self,
        spec: LoopSpec,
        *,
        sources: Callable[[Fleet], Sources] | None = None,
        now: Callable[[], datetime] = _utc_now,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
        files: Path | str | None = None,
    ) -> None:
        self.spec = spec
        self._sources = sources or (lambda fleet: FleetSources(fleet, spec.dataset.labels))
        self._now, self._clock, self._sleep = now, clock, sleep
        self._root = default_root() if files is None else Path(files)

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        sources: Callable[[Fleet], Sources] | None = None,
        files: Path | str | None = None,
    ) -> Self:
        """The loop that a ``loop.yaml`` describes.

        Raises:
            InvalidInputError: the file is wrong; the message says in which line.
        """
        return cls(read_spec(path), sources=sources, files=files)

    def __repr__(self) -> str:
        return f"<loop {self.spec.name!r} of {self.spec.model} on {', '.join(self.spec.groups)}>"

    def run(
        self,
        fleet: Fleet,
        *,
        now: bool = False,
        wait: bool = False,
        poll_s: float = POLL_S,
        say: Callable[[str], object] = lambda _text: None,
    ) -> LoopStatus:
        """Begin a turn where a trigger holds, or go on with the one on its way, as far as it goes.

        Whatever ended an earlier call, even a power cut, this one goes on where it stopped.

        Args:
            fleet: whose model it is.
            now: begin a turn whatever the triggers say; limits still hold.
            wait: wait for training, approval and the shadow instead of returning ``waiting``.
            poll_s: seconds between looks then.
            say: told of each step.

        Returns:
            How the loop stands: ``idle`` where no trigger holds, ``waiting`` for something outside,
            or how the turn ended.

        Raises:
            LoopHeldError: another process works at it.
            InvalidInputError: the loop's state is of another model.
            ConflictError: the groups run several versions.
            EdgeFleetError: a step failed. Mend the cause and call again, or `discard` the turn.
        """
        with self._held(fleet) as held:
            self._check(held.record)
            record, ended = turning.go_on(
                held,
                lambda record: self._work(fleet, record),
                now=now,
                wait=wait,
                pause=lambda: self._sleep(poll_s),
                say=say,
            )
            work = self._work(fleet, record)
            readings = tuple(turning.readings(work)) if record.turn is None else ()
        return self._told(record, ended, readings=readings, held=False, asked=now)

    def status(self, fleet: Fleet) -> LoopStatus:
        """How the loop stands, its triggers included. Changes nothing."""
        record = lease.read(fleet.state, self.spec.name)
        if record is None:
            record = LoopRecord(loop=self.spec.name, model=self.spec.model, created=self._now())
        work = self._work(fleet, record)
        return self._told(record, None, readings=tuple(turning.readings(work)), held=True)

    def approve(self, fleet: Fleet, *, by: str | None = None, reason: str = "") -> ModelVersion:
        """Let the candidate go to devices; the next `run` goes on.

        Raises:
            NotFoundError: no candidate was pushed.
        """
        return fleet.registry.approve(
            self._candidate(fleet), by=by or current_actor(), reason=reason or None
        )

    def discard(self, fleet: Fleet, *, by: str | None = None, reason: str = "") -> None:
        """Have the next `run` end the turn on its way and take its candidate from the devices.

        Raises:
            NotFoundError: no turn is on its way.
        """

        def wish(data: bytes | None) -> bytes:
            record = None if data is None else read_record(data)
            if record is None or record.turn is None:
                raise self._no_turn()
            wanted = Wish(turn=record.turn.number, by=by or current_actor(), reason=reason)
            return encode_record(msgspec.structs.replace(record, wish=wanted))

        fleet.state.update(key_of(self.spec.name), wish)

    def _candidate(self, fleet: Fleet) -> str:
        record = lease.read(fleet.state, self.spec.name)
        if record is None or record.turn is None:
            raise self._no_turn()
        if not record.turn.version:
            msg = f"turn {record.turn.number} is at {record.turn.step}: nothing was pushed yet"
            raise NotFoundError(msg, cure="run the loop until it waits for approval")
        return record.turn.version

    def _no_turn(self) -> NotFoundError:
        msg = f"no turn of loop {self.spec.name!r} is on its way"
        return NotFoundError(msg, cure="begin one with: edgefleet loop run --now")

    def _check(self, record: LoopRecord) -> None:
        if record.model != self.spec.model:
            msg = (
                f"the state of loop {self.spec.name!r} is of model {record.model!r}, "
                f"not of {self.spec.model!r}"
            )
            raise InvalidInputError(msg, cure="give a loop for another model another name")

    def _held(self, fleet: Fleet) -> lease.Held:
        return lease.Held(
            fleet.state,
            self.spec.name,
            model=self.spec.model,
            ttl_s=self.spec.lease_s,
            now=self._now,
            clock=self._clock,
            sleep=self._sleep,
        )

    def _work(self, fleet: Fleet, record: LoopRecord) -> Work:
        return Work(
            fleet=fleet,
            spec=self.spec,
            sources=self._sources(fleet),
            now=self._now,
            record=record,
            root=self._root,
        )

    def _told(
        self,
        record: LoopRecord,
        ended: Turn | None,
        *,
        readings: tuple[Reading, ...],
        held: bool,
        asked: bool = False,
    ) -> LoopStatus:
        state: State = "idle"
        why = ""
        if ended is not None and ended.outcome is not None:
            state, why = ended.outcome, ended.why
        elif record.turn is not None:
            state, why = "waiting", record.waits
        elif asked or any(reading.holds for reading in readings):
            refused = triggers.refusal(self.spec.limits, record, self._now())
            why = refused or "a trigger holds: the next run begins a turn"
        return LoopStatus(
            loop=self.spec.name,
            model=self.spec.model,
            groups=self.spec.groups,
            state=state,
            why=why,
            turn=ended or record.turn or (record.history[-1] if record.history else None),
            readings=readings,
            holder=record.lease.holder if held and record.lease is not None else None,
            history=tuple(reversed(record.history)),
        )
