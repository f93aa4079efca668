"""What a deployer must do: bring pointers to devices, and their own words back."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from edgefleet.errors import ConflictError, EdgeFleetError, InvalidInputError, NotFoundError
from edgefleet.interfaces.abilities import CanEnroll, CanInvoke, CanRemoveGroups
from edgefleet.interfaces.deployer import Deployer
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.pointer import read_pointer
from edgefleet.protocol.report import AccessReport
from edgefleet.testing.kit import samples
from edgefleet.testing.kit.deliveries import DeliveryRules
from edgefleet.testing.kit.devices import AddDevice, DeviceEnd

if TYPE_CHECKING:
    from collections.abc import Callable

CLOCKS_S = 300.0  # how far this machine's clock and the cloud's may lie apart


class DeployerConformance(DeliveryRules):
    """Fixtures: ``deployer`` without groups, ``device_end``, ``foreign``, ``forge_report``,
    ``expire_access``; and ``add_device`` where the deployer lacks `CanEnroll`.
    """

    @pytest.fixture
    def forge_report(self) -> Callable[[str, str, bytes], None]:
        """Tries, with one device's access, to make a report appear as another's.

        Where that is refused it raises an EdgeFleetError or an OSError.
        """
        return self.lacks(
            "forge_report",
            "called as (by, victim, report): tries with the access of `by` alone to make the "
            "report appear as the victim's; where it is refused it raises an EdgeFleetError or an "
            "OSError",
        )

    @pytest.fixture
    def expire_access(self) -> Callable[[str], Callable[[], None]]:
        """Lets run out what a device reads with, while its reports still come; the result
        renews it.
        """
        return self.lacks(
            "expire_access",
            "called with a device's name: what it reads with runs out, while its reports still "
            "come; gives a callable that renews it",
        )

    # Reports

    def test_a_device_that_never_reported_is_shown_as_that(
        self, deployer: Deployer, add_device: AddDevice
    ) -> None:
        """If this fails, a device is made up from what the cloud believes of it."""
        add_device("a", group="line-3")
        device = deployer.device("a")
        assert device.report is None
        assert device.connected is not True

    def test_a_report_is_read_back_as_the_device_wrote_it(
        self,
        deployer: Deployer,
        add_device: AddDevice,
        device_end: Callable[[str], DeviceEnd],
    ) -> None:
        """If this fails, a field of the report is lost, or an older report shows."""
        add_device("a", group="line-3")
        add_device("b", group="line-3")
        for sequence in (1, 2):
            sent = samples.report(samples.pointer(3), sequence=sequence)
            device_end("a").send_report(sent.encoded())
            device = deployer.device("a")
            assert device.report == sent
            assert device.last_seen is not None
            off = abs(datetime.now(UTC) - device.last_seen)
            assert off < timedelta(seconds=CLOCKS_S)
        assert deployer.device("b").report is None

    def test_a_device_cannot_report_as_another(
        self,
        deployer: Deployer,
        add_device: AddDevice,
        device_end: Callable[[str], DeviceEnd],
        forge_report: Callable[[str, str, bytes], None],
    ) -> None:
        """If this fails, one stolen device can attest for a whole fleet."""
        add_device("thief", group="line-3")
        add_device("victim", group="line-3")
        honest = samples.report(samples.pointer(1), sequence=1)
        device_end("victim").send_report(honest.encoded())
        forged = samples.report(samples.pointer(9), sequence=99)
        with suppress(EdgeFleetError, OSError):
            forge_report("thief", "victim", forged.encoded())
        assert deployer.device("victim").report == honest
        assert [device.name for device in deployer.devices()] == ["thief", "victim"]

    @pytest.mark.parametrize(
        "said", [b"", b"not json", b"{}", b"[" * 5000, b'{"version":1,"requires":["future"]}']
    )
    def test_a_report_that_makes_no_sense_harms_nobody(
        self,
        deployer: Deployer,
        add_device: AddDevice,
        device_end: Callable[[str], DeviceEnd],
        said: bytes,
    ) -> None:
        """If this fails, one broken device hides the whole group from its operator."""
        add_device("broken", group="line-3")
        add_device("fine", group="line-3")
        fine = samples.report(samples.pointer(1))
        device_end("fine").send_report(fine.encoded())
        with suppress(EdgeFleetError):
            device_end("broken").send_report(said)
        assert {d.name: d.report for d in deployer.devices()} == {"broken": None, "fine": fine}

    def test_expired_access_is_told_and_can_be_renewed(
        self,
        deployer: Deployer,
        add_device: AddDevice,
        device_end: Callable[[str], DeviceEnd],
        expire_access: Callable[[str], Callable[[], None]],
    ) -> None:
        """If this fails, a device whose credentials ran out is silent, or needs a new release, or
        somebody at the device, to come back.
        """
        add_device("a", group="line-3")
        deployer.publish("line-3", samples.pointer(1))
        renew = expire_access("a")
        assert device_end("a").access().state == "expired"
        refused = AccessReport(state="expired", detail="token of yesterday")
        waiting = samples.report(samples.pointer(1), access=refused)
        device_end("a").send_report(waiting.encoded())
        seen = deployer.device("a").report
        assert seen is not None
        assert seen.access == refused
        deployer.publish("line-3", samples.pointer(2, current=digest_of(b"newer")))
        renew()
        assert device_end("a").access().state != "expired"
        arrived = device_end("a").pointer()
        assert arrived is not None
        assert read_pointer(arrived).number == 2

    # Devices

    @pytest.mark.parametrize("name", ["nobody", "cam.07", "Cam_07", "c" * 128])
    def test_a_device_of_another_kind_is_none_of_these(self, deployer: Deployer, name: str) -> None:
        """If this fails, a name that this backend can't give keeps a fleet of several kinds from
        finding the device that has it, and from enrolling it.
        """
        with pytest.raises(NotFoundError):
            deployer.device(name)

    # Optional operations: whether there are any is the deployer's type

    def test_a_device_is_in_one_group(self, deployer: Deployer) -> None:
        """If this fails, a device gets two pointers, and which one wins is chance."""
        enroller = _with_enrolment(deployer)
        first = enroller.enroll("a", group="line-3", labels={"site": "x"})
        assert enroller.enroll("a", group="line-3", labels={"site": "x"}) == first
        with pytest.raises(ConflictError, match=r"'a'.*'line-3'"):
            enroller.enroll("a", group="line-4")
        assert deployer.device("a").group == "line-3"
        assert [device.name for device in deployer.devices()] == ["a"]

    def test_labels_beyond_their_bounds_are_refused(self, deployer: Deployer) -> None:
        """If this fails, your deployer overrides what `CanEnroll` checks, or enrols before it."""
        enroller = _with_enrolment(deployer)
        for labels in samples.UNUSABLE_LABELS:
            with pytest.raises(InvalidInputError):
                enroller.enroll("a", group="line-3", labels=labels)
        assert [device.name for device in deployer.devices()] == []

    def test_a_retired_device_is_gone_and_can_move(self, deployer: Deployer) -> None:
        """If this fails, retiring leaves the device's record, or its old report, behind."""
        enroller = _with_enrolment(deployer)
        enroller.enroll("a", group="line-3")
        enroller.retire("a")
        enroller.retire("a")
        assert list(deployer.devices()) == []
        with pytest.raises(NotFoundError):
            deployer.device("a")
        assert enroller.enroll("a", group="line-4").group == "line-4"

    def test_a_group_is_removed_only_without_devices(self, deployer: Deployer) -> None:
        """If this fails, a mistyped group stays for good, or devices are left without one."""
        enroller = _with_enrolment(deployer)
        if not isinstance(deployer, CanRemoveGroups):
            pytest.skip("groups of this deployer aren't removed from here")
        for name, group in (("a", "line-3"), ("b", "lin-3")):
            enroller.enroll(name, group=group)
            deployer.publish(group, samples.pointer(1))
        with pytest.raises(ConflictError, match="'lin-3' has devices: b"):
            deployer.remove_group("lin-3")
        enroller.retire("b")
        deployer.remove_group("lin-3")
        assert [group.name for group in deployer.groups()] == ["line-3"]
        with pytest.raises(NotFoundError):
            deployer.group("lin-3")
        assert deployer.pointer("line-3") == samples.pointer(1)

        enroller.enroll("b", group="lin-3")  # begins anew
        assert deployer.pointer("lin-3") is None
        deployer.publish("lin-3", samples.pointer(2))
        assert deployer.pointer("lin-3") == samples.pointer(2)

    def test_a_device_that_does_not_answer_is_unavailable(
        self, deployer: Deployer, add_device: AddDevice
    ) -> None:
        """If this fails, a request to a silent device hangs, or its error isn't mapped."""
        if not isinstance(deployer, CanInvoke):
            pytest.skip("this deployer can't carry requests to devices")
        add_device("a", group="line-3")
        with pytest.raises(ConnectionError):
            deployer.invoke("a", "/v2/health/ready", timeout_s=0.5)
        with pytest.raises(NotFoundError):
            deployer.invoke("nobody", "/v2/health/ready", timeout_s=0.5)

    def test_closing_twice_is_no_error(self, deployer: Deployer) -> None:
        """If this fails, `close` gives something back that it has given back before."""
        deployer.close()
        deployer.close()


def _with_enrolment(deployer: Deployer) -> CanEnroll:
    if not isinstance(deployer, CanEnroll):
        pytest.skip("devices of this deployer are enrolled elsewhere")
    return deployer
