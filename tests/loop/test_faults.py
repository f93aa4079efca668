"""Killed anywhere and run again, a turn does everything once."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from edgefleet.errors import LoopHeldError
from edgefleet.loop import lease
from edgefleet.loop.record import STEPS, read_record
from edgefleet_local.state import DirectoryStateStore

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet.interfaces.state import Stored
    from edgefleet.loop.record import Turn
    from tests.loop.conftest import MakeWorld
    from tests.loop.world import World


class Killed(BaseException):
    """The process is gone: nothing of it runs any more, its lease stays."""


class Fatal(DirectoryStateStore):
    """Kills the process at the first write of each state of a loop, before or after it.

    Args:
        home: of the store.
        before: whether the write is lost.
    """

    def __init__(self, home: Path, *, before: bool) -> None:
        super().__init__(home)
        self._before, self._dead = before, False
        self.killed_at: list[str] = []

    def revive(self) -> None:
        self._dead = False

    def _read(self, key: str) -> Stored | None:
        if self._dead:
            raise Killed
        return super()._read(key)

    def _write(self, key: str, data: bytes, expect: str | None) -> str:
        if not key.startswith("loops/"):
            return super()._write(key, data, expect)
        if self._dead:
            raise Killed
        mark = self._mark(data)
        if mark in self.killed_at:
            return super()._write(key, data, expect)
        self.killed_at.append(mark)
        if not self._before:
            super()._write(key, data, expect)
        self._dead = True
        raise Killed

    @staticmethod
    def _mark(data: bytes) -> str:
        """What a state tells beside who holds it."""
        record = read_record(data)
        turn = record.turn
        held = "held" if record.lease else "free"
        if turn is None:
            return f"{held}, {len(record.history)} turns over"
        return f"{held}, {turn.step}, run {bool(turn.run)}, shadow {turn.shadowed}, {record.waits}"


def run_to_its_end(world: World, *, before: bool) -> tuple[Turn, set[str]]:
    """The turn when it is over, run again after each kill, and the states it was killed at."""
    folder = next((world.folder / "fleet").rglob("state")).parent
    store = Fatal(folder, before=before)
    world.fleet._services.__dict__["state"] = store
    for _ in range(80):
        try:
            status = world.run()
        except Killed:
            store.revive()
        else:
            if status.turn is not None and status.turn.step == "train" and status.turn.run:
                world.fleet.trainer.get(status.turn.run).wait(progress=False)
            world.converge(compared=60)
        state = lease.read(store, "keep-signs")
        if state is not None and state.history:
            return state.history[0], {mark.split(", ")[1] for mark in store.killed_at}
    msg = f"no end: {store.killed_at}"
    raise AssertionError(msg)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_killed_at_every_write_a_turn_does_everything_once(world: World, *, before: bool) -> None:
    turn, steps = run_to_its_end(world, before=before)
    assert turn.outcome == "promoted"
    assert steps >= {*STEPS}
    assert world.counts() == (1, 2, ["deploy", "deploy", "deploy"])
    assert world.serving == {"active": "2"}


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_killed_at_every_write_a_discarded_candidate_is_taken_back_once(
    make_world: MakeWorld, *, before: bool
) -> None:
    world = make_world(shadow={"requests": 100, "min_agreement": 0.9})
    world.sources.gather(60, at=world.now)
    turn, steps = run_to_its_end(world, before=before)
    assert turn.outcome == "discarded"
    assert "discard" in steps
    assert world.counts() == (1, 2, ["deploy", "deploy", "remove"])
    assert world.serving == {"active": "1"}


def held(world: World) -> lease.Held:
    return lease.Held(
        world.fleet.state,
        "keep-signs",
        model="signs",
        ttl_s=30.0,
        clock=lambda: world.slept_s,
        sleep=world._sleep,
    )


def test_a_second_process_is_told_who_works_at_it(world: World) -> None:
    first = held(world)
    with first:

        def renewing(seconds: float) -> None:
            world.slept_s += seconds
            first.change(lease._renewed)

        second = held(world)
        second._sleep = renewing
        with pytest.raises(LoopHeldError, match=first.holder), second:
            pass
    assert world.slept_s < 30.0


def test_who_stops_renewing_is_followed_after_the_lease_s_time(world: World) -> None:
    held(world)._take()
    with held(world) as second:
        lease_now = second.record.lease
        assert lease_now is not None
        assert lease_now.holder == second.holder
    assert world.slept_s == pytest.approx(30.0, abs=1.0)


def test_whoever_lost_the_lease_writes_nothing_any_more(world: World) -> None:
    suspended = held(world)
    suspended._take()
    with held(world), pytest.raises(LoopHeldError):
        suspended.change(lambda record: record)
    with pytest.raises(LoopHeldError):
        suspended.change(lambda record: record)


def test_of_two_at_once_one_wins(world: World) -> None:
    """Whoever comes second waits in earnest: a first that a whole lease passes by was suspended."""
    outcomes: list[str] = []
    ready, over = threading.Barrier(2), threading.Event()

    def work() -> None:
        loop = world.loop(clock=time.monotonic, sleep=over.wait)
        ready.wait()
        try:
            loop.run(world.fleet)
            outcomes.append("ran")
        except LoopHeldError:
            outcomes.append("held")
        finally:
            over.set()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) in (["held", "ran"], ["ran", "ran"])
    assert len(world.fleet.trainer.list()) == 1
