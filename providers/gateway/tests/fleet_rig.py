"""A fleet behind real gateways: models, state and events in a folder, devices over TLS."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from edgefleet.fleet import Fleet
from edgefleet.identity import fleet_id
from edgefleet.policy_files import policy_of
from edgefleet.profile import Profile
from edgefleet.protocol.gateway import Identity
from edgefleet.testing.mock import FAST_TELEMETRY
from edgefleet.testing.waiting import eventually
from edgefleet_gateway.authority import Authority, open_authority
from edgefleet_gateway.certificates import key_asked_for
from edgefleet_gateway.deployer import GatewayDeployer
from edgefleet_gateway.mock import GatewayMock
from edgefleet_gateway.records import DeviceRecord, Keys
from edgefleet_gateway.roster import Roster
from edgefleet_runtime.channels.pull.channel import PullChannel
from edgefleet_runtime.channels.pull.enrolling import Trust, enroll
from edgefleet_runtime.channels.pull.identity import IdentityFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edgefleet.interfaces.inviting import Invitation
    from edgefleet.protocol.event import Event
    from edgefleet.protocol.report import AccessReport
    from edgefleet_runtime.channels.base import Channel

LONG_AGO = timedelta(days=1500)  # that its authority was made, so that certificates may have ended
KEYS = Keys("edgefleet")


class FleetRig:
    """Gateways, an operator, and machines.

    Args:
        folder: for everything.
        gateways: how many.
    """

    def __init__(self, folder: Path, *, gateways: int = 1) -> None:
        self._folder = folder
        self.cloud = GatewayMock(folder / "cloud", gateways=gateways)
        self.cloud.state.mkdir(parents=True)
        self.cloud.start()
        self.profile = Profile(
            name="test",
            base=folder,
            registry="local",
            trainer="local",
            telemetry="local",
            state="local",
            deployers=("gateway",),
            recorded=policy_of(FAST_TELEMETRY, "the mock"),
            settings={"local": {"root": ".", "supervise": False}, "gateway": self.cloud.settings},
        )
        self.fleet = Fleet(self.profile)
        self._authority = self._old_authority()
        self._ends: dict[str, Channel] = {}
        self.cloud.serve(self.profile)
        eventually(
            lambda: list(self.fleet.state.keys(KEYS.seen_all)), "a gateway says that it runs"
        )

    def close(self) -> None:
        """End everything."""
        for channel in self._ends.values():
            channel.close()
        self.cloud.stop()
        self.fleet.close()

    @property
    def deployer(self) -> GatewayDeployer:
        """The operator's."""
        found = self.fleet.deployers["gateway"]
        assert isinstance(found, GatewayDeployer)
        return found

    @property
    def fleet_id(self) -> str:
        """UUID of the fleet."""
        return fleet_id(self.fleet.state, seen=tuple)

    def end(self, name: str) -> DeviceEnd:
        """A device's end of the channel; it has joined when this is asked for the first time."""
        if name not in self._ends:
            invited = self.deployer.invite(name, group=self.deployer.device(name).group)
            self._ends[name] = self._joined(invited, self.identity(name))
        return DeviceEnd(self.deployer, name, self._ends[name])

    def join(self, invited: Invitation) -> DeviceEnd:
        """Have a machine that nobody knows use an invitation; its end of the channel."""
        number = len(self._ends)
        channel = self._joined(invited, self.identity(f"machine-{number}"))
        self._ends[f"machine-{number}"] = channel
        return DeviceEnd(self.deployer, invited.device, channel)

    def identity(self, name: str) -> Path:
        """Folder with the identity of a device that the kit plays."""
        return self._folder / "ends" / name

    def _joined(self, invited: Invitation, folder: Path) -> Channel:
        gateway = self.cloud.settings["addresses"][0]
        enroll(gateway, folder, invited.token, trust=Trust(self.cloud.pins(), None))
        return PullChannel.from_options({"identity": str(folder)}, device=invited.device)

    def expire(self, name: str) -> Callable[[], None]:
        """Have a device's certificate be one that ended too long ago to renew it."""
        self.age(name, ended=timedelta(days=1000))

        def renew() -> None:
            self.cloud.join(name, group=self.deployer.device(name).group)

        return renew

    def age(self, name: str, *, ended: timedelta) -> str:
        """Have a device's certificate be one that ended a while ago; its serial number."""
        files = IdentityFolder(self.cloud.machine(name).identity)
        key = key_asked_for(files.request())
        issued = self._authority.issue(name, key, lasts=LONG_AGO - ended)
        kept = files.kept()
        assert kept is not None
        roster = Roster(lambda: self.fleet.state, KEYS)

        def change(there: DeviceRecord) -> DeviceRecord:
            return msgspec.structs.replace(there, certificates=(issued.certificate,))

        roster.change(name, change)
        roster.ring(f"device/{name}")
        said = {field: getattr(kept, field) for field in Identity.__struct_fields__}
        files.take(Identity(**{**said, "certificate": issued.pem}))
        return issued.certificate.serial

    def _old_authority(self) -> Authority:
        return open_authority(
            self.cloud.state / "authority",
            state=self.fleet.state,
            keys=KEYS,
            fleet=fleet_id(self.fleet.state, seen=tuple),
            clock=lambda: datetime.now(UTC) - LONG_AGO,
        )


class DeviceEnd:
    """A device's channel, which the kit asks for what the operator did a moment ago."""

    def __init__(self, deployer: GatewayDeployer, name: str, channel: Channel) -> None:
        self._deployer, self._name, self.channel = deployer, name, channel

    def pointer(self) -> bytes | None:
        """What its gateway gave, once that is what the operator published last."""
        published = self._deployer.pointer(self._deployer.device(self._name).group)
        wanted = None if published is None else published.encoded()
        self.channel.pointer()  # polls from now on
        eventually(lambda: self.channel.access().state == "ok", "a poll")
        eventually(lambda: self.channel.pointer() == wanted, "the pointer of now")
        return self.channel.pointer()

    def access(self) -> AccessReport:
        self.channel.pointer()
        eventually(lambda: self.channel.access().state != "unknown", "a poll")
        return self.channel.access()

    def send_report(self, report: bytes) -> None:
        self.channel.send_report(report)

    def send_hot(self, events: Sequence[Event]) -> None:
        self.channel.send_hot(events)

    def upload(self, name: str, path: Path) -> None:
        self.channel.upload(name, path)
