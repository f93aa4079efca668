"""Something that a backend runs until it ends, as the user holds it: by its id, to be waited for.

`Run` is the base of a training run, an automation and a compilation. It keeps what they share:

- A run is cheap to make and holds nothing of what the backend knows; every look asks the backend.
- Waiting is bounded only by who asks for it; giving up leaves the run alone, Ctrl-C cancels it.
- A run that ended badly is an error from `wait`, never a status that somebody must look at.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import ClassVar, Generic, Protocol, Self, TypeVar, final

from edgefleet.errors import CancelledError, TrainingFailedError, WaitTimeoutError
from edgefleet.interfaces.progress import Status
from edgefleet.interfaces.training import RunState

POLL_S = 0.2  # seconds between looks at a run that is being waited for


class Ending(Protocol):
    """The slice of a status by which a run is waited for and shown."""

    @property
    def state(self) -> RunState: ...
    @property
    def reason(self) -> str | None: ...
    def _repr_html_(self) -> str: ...


S = TypeVar("S", bound=Ending)


class Run(ABC, Generic[S]):
    """A run of some kind, with statuses of the type ``S``.

    Attributes:
        id: by which its backend knows it.
    """

    kind: ClassVar[str]
    """What a person calls it, in its repr, while it is waited for, and in errors."""

    def __init__(self, run_id: str, *, provider: str) -> None:
        self.id = run_id
        self._provider = provider

    def __repr__(self) -> str:
        return f"<{self._named}: {self.status.state.value}>"

    def _repr_html_(self) -> str:
        return self.status._repr_html_()

    @property
    def _named(self) -> str:
        return f"{self.kind} {self.id}"

    @final
    @property
    def status(self) -> S:
        """How far it is now.

        Raises:
            NotFoundError: the backend has forgotten it.
        """
        return self._look()

    @final
    def cancel(self) -> None:
        """End it and whatever it started; no error when it has ended."""
        self._cancel()

    @final
    def wait(
        self, *, timeout_s: float | None = None, progress: bool = True, poll_s: float = POLL_S
    ) -> Self:
        """Wait until it has ended well. Ctrl-C cancels it.

        Args:
            timeout_s: give up waiting after so many seconds; it goes on. None for never.
            progress: show how far it is where a person looks.
            poll_s: seconds between looks.

        Raises:
            TrainingFailedError: it failed; with what it or its backend says of the reason.
            CancelledError: somebody cancelled it.
            WaitTimeoutError: it took longer.
        """
        status = self._end(timeout_s=timeout_s, progress=progress, poll_s=poll_s)
        if status.state is RunState.SUCCEEDED:
            return self
        if status.state is RunState.CANCELLED:
            raise CancelledError(
                f"{self._named} was cancelled", provider=self._provider, operation="trainer.wait"
            )
        failure = self._failure(status, status.reason or "no reason given")
        failure.located(provider=self._provider, operation="trainer.wait")
        raise failure

    def _end(self, *, timeout_s: float | None, progress: bool, poll_s: float) -> S:
        """The status with which it ended."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with Status(self._named, enabled=progress) as line:
            try:
                while not (status := self._look()).state.ended:
                    if line.shown:  # telling may cost calls
                        line.update(f"{self._named}: {self._tell(status)}")
                    if deadline is not None and time.monotonic() >= deadline:
                        msg = f"{self._named} is still {status.state.value} after {timeout_s} s"
                        cure = "wait again, or cancel it with its cancel()"
                        raise WaitTimeoutError(msg, cure=cure)
                    time.sleep(poll_s)
            except KeyboardInterrupt:
                self._cancel()
                raise
        return status

    @abstractmethod
    def _look(self) -> S: ...

    @abstractmethod
    def _cancel(self) -> None: ...

    def _tell(self, status: S) -> str:
        """What is shown of a status while it is waited for; may cost calls."""
        return status.state.value

    @abstractmethod
    def _failure(self, status: S, reason: str) -> TrainingFailedError:
        """What `wait` raises of a run that failed, with its cure."""
