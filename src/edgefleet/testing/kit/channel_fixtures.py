"""What a device's channel is tried with: fixtures, and ways to wait for what comes."""

from __future__ import annotations

from concurrent.futures import TimeoutError as LateError
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, TypeVar

import msgspec
import pytest

from edgefleet.errors import AccessDeniedError, UnavailableError
from edgefleet.protocol.report import MAX_BYTES, read_report
from edgefleet.protocol.typed import decoder
from edgefleet.testing.kit import samples
from edgefleet.testing.kit.channel_ends import DeviceChannel, FarEnd, Pieces, begun
from edgefleet.testing.kit.gaps import Conformance
from edgefleet.testing.waiting import TIMEOUT_S, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from edgefleet.protocol.event import Event

T = TypeVar("T")

LONG_S = 3600.0  # a wait that only news or a wake ends
SIZE = 150_000  # bytes of a file: many pieces
SEGMENT = "segments/date=2026-11-21/model=digits/0001.ndjson.zst"
SAMPLE = f"samples/sha256/{'0a' * 32}"


class ChannelFixtures(Conformance):
    """Fixtures and helpers of `DeviceChannelConformance`.

    Attributes:
        timeout_s: seconds after which what should happen counts as missing.
    """

    timeout_s: ClassVar[float] = TIMEOUT_S

    @pytest.fixture
    def far_end(self) -> FarEnd:
        """The operator's end: no pointer was published, nothing arrived, and the link is up."""
        return self.lacks("far_end", "the operator's end of the channel, a FarEnd")

    @pytest.fixture
    def connect(self) -> Callable[[], DeviceChannel]:
        """Makes the device's channel, a new one each time; the suite closes it."""
        return self.lacks("connect", "a callable that makes the device's channel")

    @pytest.fixture
    def from_options(self) -> Callable[[Mapping[str, str]], DeviceChannel]:
        """Makes a channel from the options that it needs and those that it is given."""
        return self.lacks(
            "from_options", "a callable that gives the class's `from_options` more options"
        )

    @pytest.fixture
    def channel(
        self, far_end: FarEnd, connect: Callable[[], DeviceChannel]
    ) -> Iterator[DeviceChannel]:
        """The device's channel. ``far_end`` first: it is there when the channel connects."""
        made = connect()
        yield made
        far_end.restore()
        made.close()

    # -------------------------------------------------------------------------------------- helpers

    def _until(
        self,
        condition: Callable[[], T | None],
        what: str,
        *,
        ignoring: type[Exception] = UnavailableError,
    ) -> T:
        return eventually(condition, what, ignoring=ignoring, timeout_s=self.timeout_s)

    def _start(self, channel: DeviceChannel, far_end: FarEnd) -> None:
        """Have a pointer arrive and look at the access, as a runtime does before it sends."""
        far_end.publish(pointer(1))
        self._arrives(channel, pointer(1))
        channel.access()

    def _arrives(
        self,
        channel: DeviceChannel,
        pointer: bytes,
        *,
        ignoring: type[Exception] = UnavailableError,
    ) -> None:
        self._until(lambda: channel.pointer() == pointer, f"{pointer!r}", ignoring=ignoring)

    def _read(self, channel: DeviceChannel) -> bytes | None:
        """The first pointer that the channel gives instead of "later"."""
        found = self._until(lambda: (channel.pointer(),), "a look at the pointer")
        return found[0]

    def _held(self, channel: DeviceChannel) -> bytes | None:
        """What the pointer is while the link is cut; None where that can't be told."""
        try:
            return self._soon(channel.pointer)
        except (UnavailableError, AccessDeniedError):
            return None

    def _settle(self, channel: DeviceChannel) -> None:
        """Read until a wait finds nothing new."""

        def rests() -> bool:
            channel.pointer()
            channel.access()
            return not channel.wait(0)

        self._until(rests, "a channel without news")

    def _waited_for(self, channel: DeviceChannel, pointer: bytes) -> bool:
        """Read when the channel says so, and only then, until it is this pointer."""
        while channel.wait(LONG_S):
            if self._later(channel) == pointer:
                return True
        return False

    def _later(self, channel: DeviceChannel) -> bytes | None:
        try:
            return channel.pointer()
        except (UnavailableError, AccessDeniedError):
            return None

    def _is_taken(self, send: Callable[[], None]) -> bool:
        """Whether something was taken, and not refused until later."""
        try:
            self._soon(send)
        except (UnavailableError, AccessDeniedError):
            return False
        return True

    def _soon(self, work: Callable[[], T]) -> T:
        """Do what must not take long, in a thread of its own."""
        return self._result(begun(work))

    def _result(self, working: Future[T]) -> T:
        try:
            return working.result(self.timeout_s)
        except LateError:
            if working.done():  # its own
                raise
            raise AssertionError(f"still busy after {self.timeout_s:.0f} s") from None

    def _reported(self, far_end: FarEnd, report: bytes) -> None:
        wanted = read_report(report)

        def found() -> bool:
            data = far_end.report()
            return data is not None and read_report(data) == wanted

        eventually(found, far_end.report, timeout_s=self.timeout_s)

    def _told(self, far_end: FarEnd, sent: Sequence[Event]) -> None:
        def contents(events: Sequence[Event]) -> dict[str, object]:
            return {event.id: decoder(Any).decode(event.data) for event in events}

        wanted = contents(sent)
        eventually(
            lambda: contents(far_end.events()).items() >= wanted.items(),
            "all hot events",
            timeout_s=self.timeout_s,
        )

    def _filed(self, far_end: FarEnd, name: str, data: bytes) -> None:
        eventually(lambda: far_end.file(name) is not None, name, timeout_s=self.timeout_s)
        assert samples.Content.of(far_end.file(name) or b"") == samples.Content.of(data)


def pointer(number: int) -> bytes:
    """A pointer with that number, as it is published."""
    return samples.pointer(number).encoded()


def long_report() -> bytes:
    """A report that leaves hardly a byte free of what one may have."""
    report = samples.report(sequence=1)
    free = MAX_BYTES - len(report.encoded()) - 20
    return msgspec.structs.replace(report, labels={"arch": "x86_64", "note": "x" * free}).encoded()


def file_in(folder: Path) -> tuple[Path, bytes]:
    """A file to upload, and what is in it."""
    path, data = folder / "to-upload", samples.noise(SIZE, 7)
    path.write_bytes(data)
    return path, data


def paced(channel: DeviceChannel, before: Callable[[int], None]) -> list[Pieces]:
    """Have the channel read in pieces; returns the files that it opens."""
    files: list[Pieces] = []

    def opened(path: Path) -> BinaryIO:
        files.append(Pieces(path, before))
        return files[-1]

    channel.opened = opened
    return files
