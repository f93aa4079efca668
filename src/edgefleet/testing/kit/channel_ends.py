"""Both ends of one device's channel, as its suite holds them, and what it watches them with."""

from __future__ import annotations

import gc
import io
import socket
import threading
import weakref
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar

from edgefleet.testing.kit.devices import DeviceEnd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from edgefleet.protocol.event import Event

T = TypeVar("T")

PIECE_BYTES = 4096


class DeviceChannel(DeviceEnd, Protocol):
    """The device's end, whole: what `edgefleet_runtime.channels.base.Channel` promises."""

    opened: Callable[[Path], BinaryIO]
    """Opens a file to upload."""

    hot_max_bytes: int
    """Most bytes of one message of hot events."""

    hot_overhead_bytes: int
    """Bytes of it that are no events."""

    def wait(self, timeout_s: float, /) -> bool:
        """Wait until pointer or access may differ from what was last read."""

    def wake(self) -> None:
        """Make the `wait` in progress, or else the next one, return True."""

    def source(self, address: str, /) -> object | None:
        """A source for addresses that need this channel's access."""

    def serve(self, ask: Callable[[Any], Any], /) -> None:
        """Carry operators' requests from now on."""

    def close(self) -> None:
        """Disconnect."""


class FarEnd(Protocol):
    """The operator's end of the same channel, and the link between them: what an author writes.

    What arrived may be looked at before it is there: the suite asks again.
    """

    def publish(self, pointer: bytes, /) -> None:
        """Put this document where the device's channel takes its pointer from, as it is."""

    def report(self) -> bytes | None:
        """The device's newest report that arrived; None before the first."""

    def events(self) -> Sequence[Event]:
        """Every hot event that arrived, repetitions too."""

    def file(self, name: str, /) -> bytes | None:
        """What arrived under that name of an upload; None where nothing whole did."""

    def cut(self) -> None:
        """Let nothing pass, in either direction, connections that are open included."""

    def restore(self) -> None:
        """Let everything pass again."""


def begun(work: Callable[[], T]) -> Future[T]:
    """Begin work in a thread that keeps no process from ending."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - told to whoever waits for it
            done.set_exception(error)

    threading.Thread(target=run, name="begun", daemon=True).start()
    return done


class Pieces(io.FileIO):
    """A file that is read in small pieces, as the runtime paces it.

    Args:
        path: the file.
        before: called before each piece with the number of bytes that were read so far.
    """

    def __init__(self, path: Path, before: Callable[[int], None]) -> None:
        super().__init__(path, "rb")
        self._before = before
        self.taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """At most `PIECE_BYTES`; empty at the end."""
        self._before(self.taken)
        asked = PIECE_BYTES if size is None or size < 0 else min(size, PIECE_BYTES)
        data = super().read(asked) or b""
        self.taken += len(data)
        return data


class Started:
    """Threads that a channel started, and sockets it opened, since this was made.

    Threads and connections of a server in the same process are none of a channel's: they descend
    from the server's thread, or lie at the port that it listens on. What other tests left in the
    process, and what that does meanwhile, isn't either.
    """

    def __init__(self) -> None:
        self._here = threading.current_thread()
        self._threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Notice who starts which thread, and opens which socket."""
        start, opened = threading.Thread.start, socket.socket.__init__

        def starting(thread: threading.Thread) -> None:
            if self._is_ours():
                self._threads.add(thread)
            start(thread)

        def opening(one: socket.socket, *given: object, **named: object) -> None:
            opened(one, *given, **named)  # type: ignore[arg-type]
            if self._is_ours():
                self._sockets.add(one)

        threading.Thread.start = starting  # type: ignore[method-assign,assignment]
        socket.socket.__init__ = opening  # type: ignore[method-assign,assignment]
        try:
            yield
        finally:
            threading.Thread.start = start  # type: ignore[method-assign]
            socket.socket.__init__ = opened  # type: ignore[method-assign]

    def left(self) -> list[str]:
        """What of it is still there, told by name; what nobody holds any more is not."""
        gc.collect()
        threads = [one.name for one in self._threads if one.is_alive()]
        found = [one for one in self._sockets if one.fileno() != -1]
        served = {_port(one) for one in found if _listens(one)}
        sockets = [one for one in found if _port(one) not in served]
        return [*(f"thread {name}" for name in threads), *(f"{one}" for one in sockets)]

    def _is_ours(self) -> bool:
        by = threading.current_thread()
        return by is self._here or by in self._threads


def _port(one: socket.socket) -> object:
    try:
        name = one.getsockname()
    except OSError:  # it was closed meanwhile
        return None
    return name[1] if isinstance(name, tuple) else name or id(one)


def _listens(one: socket.socket) -> bool:
    try:
        return bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False
