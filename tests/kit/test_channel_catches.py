"""The kit's suite of channels finds what it is for: each flaw is one that an author makes."""

from __future__ import annotations

import inspect
import json
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pytest

from edgefleet.errors import EdgeFleetError, UnavailableError
from edgefleet.protocol.event import Event
from edgefleet.protocol.report import AccessReport
from edgefleet.testing.kit.device_channel import DeviceChannelConformance
from edgefleet_runtime.store.http import HttpSource
from edgefleet_runtime.store.sources import Source
from tests.kit.sound_channel import Line, SoundChannel


class GivesAnEmptyOne(SoundChannel):
    def pointer(self) -> bytes | None:
        return super().pointer() or b""


class EncodesAgain(SoundChannel):
    def pointer(self) -> bytes | None:
        data = super().pointer()
        return None if data is None else json.dumps(json.loads(data)).encode()


class KeepsTheFirst(SoundChannel):
    first: bytes | None = None

    def pointer(self) -> bytes | None:
        self.first = self.first or super().pointer()
        self.seen = self.line.changed
        return self.first


class KeepsTheHighest(SoundChannel):
    highest: bytes | None = None

    def pointer(self) -> bytes | None:
        found = super().pointer()
        pairs = [json.loads(one)["number"] for one in (found, self.highest) if one]
        if found and pairs[0] == max(pairs):
            self.highest = found
        return self.highest


class HandsOutOnce(SoundChannel):
    handed: bytes | None = None

    def pointer(self) -> bytes | None:
        found = super().pointer()
        before, self.handed = self.handed, found
        return None if found == before else found


class EndsOverNonsense(SoundChannel):
    ended = False

    def pointer(self) -> bytes | None:
        found = super().pointer()
        self.ended = self.ended or (found is not None and b'"fleet":' not in found)
        if self.ended:
            raise UnavailableError("what came is no pointer")
        return found


class HearsOnlyWhatComes(SoundChannel):
    def __init__(self, line: Line) -> None:
        super().__init__(line)
        self.at_first = line.changed

    def pointer(self) -> bytes | None:
        found = super().pointer()
        return None if self.line.changed == self.at_first else found


class AlwaysHasNews(SoundChannel):
    def wait(self, timeout_s: float) -> bool:
        super().wait(min(timeout_s, 0.01))
        return True


class LooksOnceAtTheEnd(SoundChannel):
    def wait(self, timeout_s: float) -> bool:
        with self.line.news:
            self.line.news.wait_for(lambda: self.woken, timeout_s)
        return super().wait(0)


class HearsOnlyWhileItWaits(SoundChannel):
    def wait(self, timeout_s: float) -> bool:
        self.seen = self.line.changed
        return super().wait(timeout_s)


class SleepsOn(SoundChannel):
    def wake(self) -> None:
        """Nobody is woken."""


class IsWokenForGood(SoundChannel):
    def wait(self, timeout_s: float) -> bool:
        with self.line.news:
            return self.line.news.wait_for(self.is_news, timeout_s)


class ForgetsAWake(SoundChannel):
    waits = False

    def wait(self, timeout_s: float) -> bool:
        self.waits = True
        try:
            return super().wait(timeout_s)
        finally:
            self.waits = False

    def wake(self) -> None:
        if self.waits:
            super().wake()


class MergesReports(SoundChannel):
    def send_report(self, report: bytes) -> None:
        before = json.loads(self.line.report() or b"{}")
        after = json.loads(report)
        after["labels"] = before.get("labels", {}) | after["labels"]
        super().send_report(json.dumps(after).encode())


class SendsTheLastEvent(SoundChannel):
    def send_hot(self, events: Sequence[Event]) -> None:
        super().send_hot(events[-1:])


class PromisesTooMuch(SoundChannel):
    hot_max_bytes = 64 << 10

    def send_hot(self, events: Sequence[Event]) -> None:
        super().send_hot(events[:20])


class TakesTheFile(SoundChannel):
    def upload(self, name: str, path: Path) -> None:
        super().upload(name, path)
        path.unlink()


class RefusesTheSameAgain(SoundChannel):
    def upload(self, name: str, path: Path) -> None:
        if name in self.line.files:
            raise FileExistsError(name)
        super().upload(name, path)


