"""What a device's end of a channel must do: bring the pointer, take what is sent, lose nothing.

The rules are those of `edgefleet_runtime.channels.base`, whose `Channel` an author subclasses. What
breaks one shows in the field only: on a link that breaks, or months later. `channel_coming` and
`channel_going` hold those of a link that is up.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest

from edgefleet.errors import ConfigurationError, EdgeFleetError, UnavailableError
from edgefleet.testing.kit import samples
from edgefleet.testing.kit.channel_coming import ComingRules
from edgefleet.testing.kit.channel_ends import DeviceChannel, FarEnd, Started, begun
from edgefleet.testing.kit.channel_fixtures import LONG_S, SEGMENT, file_in, pointer
from edgefleet.testing.kit.channel_going import GoingRules
from edgefleet.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

STRANGER = "https://models.stranger.example/fleet"


class DeviceChannelConformance(ComingRules, GoingRules):
    """Fixtures: ``connect`` makes the device's channel, ``far_end`` is the operator's end of it,
    and ``from_options`` makes one as the command line does.

    Let the channel look often, where it looks by itself: each test waits for what it should see.

    Attributes:
        timeout_s: seconds after which what should happen counts as missing.
    """

    # ----------------------------------------------------------------------------------- a cut link

    def test_a_cut_link_loses_nothing_that_is_sent(
        self, channel: DeviceChannel, far_end: FarEnd, tmp_path: Path
    ) -> None:
        """If this fails, a call returns though nobody took what it sends, and the runtime forgets
        it; or it raises another error than `UnavailableError` and `AccessDeniedError`.
        """
        self._start(channel, far_end)
        path, data = file_in(tmp_path)
        report, events = samples.report(sequence=5).encoded(), [samples.alarm(5)]
        self._soon(partial(channel.send_report, samples.report(sequence=4).encoded()))
        sends: list[Callable[[], None]] = [
            partial(channel.send_report, report),
            partial(channel.send_hot, events),
            partial(channel.upload, SEGMENT, path),
        ]
        far_end.cut()
        left = [send for send in sends if not self._is_taken(send)]
        assert path.exists()
        far_end.restore()
        for send in left:
            eventually(lambda one=send: self._is_taken(one), "sent", timeout_s=self.timeout_s)  # type: ignore[misc]
        self._reported(far_end, report)
        self._told(far_end, events)
        self._filed(far_end, SEGMENT, data)

    def test_a_pointer_comes_when_a_cut_link_is_back(
        self, channel: DeviceChannel, far_end: FarEnd
    ) -> None:
        """If this fails, a channel that has lost its link stays away, raises from `wait`, or has
        `pointer` raise another error than `UnavailableError` and `AccessDeniedError`.
        """
        self._start(channel, far_end)
        far_end.cut()
        for _ in range(3):
            assert self._held(channel) in (None, pointer(1))
            self._soon(lambda: channel.wait(0.05))
        channel.wake()
        assert self._soon(lambda: channel.wait(LONG_S))
        far_end.publish(pointer(2))
        far_end.restore()
        assert self._soon(partial(self._waited_for, channel, pointer(2)))

    def test_a_device_without_a_link_begins(
        self, far_end: FarEnd, connect: Callable[[], DeviceChannel]
    ) -> None:
        """If this fails, a device that starts offline has no channel, or never a link."""
        far_end.publish(pointer(1))
        far_end.cut()
        channel = self._soon(connect)
        try:
            self._held(channel)
            self._soon(channel.access)
            self._soon(lambda: channel.wait(0.01))
            far_end.restore()
            assert self._soon(partial(self._waited_for, channel, pointer(1)))
        finally:
            far_end.restore()
            channel.close()

    # ------------------------------------------------------------------------- access and addresses

    def test_access_that_holds_is_told(self, channel: DeviceChannel, far_end: FarEnd) -> None:
        """If this fails, a device that is let in says that it isn't, and fetches nothing."""
        self._start(channel, far_end)
        self._until(lambda: channel.access().state == "ok", "access that is ok")

    def test_a_strangers_address_is_left_to_the_runtime(
        self, channel: DeviceChannel, far_end: FarEnd
    ) -> None:
        """If this fails, the channel takes any address for its own, and shows its access there."""
        self._start(channel, far_end)
        assert channel.source(STRANGER) is None

    # ------------------------------------------------------------------------------------- the ends

    def test_an_option_that_it_does_not_know_is_refused(
        self, far_end: FarEnd, from_options: Callable[[Mapping[str, str]], DeviceChannel]
    ) -> None:
        """If this fails, a misspelt option is ignored, or the right ones are refused: also where
        the link is cut.
        """
        far_end.cut()
        try:
            self._soon(partial(from_options, {})).close()
            with pytest.raises(ConfigurationError):
                from_options({"no_such_option": "1"}).close()
        finally:
            far_end.restore()

    def test_closing_ends_a_wait(self, channel: DeviceChannel, far_end: FarEnd) -> None:
        """If this fails, who waits is left behind by `close`, which any thread may call."""
        self._start(channel, far_end)
        self._settle(channel)
        waiting = begun(lambda: channel.wait(LONG_S))
        self._soon(channel.close)
        self._result(waiting)

    def test_closing_twice_is_no_error(self, channel: DeviceChannel, far_end: FarEnd) -> None:
        """If this fails, `close` gives something back that it has given back before."""
        self._start(channel, far_end)
        self._soon(channel.close)
        self._soon(channel.close)

    def test_after_closing_nothing_is_left(
        self, far_end: FarEnd, connect: Callable[[], DeviceChannel], tmp_path: Path
    ) -> None:
        """If this fails, a thread goes on, or a connection stays open, after `close`."""
        far_end.publish(pointer(1))
        # A library may have threads for the process, which the first channel makes.
        self._live(connect, far_end, file_in(tmp_path)[0])
        started = Started()
        with started.watching():
            self._live(connect, far_end, file_in(tmp_path)[0])
            eventually(lambda: not started.left(), started.left, timeout_s=self.timeout_s)

    def _live(self, connect: Callable[[], DeviceChannel], far_end: FarEnd, file: Path) -> None:
        """Have a channel do all it can, and close it."""
        channel = connect()
        try:
            channel.serve(_unasked)
            self._start(channel, far_end)
            with suppress(EdgeFleetError):  # a device that only reads leaves nothing either
                channel.send_report(samples.report().encoded())
                channel.send_hot([samples.alarm(1)])
                channel.upload(SEGMENT, file)
        finally:
            channel.close()


def _unasked(request: object) -> object:
    raise UnavailableError(f"nobody asks: {request}")
