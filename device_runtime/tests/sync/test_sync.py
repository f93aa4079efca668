from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from device_runtime.tests.support import MemoryChannel
from device_runtime.tests.sync.rig import Later, Rig, alarm, health, metric
from edgefleet.errors import AccessExpiredError, UnavailableError
from edgefleet.protocol.event import Event
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.retry import LONGEST_S
from edgefleet_runtime.spool.samples import blocks
from edgefleet_runtime.sync.lane import in_thread
from edgefleet_runtime.sync.sync import LEAST_BATCH_BYTES

DAY_S = 86_400


class Billed(MemoryChannel):
    """Bills by 1,000 bytes and takes 4,000; remembers its messages."""

    hot_unit_bytes = 1000
    hot_max_bytes = 8000
    hot_overhead_bytes = 100

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[list[str]] = []

    def send_hot(self, events: Sequence[Event]) -> None:
        super().send_hot(events)
        self.messages.append([event.id for event in events])


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def events(count: int) -> list[Event]:
    return [metric(float(number)) for number in range(count)]


# --------------------------------------------------------------------------------------------- hot


def test_the_newest_alarm_goes_first_and_health_after_all_alarms(rig: Rig) -> None:
    rig.store.tell(alarm("old"), health("started"), alarm("new"))
    rig.turn(2)
    assert rig.told == ["new", "old", "started"]
    assert rig.store.alarms == {}


def test_a_message_is_small_at_first_and_grows_while_much_waits(tmp_path: Path) -> None:
    channel = Billed()
    rig = Rig(tmp_path, channel=channel)
    waiting = [alarm(f"rule-{number}") for number in range(100)]
    rig.store.tell(*waiting)
    rig.turn(10)
    sizes = [len(ids) for ids in channel.messages]
    assert sum(sizes) == 100
    assert sizes[0] < sizes[1] < 40
    newest_first = [event.id for event in reversed(waiting)]
    assert [one for ids in channel.messages for one in ids] == newest_first


def test_one_alarm_goes_alone_at_once_and_waits_for_no_other(tmp_path: Path) -> None:
    channel = Billed()
    rig = Rig(tmp_path, channel=channel)
    rig.store.tell(alarm("warm"))
    rig.turn()
    assert [len(ids) for ids in channel.messages] == [1]


def test_alarms_wait_for_a_link_and_the_newest_is_first_when_it_is_back(rig: Rig) -> None:
    rig.memory.fails = UnavailableError("away")
    rig.store.tell(alarm("first"))
    rig.turn(2)
    rig.memory.fails = None
    rig.store.tell(alarm("second"))
    rig.turn(2)
    assert rig.told == []
    rig.turn(2, after_s=LONGEST_S)
    assert rig.told == ["second", "first"]


def test_alarms_go_whatever_spans_and_meters_say(tmp_path: Path) -> None:
    rig = Rig(tmp_path, metered="yes")
    rig.follow(("00:00", "00:01"))
    rig.store.tell(alarm("warm"))
    rig.turn(2)
    assert rig.told == ["warm"]


# -------------------------------------------------------------------------------------------- cold


def test_what_was_taken_is_forgotten_in_the_turn_that_hears_of_it(tmp_path: Path) -> None:
    later = Later()
    rig = Rig(tmp_path, start=later)
    sent = events(3)
    rig.store.events = list(sent)
    rig.turn()
    later.run()
    assert rig.received == [event.id for event in sent]
    assert rig.store.under_way is not None
    rig.turn()
    assert rig.store.under_way is None


