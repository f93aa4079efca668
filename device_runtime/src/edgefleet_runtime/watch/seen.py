"""What the watch looks at: one request with its inputs and outputs, or one reading."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from edgefleet.protocol.event import OutputSummary, Reading
    from edgefleet.protocol.release import Release
    from edgefleet_runtime.serve.table import ServedModel

    Arrays = Mapping[str, NDArray[Any]]


class Seen(NamedTuple):
    """One answered request.

    Attributes:
        model: its name.
        version: the registry's version.
        bundle: digest of the bundle.
        variant: name of the variant that ran.
        inputs: nobody else's to write to; empty where nobody who watches wants them.
        outputs: likewise.
        answers: the outputs in short.
        run_us: run time in microseconds.
        time: seconds since 1970, by the device's clock.
        at: monotonic seconds.
        disagrees: whether a shadow model answered otherwise; None where none has.
        sampled: whether it is of the share that drift looks at.
        drifted: names of the model's features that have moved.
    """

    model: str
    version: str
    bundle: str
    variant: str
    inputs: Arrays
    outputs: Arrays
    answers: tuple[OutputSummary, ...]
    run_us: float
    time: float
    at: float
    disagrees: bool | None = None
    sampled: bool = True
    drifted: tuple[str, ...] = ()


class Heard(NamedTuple):
    """One reading; times as of `Seen`."""

    reading: Reading
    time: float
    at: float


class Taken(NamedTuple):
    """A request as the tap took it; `Seen` is made of it by whoever looks first."""

    served: ServedModel
    inputs: Arrays
    outputs: Arrays
    run_us: float
    time: float
    at: float
    sampled: bool
    disagrees: bool | None

    def seen(self) -> Seen:
        """What is looked at, without answers."""
        served = self.served
        return Seen(
            model=served.name,
            version=served.version,
            bundle=served.bundle,
            variant=served.variant,
            inputs=self.inputs,
            outputs=self.outputs,
            answers=(),
            run_us=self.run_us,
            time=self.time,
            at=self.at,
            disagrees=self.disagrees,
            sampled=self.sampled,
        )


class Followed(NamedTuple):
    """A release whose policy counts for what comes behind it."""

    release: Release


class Began(NamedTuple):
    """An alarm has begun: at the request behind this, where a request raised it.

    Attributes:
        rule: its name.
        model: whose request raised it; None for a reading, and for what a shadow has answered.
        at: monotonic seconds.
    """

    rule: str
    model: str | None
    at: float


class Watcher(Protocol):
    """A part of the watch: called in the watch's one thread, and may raise nothing."""

    def follow(self, release: Release) -> None:
        """Go by this release's policy from now on."""

    def see(self, seen: Seen) -> None:
        """Look at a request."""

    def hear(self, heard: Heard) -> None:
        """Look at a reading."""

    def turn(self, at: float, time: float) -> None:
        """Do what is due by the clock, at least once in half a second."""

    def close(self) -> None:
        """Nothing more comes: hand over what has gathered."""


@runtime_checkable
class SeesCompared(Protocol):
    """A part that also wants to know what became of a request at a shadow model."""

    def see_compared(self, seen: Seen) -> None:
        """Look at a request that a shadow has answered, too: ``disagrees`` says how.

        `Watcher.see` has looked at it before, without knowing that, unless it was let go.
        """


@runtime_checkable
class SeesAlarms(Protocol):
    """A part that also wants to know which alarms begin."""

    def began(self, alarm: str, model: str | None, at: float) -> None:
        """An alarm of this rule has begun, at a request of that model if there is one."""


@runtime_checkable
class GoesOn(Protocol):
    """A part that has work to do which can wait: it is done in small pieces between requests."""

    def go_on(self) -> bool:
        """Do a piece of some milliseconds; whether more is left."""
