"""What a device sends over its channel: reports, hot events and files, one not behind another."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest

from edgefleet.errors import CancelledError
from edgefleet.protocol.documents import encode
from edgefleet.protocol.event import Alarm, new_event
from edgefleet.testing.kit import samples
from edgefleet.testing.kit.channel_ends import PIECE_BYTES, DeviceChannel, FarEnd, begun
from edgefleet.testing.kit.channel_fixtures import (
    LONG_S,
    SAMPLE,
    SEGMENT,
    ChannelFixtures,
    file_in,
    long_report,
    paced,
    pointer,
)

if TYPE_CHECKING:
    from pathlib import Path


class GoingRules(ChannelFixtures):
    """How reports, hot events and files go, and how they go at one time."""

    # --------------------------------------------------------------------------------- what is sent

    def test_a_report_replaces_the_one_before(
        self, channel: DeviceChannel, far_end: FarEnd
    ) -> None:
        """If this fails, reports are merged, cut, or the first one stays."""
        self._start(channel, far_end)
        for report in (long_report(), samples.report(sequence=2).encoded()):
            self._soon(partial(channel.send_report, report))
            self._reported(far_end, report)

    def test_hot_events_arrive(self, channel: DeviceChannel, far_end: FarEnd) -> None:
        """If this fails, hot events get lost or changed on their way; once too often is fine."""
        self._start(channel, far_end)
        sent = [samples.alarm(second) for second in range(5)]
        self._soon(partial(channel.send_hot, sent[:1]))
        self._soon(partial(channel.send_hot, sent[1:]))
        self._told(far_end, sent)

    def test_as_many_events_as_a_message_holds_arrive(
        self, channel: DeviceChannel, far_end: FarEnd
    ) -> None:
        """If this fails, `hot_max_bytes` or `hot_overhead_bytes` is more than the vendor takes: the
        runtime fills its messages by them.
        """
        self._start(channel, far_end)
        room = channel.hot_max_bytes - channel.hot_overhead_bytes
        one = new_event(Alarm(rule="stuck", message="x" * 200), time=samples.MOMENT)
        count = max(1, room // (len(encode(one)) + 1))
        sent = [
            new_event(Alarm(rule="stuck", message="x" * 200), time=samples.MOMENT)
            for _ in range(count)
        ]
        self._soon(partial(channel.send_hot, sent))
        self._told(far_end, sent)

    @pytest.mark.parametrize("name", [SEGMENT, SAMPLE], ids=("segment", "sample"))
    def test_a_file_arrives_and_stays_the_callers(
        self, channel: DeviceChannel, far_end: FarEnd, tmp_path: Path, name: str
    ) -> None:
        """If this fails, a file is cut, moved away, or refused when it comes again: the runtime
        repeats what it doesn't know to have arrived.
        """
        self._start(channel, far_end)
        path, data = file_in(tmp_path)
        for _ in range(2):
            self._soon(partial(channel.upload, name, path))
            self._filed(far_end, name, data)
        assert samples.Content.of(path.read_bytes()) == samples.Content.of(data)

    def test_a_file_is_read_piece_by_piece_as_it_is_opened(
        self, channel: DeviceChannel, far_end: FarEnd, tmp_path: Path
    ) -> None:
        """If this fails, `upload` opens the file by itself, or takes one `read` for all of it: the
        fleet's limits of bandwidth and metered links don't hold, or a file is cut.
        """
        self._start(channel, far_end)
        path, data = file_in(tmp_path)
        files = paced(channel, lambda _: None)
        self._soon(partial(channel.upload, SEGMENT, path))
        self._filed(far_end, SEGMENT, data)
        assert max((one.taken for one in files), default=0) >= len(data)

    def test_an_upload_that_may_not_go_on_leaves_nothing_half(
        self, channel: DeviceChannel, far_end: FarEnd, tmp_path: Path
    ) -> None:
        """If this fails, what `opened` raises in the middle is taken for a failure of the link, or
        half a file stands under its name.
        """
        self._start(channel, far_end)
        path, data = file_in(tmp_path)

        def until_metered(taken: int) -> None:
            if taken >= 3 * PIECE_BYTES:
                raise CancelledError("the link has become a metered one", retryable=True)

        paced(channel, until_metered)
        with pytest.raises(CancelledError):
            self._soon(partial(channel.upload, SEGMENT, path))
        assert far_end.file(SEGMENT) is None
        paced(channel, lambda _: None)
        self._soon(partial(channel.upload, SEGMENT, path))
        self._filed(far_end, SEGMENT, data)

    # ---------------------------------------------------------------------------------- at one time

    def test_a_wait_keeps_nobody_waiting(
        self, channel: DeviceChannel, far_end: FarEnd, tmp_path: Path
    ) -> None:
        """If this fails, a lock that `wait` holds keeps back what is sent meanwhile."""
        self._start(channel, far_end)
        self._settle(channel)
        waiting = begun(lambda: channel.wait(LONG_S))
        path, data = file_in(tmp_path)
        report, events = samples.report(sequence=3).encoded(), [samples.alarm(3)]
        self._soon(partial(channel.send_report, report))
        self._soon(partial(channel.send_hot, events))
        self._soon(partial(channel.upload, SEGMENT, path))
        self._reported(far_end, report)
        self._told(far_end, events)
        self._filed(far_end, SEGMENT, data)
        channel.wake()
        assert self._result(waiting)

    def test_an_upload_keeps_nobody_waiting(
        self, channel: DeviceChannel, far_end: FarEnd, tmp_path: Path
    ) -> None:
        """If this fails, one lock or one connection serves all: an alarm waits behind a segment, on
        a thin link for hours.
        """
        self._start(channel, far_end)
        path, data = file_in(tmp_path)
        reading, go_on = threading.Event(), threading.Event()

        def slow(taken: int) -> None:
            if taken:
                reading.set()
                go_on.wait(self.timeout_s)

        paced(channel, slow)
        uploading = begun(lambda: self._soon(partial(channel.upload, SEGMENT, path)))
        try:
            self._until(lambda: reading.is_set() or uploading.done(), "an upload that reads")
            if uploading.done():
                self._result(uploading)
            assert reading.is_set(), "the upload doesn't read what `opened` gives"
            report, events = samples.report(sequence=4).encoded(), [samples.alarm(4)]
            self._soon(partial(channel.send_hot, events))
            self._soon(partial(channel.send_report, report))
            self._told(far_end, events)
            self._reported(far_end, report)
            far_end.publish(pointer(9))
            self._arrives(channel, pointer(9))
        finally:
            go_on.set()
        self._result(uploading)
        self._filed(far_end, SEGMENT, data)