def test_batches_begin_small_and_are_smaller_after_a_failure(rig: Rig) -> None:
    for fails in (None, None, UnavailableError("away")):
        rig.memory.fails = fails
        rig.store.events = events(1)
        rig.turn()
    rig.turn(after_s=LONGEST_S)
    rig.memory.fails = None
    rig.turn(after_s=LONGEST_S)
    rig.store.events = events(1)
    rig.turn()
    asked = [one["max_bytes"] // LEAST_BATCH_BYTES for one in rig.store.asked]
    assert asked == [1, 2, 4, 2]


def test_batches_never_exceed_what_the_policy_calls_a_segment(rig: Rig) -> None:
    for _ in range(12):
        rig.store.events = events(1)
        rig.turn()
    assert rig.store.asked[-1]["max_bytes"] == 4 << 20


def test_a_batch_goes_on_where_it_was_broken_off(rig: Rig) -> None:
    rig.store.events = events(3)
    rig.memory.fails = UnavailableError("away")
    rig.turn(2)
    before = rig.store.under_way
    assert before is not None
    rig.memory.fails = None
    rig.turn(1, after_s=LONGEST_S)
    assert list(rig.memory.segments) == [before.segments[0].name]


def test_a_disk_that_can_not_forget_what_was_taken_sends_nothing_twice(rig: Rig) -> None:
    rig.store.forgets = False
    rig.store.events = events(1)
    rig.store.tell(alarm("warm"))
    rig.turn(5)
    rig.store.tell(alarm("warmer"))
    rig.turn(5)
    assert (rig.told, rig.sync.state.files) == (["warm", "warmer"], 1)
    rig.store.forgets = True
    rig.turn(2)
    assert (rig.store.alarms, rig.store.under_way) == ({}, None)


# ------------------------------------------------------------------------------------ when it goes


def test_files_go_in_the_spans_of_the_day_only(rig: Rig) -> None:
    rig.follow(("13:00", "14:00"))
    rig.store.events = events(2)
    rig.turn(2)
    assert (rig.received, rig.sync.state.why) == ([], "span")
    rig.turn(2, after_s=3600)
    assert (len(rig.received), rig.sync.state.why) == (2, None)
    rig.store.events = events(2)
    rig.turn(2, after_s=3600)
    assert len(rig.received) == 2


@pytest.mark.parametrize("years", [-50, -1, 1, 30])
def test_a_clock_that_jumps_years_while_a_span_holds_changes_only_the_time_of_day(
    rig: Rig, years: int
) -> None:
    rig.follow(("11:00", "13:00"))
    rig.store.events = events(1)
    rig.now += years * 365 * DAY_S
    rig.turn(2)
    assert len(rig.received) == 1
    rig.store.events = events(1)
    rig.now += years * 365 * DAY_S + 12 * 3600
    rig.turn(2)
    assert (len(rig.received), rig.sync.state.why) == (1, "span")


def test_a_jump_of_the_clock_delays_no_retry(rig: Rig) -> None:
    rig.memory.fails = UnavailableError("away")
    rig.store.events = events(1)
    rig.turn(2)
    rig.memory.fails = None
    rig.now -= 20 * 365 * DAY_S
    rig.clock.now += LONGEST_S
    rig.turn(2)
    assert len(rig.received) == 1


def test_over_a_metered_link_only_alarms_go_unless_the_policy_says_more(tmp_path: Path) -> None:
    says = tmp_path / "metered"
    says.write_text("yes")
    rig = Rig(tmp_path / "device", metered=str(says))
    rig.store.events = events(1)
    rig.turn(2)
    assert (rig.received, rig.sync.state.why) == ([], "metered")
    rig.follow(metered="all")
    rig.turn(2)
    assert len(rig.received) == 1
    rig.follow(metered="alarms")
    rig.store.events = events(1)
    rig.turn(2, after_s=2)
    assert len(rig.received) == 1
    says.write_text("no")
    rig.turn(2, after_s=2)
    assert len(rig.received) == 2


# -------------------------------------------------------------------------------- how fast it goes


class Large(MemoryChannel):
    """Reads what is uploaded as channels do."""

    def upload(self, name: str, path: Path) -> None:
        with self.opened(path) as stream:
            parts = []
            while part := stream.read(8192):
                parts.append(part)
        self.segments[name] = b"".join(parts)


def test_segments_and_samples_together_keep_to_the_policys_rate(tmp_path: Path) -> None:
    rig = Rig(tmp_path, channel=Large())
    rig.follow(max_bytes_per_s=1000)
    rig.store.events = events(200)
    rig.samples.put(bytes(20_000))
    before = rig.clock.now
    rig.turn(4)
    assert rig.sync.state.bytes > 20_000
    assert rig.clock.now - before == pytest.approx(rig.sync.state.bytes / 1000, rel=0.05)


def test_a_channel_that_opens_files_by_itself_keeps_to_it_between_files(rig: Rig) -> None:
    rig.follow(max_bytes_per_s=1000)
    rig.samples.put(bytes(20_000))
    before = rig.clock.now
    rig.turn(2)
    assert rig.clock.now - before == pytest.approx(20.0)


def test_an_upload_is_broken_off_when_the_link_becomes_a_metered_one(tmp_path: Path) -> None:
    says, channel = tmp_path / "metered", Large()
    says.write_text("no")
    rig = Rig(tmp_path / "device", channel=channel, metered=str(says))
    rig.follow(max_bytes_per_s=1000)
    rig.samples.put(bytes(20_000))
    began = rig.clock.now

    def become_metered() -> None:
        if rig.clock.now - began > 5:
            says.write_text("yes")

    rig.meanwhile = become_metered
    rig.turn(2)
    assert channel.segments == {}
    assert rig.clock.now - began < 8
    assert rig.sync.state.why == "metered"
    says.write_text("no")
    rig.meanwhile = lambda: None
    rig.turn(2, after_s=2)
    assert len(channel.segments) == 1


# ------------------------------------------------------------------- what waits, and for how long


def test_access_that_ended_drops_nothing_and_says_so_until_it_is_renewed(rig: Rig) -> None:
    rig.memory.fails = AccessExpiredError("access has ended")
    rig.store.events = events(5)
    rig.store.tell(alarm("warm"))
    for _ in range(100):
        rig.turn(after_s=3600)
    assert rig.sync.state.why == "access"
    assert (rig.told, rig.received) == ([], [])
    rig.memory.fails = None
    rig.turn(2, after_s=LONGEST_S)
    assert (rig.told, len(rig.received)) == (["warm"], 5)
    assert rig.sync.state.why is None


def test_hot_and_cold_wait_apart(rig: Rig) -> None:
    def refuse(name: str, path: Path) -> None:
        raise AccessExpiredError(f"{name} {path}")

    rig.memory.upload = refuse  # type: ignore[method-assign]
    rig.store.events = events(1)
    rig.turn(2)
    rig.store.tell(alarm("warm"))
    rig.turn(2)
    assert rig.told == ["warm"]


def test_ninety_days_away_lose_nothing_and_the_newest_alarm_is_first(rig: Rig) -> None:
    rig.memory.fails = UnavailableError("away")
    sent: list[Event] = []
    for day in range(90):
        rig.store.tell(alarm(f"day-{day}"))
        sent += events(10)
        rig.store.events += sent[-10:]
        for _ in range(24):
            rig.turn(after_s=3600)
    rig.memory.fails = None
    rig.turn(200, after_s=LONGEST_S)
    assert rig.told == [f"day-{day}" for day in reversed(range(90))]
    assert sorted(rig.received) == sorted(event.id for event in sent)


def test_a_turn_waits_for_no_upload_and_alarms_go_meanwhile(tmp_path: Path) -> None:
    later = Later()
    rig = Rig(tmp_path, start=later)
    rig.store.events = events(1)
    rig.turn(3)
    assert [name for name, _ in later.waiting] == ["sync-cold"]
    rig.store.tell(alarm("warm"))
    rig.turn()
    _, hot = later.waiting.pop()
    hot()
    rig.turn()
    assert (rig.told, rig.store.alarms) == (["warm"], {})
    assert later.run() == "sync-cold"
    rig.turn()
    assert rig.store.under_way is None


def test_a_channel_that_hangs_keeps_no_turn_waiting(tmp_path: Path) -> None:
    release = threading.Event()

    class Hanging(MemoryChannel):
        def upload(self, name: str, path: Path) -> None:
            assert release.wait(60)
            super().upload(name, path)

    rig = Rig(tmp_path, channel=Hanging(), start=in_thread)
    rig.store.events = events(1)
    try:
        rig.turn(5)
        assert rig.sync.state.files == 0
    finally:
        release.set()

    def forgotten() -> bool:
        rig.turn()
        return rig.store.under_way is None

    eventually(forgotten)


# ------------------------------------------------------------------------------------ the last turn


def test_the_last_turn_sends_all_that_may_go_and_tries_at_once(rig: Rig) -> None:
    rig.memory.fails = UnavailableError("away")
    rig.store.events = events(2000)
    rig.store.tell(alarm("warm"))
    rig.turn(2)
    rig.memory.fails = None
    rig.sync.turn(True)
    assert (len(rig.received), rig.told) == (2000, ["warm"])
    assert rig.store.asked[-1]["everything"]


def test_the_last_turn_keeps_to_spans_and_meters(tmp_path: Path) -> None:
    rig = Rig(tmp_path, metered="yes")
    rig.store.events = events(1)
    rig.sync.turn(True)
    assert rig.received == []


def test_the_last_turn_ends_where_nothing_can_be_sent(rig: Rig) -> None:
    rig.memory.fails = UnavailableError("away")
    rig.store.events = events(1)
    rig.sync.turn(True)
    assert rig.sync.state.why == "link"


def test_the_last_turn_ends_in_time_whatever_hangs(tmp_path: Path) -> None:
    release, ended = threading.Event(), threading.Event()

    class Hanging(MemoryChannel):
        def send_hot(self, events: Sequence[Event]) -> None:
            assert release.wait(60)
            ended.set()

    rig = Rig(tmp_path, channel=Hanging(), start=in_thread)
    rig.store.tell(alarm("warm"))
    rig.sync.stop_within(0.0)
    rig.sync.turn(True)
    assert len(rig.store.alarms) == 1
    release.set()
    eventually(ended.is_set)


def test_a_throttled_upload_is_broken_off_when_the_process_ends(tmp_path: Path) -> None:
    began, ended = threading.Event(), threading.Event()

    class Watched(Large):
        def upload(self, name: str, path: Path) -> None:
            began.set()
            try:
                super().upload(name, path)
            finally:
                ended.set()

    channel = Watched()
    rig = Rig(tmp_path, channel=channel, start=in_thread, waits=True)
    rig.follow(max_bytes_per_s=10)
    rig.samples.put(bytes(100_000))
    rig.turn()
    eventually(began.is_set)
    rig.sync.stop_within(0.0)
    rig.sync.turn(True)
    eventually(ended.is_set)
    assert channel.segments == {}
    assert rig.samples.used_bytes == blocks(100_000)


# ---------------------------------------------------------------------------------------- figures


def test_the_state_counts_what_was_taken_and_says_when(rig: Rig) -> None:
    assert rig.sync.state.delivered is None
    rig.store.events = events(3)
    rig.store.tell(alarm("warm"), health("started"))
    rig.turn(2)
    state = rig.sync.state
    assert (state.files, state.hot, state.delivered) == (1, 2, rig.now)
    assert state.bytes == sum(map(len, rig.memory.segments.values()))