class OpensItself(SoundChannel):
    def content(self, path: Path) -> bytes:
        return path.read_bytes()


class ReadsOnce(SoundChannel):
    def content(self, path: Path) -> bytes:
        with self.opened(path) as stream:
            return stream.read()


class ShowsHalf(SoundChannel):
    def upload(self, name: str, path: Path) -> None:
        self.line.files[name] = path.read_bytes()[:100]
        super().upload(name, path)


class TakesABreakForTrouble(SoundChannel):
    def content(self, path: Path) -> bytes:
        try:
            return super().content(path)
        except EdgeFleetError as error:
            raise UnavailableError("the link broke off") from error


class WaitsUnderALock(SoundChannel):
    def __init__(self, line: Line) -> None:
        super().__init__(line)
        self.lock = threading.Lock()

    def wait(self, timeout_s: float) -> bool:
        with self.lock:
            return super().wait(timeout_s)

    def send_report(self, report: bytes) -> None:
        with self.lock:
            super().send_report(report)


class HasOneConnection(SoundChannel):
    def __init__(self, line: Line) -> None:
        super().__init__(line)
        self.connection = threading.Lock()

    def send_report(self, report: bytes) -> None:
        with self.connection:
            super().send_report(report)

    def upload(self, name: str, path: Path) -> None:
        with self.connection:
            super().upload(name, path)


class SendsAndForgets(SoundChannel):
    def send_hot(self, events: Sequence[Event]) -> None:
        if self.line.up:
            super().send_hot(events)


class RaisesWhatTheVendorDoes(SoundChannel):
    def check(self) -> None:
        if not self.line.up:
            raise ConnectionResetError


class StaysAway(SoundChannel):
    away = False

    def check(self) -> None:
        self.away = self.away or not self.line.up
        if self.away:
            raise UnavailableError("the link was cut")


class RaisesFromWait(SoundChannel):
    def wait(self, timeout_s: float) -> bool:
        self.check()
        return super().wait(timeout_s)


class NeedsALink(SoundChannel):
    def __init__(self, line: Line) -> None:
        super().__init__(line)
        self.check()


class KnowsNoAccess(SoundChannel):
    def access(self) -> AccessReport:
        return AccessReport(state="unknown")


class TakesAnyAddress(SoundChannel):
    def source(self, address: str) -> Source | None:
        return HttpSource(address)


class TakesAnyOption(SoundChannel):
    @classmethod
    def from_options(cls, options: Mapping[str, str], *, device: str) -> Self:
        return super().from_options({}, device=device)


class LeavesWhoWaits(SoundChannel):
    def close(self) -> None:
        self.closing.set()


class ClosesOnce(SoundChannel):
    def close(self) -> None:
        if self.closing.is_set():
            raise RuntimeError("the connection is gone")
        super().close()


class LeavesAThread(SoundChannel):
    def close(self) -> None:
        self.wake()


class LeavesASocket(SoundChannel):
    def serve(self, ask: Callable[[Any], Any]) -> None:
        LEFT.append(socket.socket())


