"""What a deployer must do whose devices join by themselves: an invitation is for one machine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from edgefleet.capabilities import require
from edgefleet.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    ConflictError,
    EdgeFleetError,
    InvalidInputError,
    NotFoundError,
)
from edgefleet.interfaces.abilities import CanEnroll
from edgefleet.interfaces.deployer import Deployer
from edgefleet.interfaces.inviting import CanInvite, Invitation
from edgefleet.testing.kit import samples
from edgefleet.testing.kit.devices import DeviceEnd
from edgefleet.testing.kit.gaps import Conformance
from edgefleet.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.protocol.report import Report

    Join = Callable[[Invitation], DeviceEnd]

CLOCKS_S = 300.0  # how far this machine's clock and the backend's may lie apart


class InvitingConformance(Conformance):
    """Fixtures: ``deployer``, one that `CanInvite`, and ``join``.

    Each test has devices of its own, so one deployer may serve all of them.
    """

    @pytest.fixture
    def deployer(self) -> Deployer:
        """A deployer that can invite."""
        return self.lacks("deployer", "a deployer that can invite")

    @pytest.fixture
    def join(self) -> Join:
        """Has a machine that nobody knows use an invitation; gives its end of the channel."""
        return self.lacks(
            "join",
            "called with an invitation: a machine that nobody knows yet uses it, and its end of "
            "the channel comes back; AccessDeniedError where it is refused",
        )

    @pytest.fixture
    def inviting(self, deployer: Deployer) -> CanInvite:
        """The same, as one that can."""
        return require(deployer, CanInvite)

    def test_an_invitation_makes_a_machine_the_device(
        self, deployer: Deployer, inviting: CanInvite, join: Join
    ) -> None:
        """If this fails, the pasted command makes no device, or another one."""
        invited = inviting.invite("new", group="line-3", labels={"site": "north"})
        assert (invited.device, invited.group) == ("new", "line-3")
        before = deployer.device("new")
        assert (before.group, before.labels["site"]) == ("line-3", "north")
        assert before.report is None
        assert before.connected is not True
        said = samples.report(samples.pointer(1))
        join(invited).send_report(said.encoded())
        assert _reported(deployer, "new") == said
        assert deployer.device("new").labels["site"] == "north"

    def test_labels_beyond_their_bounds_are_refused(
        self, deployer: Deployer, inviting: CanInvite
    ) -> None:
        """If this fails, your deployer overrides what `CanInvite` checks."""
        for labels in samples.UNUSABLE_LABELS:
            with pytest.raises(InvalidInputError):
                inviting.invite("wrong", group="line-3", labels=labels)
        with pytest.raises(NotFoundError):
            deployer.device("wrong")

    def test_an_invitation_ends_when_it_was_said_to(self, inviting: CanInvite) -> None:
        """If this fails, a command that was left lying about goes on working."""
        for lasts in (timedelta(minutes=1), timedelta(days=2)):
            left = inviting.invite("later", group="line-3", lasts=lasts).ends - datetime.now(UTC)
            assert abs(left - lasts) < timedelta(seconds=CLOCKS_S)

    def test_a_token_is_nobody_elses(self, inviting: CanInvite) -> None:
        """If this fails, who has seen one command can make up another."""
        made = [inviting.invite(f"guess-{number}", group="line-3") for number in range(3)]
        assert len({invited.token for invited in made}) == 3
        for invited in made:
            assert invited.token in invited.command
            assert len(invited.token) >= 20

    def test_an_invitation_is_for_one_machine(
        self, deployer: Deployer, inviting: CanInvite, join: Join
    ) -> None:
        """If this fails, whoever finds a used command becomes the device, or locks it out."""
        invited = inviting.invite("one", group="line-3")
        first = join(invited)
        with pytest.raises(AccessDeniedError):
            join(invited)
        said = samples.report(samples.pointer(1))
        first.send_report(said.encoded())
        assert _reported(deployer, "one") == said

    def test_a_newer_invitation_ends_the_one_before(
        self, deployer: Deployer, inviting: CanInvite, join: Join
    ) -> None:
        """If this fails, a command that went to the wrong person can't be taken back."""
        older = inviting.invite("twice", group="line-3")
        newer = inviting.invite("twice", group="line-3")
        with pytest.raises(AccessDeniedError):
            join(older)
        said = samples.report(samples.pointer(1))
        join(newer).send_report(said.encoded())
        assert _reported(deployer, "twice") == said

    def test_a_machine_in_anothers_place_has_to_be_meant(
        self, deployer: Deployer, inviting: CanInvite, join: Join
    ) -> None:
        """If this fails, two machines are one device, or one is put out by a slip."""
        old = join(inviting.invite("worn", group="line-3"))
        with pytest.raises(AlreadyExistsError):
            inviting.invite("worn", group="line-3")
        meant = inviting.invite("worn", group="line-3", replace=True)
        said = samples.report(samples.pointer(1), sequence=1)
        old.send_report(said.encoded())  # it goes on until the new one comes
        assert _reported(deployer, "worn") == said
        new = join(meant)
        assert _reported(deployer, "worn") is None, "what the old machine ran, the new one doesn't"
        _is_refused(old)
        fresh = samples.report(samples.pointer(1), sequence=2)
        new.send_report(fresh.encoded())
        assert _reported(deployer, "worn") == fresh

    def test_a_revoked_device_says_nothing_more_until_it_is_invited_again(
        self, deployer: Deployer, inviting: CanInvite, join: Join
    ) -> None:
        """If this fails, a stolen device goes on attesting, or a found one can't come back."""
        lost = join(inviting.invite("lost", group="line-3"))
        pending = inviting.invite("lost", group="line-3", replace=True)
        for _ in range(2):
            inviting.revoke("lost")
        _is_refused(lost)
        with pytest.raises(AccessDeniedError):
            join(pending)
        assert deployer.device("lost").group == "line-3"
        assert deployer.device("lost").connected is not True
        found = join(inviting.invite("lost", group="line-3", replace=True))
        said = samples.report(samples.pointer(1), sequence=9)
        found.send_report(said.encoded())
        assert _reported(deployer, "lost") == said
        _is_refused(lost)

    def test_a_retired_devices_invitation_makes_nothing(
        self, deployer: Deployer, inviting: CanInvite, join: Join
    ) -> None:
        """If this fails, who was let go comes back by a command in somebody's history."""
        invited = inviting.invite("gone", group="line-3")
        require(deployer, CanEnroll).retire("gone")
        with pytest.raises(AccessDeniedError):
            join(invited)
        with pytest.raises(NotFoundError):
            deployer.device("gone")

    def test_a_device_stays_in_its_group(self, deployer: Deployer, inviting: CanInvite) -> None:
        """If this fails, an invitation moves a device, and with it what it runs."""
        inviting.invite("settled", group="line-3")
        with pytest.raises(ConflictError):
            inviting.invite("settled", group="line-4")
        assert deployer.device("settled").group == "line-3"

    def test_nobody_unknown_is_revoked(self, inviting: CanInvite) -> None:
        """If this fails, a name that was mistyped leaves the stolen device in the fleet."""
        with pytest.raises(NotFoundError):
            inviting.revoke("never-seen")


def _reported(deployer: Deployer, device: str) -> Report | None:
    return deployer.device(device).report


def _is_refused(end: DeviceEnd) -> None:
    """Hold that a device's reports are refused, as soon as whoever takes them has heard of it."""
    said = samples.report(samples.pointer(1), sequence=5).encoded()

    def refused() -> bool:
        try:
            end.send_report(said)
        except EdgeFleetError:
            return True
        return False

    eventually(refused, "a refusal")
