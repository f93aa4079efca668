"""What comes over a device's channel: its pointer, and the end of a wait when there is news."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest

from edgefleet.errors import EdgeFleetError
from edgefleet.testing.kit.channel_ends import DeviceChannel, FarEnd, begun
from edgefleet.testing.kit.channel_fixtures import LONG_S, ChannelFixtures, pointer
from edgefleet.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

NONSENSE = {
    "cut off": b'{"version": 1, "fleet"',
    "another kind of document": b'{"error": "not found"}',
    "a page": b"<html>please sign in</html>",
    "far too long": b'{"padding": "' + b"x" * 20_000 + b'"}',
}


class ComingRules(ChannelFixtures):
    """How the pointer comes, and what a wait tells."""

    # ---------------------------------------------------------------------------------- the pointer

    def test_before_the_first_pointer_there_is_none(self, channel: DeviceChannel) -> None:
        """If this fails, `pointer` gives an empty document where nothing was published."""
        assert self._read(channel) is None

    def test_a_pointer_comes_as_it_was_written(
        self, channel: DeviceChannel, far_end: FarEnd
    ) -> None:
        """If this fails, the pointer is decoded and encoded again on its way: signatures break, and
        fields of a newer fleet get lost.
        """
        data = b'{ "future": [1,  2.50], ' + pointer(1)[1:]
        far_end.publish(data)
        self._arrives(channel, data)

    def test_the_newest_pointer_is_read(self, channel: DeviceChannel, far_end: FarEnd) -> None:
        """If this fails, `pointer` gives the first one for ever, or one after the other."""
        far_end.publish(pointer(1))
        self._arrives(channel, pointer(1))
        for number in (2, 3, 4):
            far_end.publish(pointer(number))
        self._arrives(channel, pointer(4))

    def test_a_lower_pointer_is_carried_too(self, channel: DeviceChannel, far_end: FarEnd) -> None:
        """If this fails, the channel decides what to follow. That is the reconciler's: it refuses
        such a pointer aloud, so that an operator hears of it.
        """
        far_end.publish(pointer(7))
        self._arrives(channel, pointer(7))
        far_end.publish(pointer(3))
        self._arrives(channel, pointer(3))

    def test_reading_a_pointer_takes_nothing_away(
        self, channel: DeviceChannel, far_end: FarEnd
    ) -> None:
        """If this fails, a pointer is handed out once, like a message; or goes when the same one is
        published again.
        """
        far_end.publish(pointer(1))
        self._arrives(channel, pointer(1))
        assert self._read(channel) == pointer(1)
        far_end.publish(pointer(1))
        self._settle(channel)
        assert self._read(channel) == pointer(1)

    @pytest.mark.parametrize("what", NONSENSE)
    def test_what_is_no_pointer_ends_nothing(
        self, channel: DeviceChannel, far_end: FarEnd, what: str
    ) -> None:
        """If this fails, a document that makes no sense stops the channel: `pointer` may give it or
        what was held, or raise one of our errors; the next good one must come.
        """
        far_end.publish(pointer(1))
        self._arrives(channel, pointer(1))
        far_end.publish(NONSENSE[what])
        for _ in range(3):
            with suppress(EdgeFleetError):
                channel.pointer()
                channel.access()
            channel.wait(0.01)
        far_end.publish(pointer(2))
        self._arrives(channel, pointer(2), ignoring=EdgeFleetError)

    def test_who_comes_later_reads_it_at_once(
        self, channel: DeviceChannel, far_end: FarEnd, connect: Callable[[], DeviceChannel]
    ) -> None:
        """If this fails, the first `pointer` of a channel doesn't ask: a device that wakes for one
        cycle goes back to sleep without its release.
        """
        far_end.publish(pointer(1))
        self._arrives(channel, pointer(1))
        channel.close()
        later = connect()
        try:
            assert self._read(later) == pointer(1)
        finally:
            later.close()

    # ---------------------------------------------------------------------------------- the waiting

    def test_without_news_a_wait_ends(self, channel: DeviceChannel, far_end: FarEnd) -> None:
        """If this fails, `wait` returns True again and again with nothing new: the device reads,
        reports and never rests.
        """
        self._settle(channel)
        far_end.publish(pointer(1))
        self._arrives(channel, pointer(1))
        self._settle(channel)
        assert not self._soon(lambda: channel.wait(0.01))

    def test_a_pointer_ends_the_wait(self, channel: DeviceChannel, far_end: FarEnd) -> None:
        """If this fails, nobody tells `wait` of a pointer: the device sees it at its next look."""
        self._settle(channel)
        seen = begun(partial(self._waited_for, channel, pointer(1)))
        far_end.publish(pointer(1))
        assert self._result(seen)

    def test_a_pointer_before_the_wait_is_not_missed(
        self, channel: DeviceChannel, far_end: FarEnd
    ) -> None:
        """If this fails, what comes between reading and waiting is lost: only a `wait` in progress
        is told.
        """
        self._settle(channel)
        far_end.publish(pointer(1))
        eventually(lambda: channel.wait(0), "a wait that looks", timeout_s=self.timeout_s)

    def test_a_wake_ends_the_wait_in_progress(self, channel: DeviceChannel) -> None:
        """If this fails, a runtime that is to stop, or has news of its own, sleeps on."""
        self._settle(channel)
        waiting = begun(lambda: channel.wait(LONG_S))
        channel.wake()
        assert self._result(waiting)

    def test_a_wake_ends_the_next_wait_and_no_other(self, channel: DeviceChannel) -> None:
        """If this fails, a `wake` while nobody waits is lost, or is never used up."""
        self._settle(channel)
        channel.wake()
        assert self._soon(lambda: channel.wait(LONG_S))
        self._settle(channel)
