"""A deployment as the user holds it: a live table, and what can still be done about it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from edgefleet.errors import DeploymentFailedError, InvalidInputError, WaitTimeoutError
from edgefleet.interfaces.progress import Status
from edgefleet.rollout.judgement import GroupStatus, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

POLL_S = 0.2  # seconds between looks; never more often than the channel's own freshness asks for


class Deployment:
    """What `Fleet.deploy` and its kin return, at once. Its repr reads the group's status anew.

    Attributes:
        group: ``deployer/name``.
        number: of the pointer that carries it.
        release: digest of the release it brings.
        action: ``deploy``, ``remove``, ``rollback``, ``canary``, …
    """

    def __init__(
        self,
        status: Callable[[str], GroupStatus],
        *,
        promote: Callable[[str], Deployment],
        cancel: Callable[[str], Deployment],
        group: str,
        pair: tuple[int, int],
        release: str,
        action: str,
    ) -> None:
        self._status, self._promote, self._cancel = status, promote, cancel
        self.group = group
        self.epoch, self.number = pair
        self.release = release
        self.action = action

    def __repr__(self) -> str:
        return f"{self.action} #{self.number}\n{self.status()}"

    def _repr_html_(self) -> str:
        return self.status()._repr_html_()

    def facts(self) -> dict[str, Any]:
        """The deployment as JSON-ready data, its status included."""
        return {
            "action": self.action,
            "group": self.group,
            "epoch": self.epoch,
            "number": self.number,
            "release": self.release,
            "status": self.status().facts(),
        }

    def status(self) -> GroupStatus:
        """The group now, against its newest pointer: which may be a later deployment's."""
        return self._status(self.group)

    def wait(
        self,
        *,
        min_attested: float = 1.0,
        timeout_s: float | None = 600.0,
        progress: bool = True,
        poll_s: float = POLL_S,
    ) -> GroupStatus:
        """Wait until enough devices attest it. Offline devices don't hang a notebook.

        While a cohort tries a release, all devices are judged, each by what its pointer gives it.

        Args:
            min_attested: share of the group's devices that must attest, 0 to 1.
            timeout_s: give up waiting after so many seconds; the deployment goes on.
            progress: show the counts where a person looks.
            poll_s: seconds between looks.

        Returns:
            The status that satisfied it. A group without devices satisfies it at once.

        Raises:
            DeploymentFailedError: so many devices rejected it that the share can't be reached.
            WaitTimeoutError: it took longer; the message lists who is pending and why.
        """
        if not 0 <= min_attested <= 1:
            msg = f"min_attested is a share from 0 to 1, not {min_attested}"
            raise InvalidInputError(msg)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with Status(f"{self.group} #{self.number}", enabled=progress) as line:
            while True:
                status = self.status()
                line.update(status.headline)
                total = len(status.devices)
                if status.attested >= min_attested * total:
                    return status
                if total - status.failed < min_attested * total:
                    raise DeploymentFailedError(
                        f"{status.headline}\n{_reasons(status, Outcome.FAILED)}",
                        cure="they kept what they ran; mend the model, or fleet.rollback()",
                        operation="deployment.wait",
                    )
                if deadline is not None and time.monotonic() >= deadline:
                    raise WaitTimeoutError(
                        f"{status.headline} after {timeout_s} s\n"
                        f"{_reasons(status, Outcome.PENDING)}",
                        cure="the rest converges when it can; look again with fleet.status()",
                        operation="deployment.wait",
                    )
                time.sleep(poll_s)

    def promote(self) -> Deployment:
        """Give the candidate that a cohort tries to every device."""
        return self._promote(self.group)

    def cancel(self) -> Deployment:
        """Take it back: the candidate from its cohort, or else the release from the group."""
        return self._cancel(self.group)


def _reasons(status: GroupStatus, outcome: Outcome, limit: int = 8) -> str:
    found = [f"  {d.device}: {d.why}" for d in status.devices if d.outcome is outcome]
    rest = len(found) - limit
    return "\n".join(found[:limit] + ([f"  … and {rest} more"] if rest > 0 else []))