FAILURES = (AssertionError, OSError, RuntimeError, EdgeFleetError, pytest.fail.Exception)
LEFT: list[socket.socket] = []
FLAWS: list[tuple[type[SoundChannel], str]] = [
    (GivesAnEmptyOne, "test_before_the_first_pointer_there_is_none"),
    (EncodesAgain, "test_a_pointer_comes_as_it_was_written"),
    (KeepsTheFirst, "test_the_newest_pointer_is_read"),
    (KeepsTheHighest, "test_a_lower_pointer_is_carried_too"),
    (HandsOutOnce, "test_reading_a_pointer_takes_nothing_away"),
    (EndsOverNonsense, "test_what_is_no_pointer_ends_nothing"),
    (HearsOnlyWhatComes, "test_who_comes_later_reads_it_at_once"),
    (AlwaysHasNews, "test_without_news_a_wait_ends"),
    (LooksOnceAtTheEnd, "test_a_pointer_ends_the_wait"),
    (HearsOnlyWhileItWaits, "test_a_pointer_before_the_wait_is_not_missed"),
    (SleepsOn, "test_a_wake_ends_the_wait_in_progress"),
    (ForgetsAWake, "test_a_wake_ends_the_next_wait_and_no_other"),
    (IsWokenForGood, "test_a_wake_ends_the_next_wait_and_no_other"),
    (MergesReports, "test_a_report_replaces_the_one_before"),
    (SendsTheLastEvent, "test_hot_events_arrive"),
    (PromisesTooMuch, "test_as_many_events_as_a_message_holds_arrive"),
    (TakesTheFile, "test_a_file_arrives_and_stays_the_callers"),
    (RefusesTheSameAgain, "test_a_file_arrives_and_stays_the_callers"),
    (OpensItself, "test_a_file_is_read_piece_by_piece_as_it_is_opened"),
    (ReadsOnce, "test_a_file_is_read_piece_by_piece_as_it_is_opened"),
    (ShowsHalf, "test_an_upload_that_may_not_go_on_leaves_nothing_half"),
    (TakesABreakForTrouble, "test_an_upload_that_may_not_go_on_leaves_nothing_half"),
    (WaitsUnderALock, "test_a_wait_keeps_nobody_waiting"),
    (HasOneConnection, "test_an_upload_keeps_nobody_waiting"),
    (SendsAndForgets, "test_a_cut_link_loses_nothing_that_is_sent"),
    (RaisesWhatTheVendorDoes, "test_a_cut_link_loses_nothing_that_is_sent"),
    (StaysAway, "test_a_pointer_comes_when_a_cut_link_is_back"),
    (RaisesFromWait, "test_a_pointer_comes_when_a_cut_link_is_back"),
    (RaisesWhatTheVendorDoes, "test_a_pointer_comes_when_a_cut_link_is_back"),
    (NeedsALink, "test_a_device_without_a_link_begins"),
    (StaysAway, "test_a_device_without_a_link_begins"),
    (KnowsNoAccess, "test_access_that_holds_is_told"),
    (TakesAnyAddress, "test_a_strangers_address_is_left_to_the_runtime"),
    (TakesAnyOption, "test_an_option_that_it_does_not_know_is_refused"),
    (LeavesWhoWaits, "test_closing_ends_a_wait"),
    (ClosesOnce, "test_closing_twice_is_no_error"),
    (LeavesAThread, "test_after_closing_nothing_is_left"),
    (LeavesASocket, "test_after_closing_nothing_is_left"),
]


class TestSoundChannel(DeviceChannelConformance):
    @pytest.fixture
    def far_end(self) -> Line:
        return Line()

    @pytest.fixture
    def connect(self, far_end: Line) -> Callable[[], SoundChannel]:
        return lambda: SoundChannel(far_end)

    @pytest.fixture
    def from_options(self) -> Callable[[Mapping[str, str]], SoundChannel]:
        return lambda more: SoundChannel.from_options(more, device="cam-07")


class Hasty(DeviceChannelConformance):
    """What never happens needn't be waited for long."""

    timeout_s = 0.3


@pytest.mark.parametrize("flawed, claim", FLAWS)
def test_a_flawed_channel_fails(flawed: type[SoundChannel], claim: str, tmp_path: Path) -> None:
    line, test = Line(), getattr(Hasty(), claim)
    channel: list[SoundChannel] = []

    def connect() -> SoundChannel:
        channel.append(flawed(line))
        return channel[-1]

    given: dict[str, Callable[[], object]] = {
        "far_end": lambda: line,
        "connect": lambda: connect,
        "channel": connect,
        "from_options": lambda: lambda more: flawed.from_options(more, device="cam-07"),
        "tmp_path": lambda: tmp_path,
        "what": lambda: "a page",
        "name": lambda: "segments/a",
    }
    try:
        with pytest.raises(FAILURES):
            test(**{name: given[name]() for name in inspect.signature(test).parameters})
    finally:
        line.restore()
        for one in channel:
            one.closing.set()
            SoundChannel.wake(one)
        while LEFT:
            LEFT.pop().close()


def test_each_claim_has_a_flaw() -> None:
    claims = {name for name in dir(DeviceChannelConformance) if name.startswith("test_")}
    assert claims == {claim for _, claim in FLAWS}
