"""What a channel is: how pointer and access reach a device, and where its reports and events go.

Rules for those who write one:

- Methods are called from three threads: the reconciler's, one that sends hot events and one that
  uploads. They may block for as long as a call to the vendor takes; none waits for another. `wake`
  and `close` may come from any thread.
- `upload` reads its file through `opened`, so that it takes no more of the link than it may.
- A channel carries bytes. It decides nothing: whether a pointer is acted upon is the reconciler's.
- The device's name is known to the other side from the channel's own authentication.
- Errors are those of `edgefleet.errors`. `UnavailableError` means later, `AccessDeniedError` means
  that somebody must renew something; neither loses what was to be sent. Nothing maps a vendor's
  errors here: whatever else is raised is logged as a defect, and tried again. `wait` raises none.

`edgefleet.testing.kit.device_channel` tries a channel against them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, BinaryIO, ClassVar, Self

from edgefleet_runtime.store.bandwidth import open_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from edgefleet.protocol.event import Event
    from edgefleet.protocol.gateway import RuntimeOffer
    from edgefleet.protocol.report import AccessReport
    from edgefleet_runtime.channels.requests import Reply, Request
    from edgefleet_runtime.store.sources import Source


class Channel(ABC):
    """One device's connection to whoever operates its fleet."""

    options: ClassVar[Mapping[str, str]] = {}
    """Options it understands, each with a line for people."""

    hot_max_bytes: int = 240 << 10
    """Most bytes of one message of hot events, as the vendor counts them."""

    hot_unit_bytes: int = 1
    """Bytes that the vendor bills as one, of a message of hot events."""

    hot_overhead_bytes: int = 256
    """Bytes of such a message that are no events: topic, properties, what stands around them."""

    opened: Callable[[Path], BinaryIO] = staticmethod(open_plain)
    """Opens a file to upload. The runtime sets it: each `read` comes when the fleet's policy allows
    it, and raises `CancelledError` when the upload may not go on."""

    on_offer: Callable[[], object] = staticmethod(lambda: None)
    """Called by any thread when another runtime may be offered than before, or none any more. The
    runtime sets it."""

    paced: bool = False
    """Whether `upload` sends nothing but what it reads through `opened` then. What others seem not
    to have read counts against the limit of the link, too."""

    @classmethod
    @abstractmethod
    def from_options(cls, options: Mapping[str, str], *, device: str) -> Self:
        """The channel as the command line asks for it.

        Raises:
            ConfigurationError: an option is missing, unknown or wrong. A device that is merely
                offline is no error.
        """

    @classmethod
    def own_device(cls) -> str | None:
        """The device's name, where the channel's surroundings tell it; None where they don't."""
        return None

    @classmethod
    def device_of(cls, options: Mapping[str, str]) -> str | None:
        """The device's name as these options lead to it; None where they don't."""
        del options
        return cls.own_device()

    @classmethod
    def fleet_of(cls, options: Mapping[str, str]) -> str | None:
        """UUID of the device's fleet as these options lead to it; None where they don't."""
        del options
        return None

    @abstractmethod
    def pointer(self) -> bytes | None:
        """The latest pointer as it came; None where there has been none, or it was taken away."""

    @abstractmethod
    def access(self) -> AccessReport:
        """Whether sources can be read and reports be written now."""

    @abstractmethod
    def wait(self, timeout_s: float) -> bool:
        """Wait until pointer or access may differ from what was last read.

        Returns:
            True at once when they may, or after `wake`; False after ``timeout_s`` seconds. With 0
            it only looks.
        """

    @abstractmethod
    def wake(self) -> None:
        """Make the `wait` in progress, or else the next one, return True."""

    @abstractmethod
    def send_report(self, report: bytes) -> None:
        """Replace this device's report."""

    @abstractmethod
    def send_hot(self, events: Sequence[Event]) -> None:
        """Deliver alarms and health events; all of them or, with an error, maybe some.

        Receivers drop repetitions by the events' ids.
        """

    @abstractmethod
    def upload(self, name: str, path: Path) -> None:
        """Deliver a segment, or a file of a sample (``samples/sha256/…``).

        Args:
            name: its path below the device's own prefix. The same name may come again with the
                same content.
            path: the file, which stays the caller's.
        """

    def addresses(self) -> tuple[str, ...]:
        """Addresses that this device has by itself, asked before those of a pointer."""
        return ()

    def source(self, address: str) -> Source | None:
        """A source for addresses that need this channel's access; None leaves it to the runtime."""
        del address
        return None

    def offered_runtime(self) -> RuntimeOffer | None:
        """The runtime that this device should be; None where none is offered.

        Raises:
            EdgeFleetError: the other side doesn't tell now.
        """
        return None

    def serve(self, ask: Callable[[Request], Reply]) -> None:
        """Carry operators' requests from now on, where this channel can: called once.

        Args:
            ask: asks the runtime's server; takes as long as that does.
        """
        del ask

    def delay_restarts(self, busy: Callable[[], bool]) -> None:
        """Let whoever restarts this process wait a little, where this channel can: called once.

        Args:
            busy: whether something is under way now that a restart would undo; may be called by
                any thread.
        """
        del busy

    @abstractmethod
    def close(self) -> None:
        """Disconnect: a `wait` in progress returns, threads and connections end.

        Twice is no error. What is under way at that moment fails with `UnavailableError`, or ends.
        """
