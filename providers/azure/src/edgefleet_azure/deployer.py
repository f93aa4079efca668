"""The deployer: pointers in layered deployments of IoT Hub, reports from module twins.

How pointers get into layers is `layers`' affair. A device's name is its identity's: what it says,
it says in its own module's twin, which IoT Hub holds it to. A listing is what IoT Hub's queries
know, minutes old at worst; a device asked for by name is read from its twins.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgefleet.errors import (
    LimitExceededError,
    NotFoundError,
    UnavailableError,
)
from edgefleet.interfaces.abilities import CanEnroll, CanInvoke, CanPace, Reply
from edgefleet.interfaces.deployer import Deployer, Limits
from edgefleet.interfaces.policy import PolicyLimits
from edgefleet.interfaces.requests import reply_of, request_of
from edgefleet.interfaces.values import DeviceInfo, Group
from edgefleet_azure.errors import code_of, status_of
from edgefleet_azure.groups import GROUPS, DeviceGroups
from edgefleet_azure.hubs import Hubs, one_of, select
from edgefleet_azure.install import InstallsAzure
from edgefleet_azure.layers import GroupLayers
from edgefleet_azure.manifests import MODULE, OF_MODULE, UPLOAD
from edgefleet_azure.reading import Agent, Said, read_agent, read_module
from edgefleet_azure.twins import check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from edgefleet.interfaces.policy import RolloutPolicy, RolloutProgress
    from edgefleet.interfaces.state import StateStore
    from edgefleet.interfaces.values import Rendered
    from edgefleet.protocol.pointer import Pointer
    from edgefleet_azure.clients import Clients
    from edgefleet_azure.groups import Member
    from edgefleet_azure.hubs import Hub
    from edgefleet_azure.manifests import Grant
    from edgefleet_azure.settings import AzureSettings

MAX_REQUEST = 128 << 10  # bytes of a direct method's payload, both ways
FRESHNESS_S = 300.0
"""IoT Hub evaluates deployments and indexes twins for queries within minutes."""
METHOD_S = (5, 300)  # how long a direct method may take, in seconds
_UNREACHABLE = {"DeviceNotOnline", "GatewayTimeout"}


class Grants(Protocol):
    """What gives devices their access."""

    def current(self, group: str) -> Grant | None:
        """What a group's devices read blobs with; None where they need no word of ours."""

    def upload(self, device: str) -> Mapping[str, Any] | None:
        """Where a device writes, and with what; None where it needs no word of ours."""


class IotEdgeDeployer(CanEnroll, CanInvoke, CanPace, InstallsAzure, Deployer):
    """Devices with Azure IoT Edge.

    Args:
        clients: to reach Azure with; closed with the deployer.
        settings: hubs, prefix, image of the runtime.
        name: of this deployer in the profile.
        state: gives the profile's state store.
        grants: what gives devices their access; None where they need none.
        base: folder that relative paths in settings start from.
    """

    def __init__(
        self,
        clients: Clients,
        settings: AzureSettings,
        *,
        name: str = "azure",
        state: Callable[[], StateStore],
        grants: Grants | None = None,
        base: Path = Path(),
    ) -> None:
        settings.needed("hubs", "the deployer")
        self.name = name
        self._clients = clients
        self._settings = settings
        self._base = base
        self._grants = grants
        self._hubs = Hubs(clients, settings.hubs)
        self._members = DeviceGroups(self._hubs, settings.prefix)
        self.layers = GroupLayers(settings, self._members, state, deployer=name, grants=grants)
        """The groups' pointers, for who renews the access that travels with them."""

    @property
    def limits(self) -> Limits:
        """About 49 groups a hub: one base deployment, and two layers a group."""
        return Limits(groups=GROUPS * len(self._hubs), freshness_s=FRESHNESS_S)

    def hub(self, host: str) -> Hub:
        """One of the fleet's hubs."""
        return self._hubs[host]

    # Groups and devices

    def _groups(self) -> Iterator[Group]:
        for name, hubs in self._members.counts().items():
            yield Group(name=name, deployer=self.name, devices=sum(hubs.values()))

    def _group(self, name: str) -> Group | None:
        return Group(name=name, deployer=self.name) if self._members.has(name) else None

    def _devices(self, group: str | None) -> Iterator[DeviceInfo]:
        found = []
        for hub, members in self._members.devices(group):
            said = _said(hub, members)
            found += [(one, said.get(one.device, Said())) for one in members]
        for member, said_by in sorted(found, key=lambda pair: pair[0].device):
            yield _info(member, said_by, said_by.evidence(listed=True), None)

    def _device(self, name: str) -> DeviceInfo | None:
        found = self._members.find(name)
        if found is None:
            return None
        hub, member = found
        said = read_module(hub.twin(name, MODULE))
        agent = read_agent(hub.twin(name, "$edgeAgent"))
        return _info(member, said, {**agent.evidence, **said.evidence(listed=False)}, agent)

    def _label(self, device: str, labels: Mapping[str, str | None]) -> None:
        self._members.label(device, labels)

    # Pointers

    def _pointer(self, group: str) -> Pointer | None:
        return self.layers.read(group)

    def _render(self, group: str, pointer: Pointer) -> Iterator[Rendered]:
        return self.layers.render(group, pointer)

    def _publish(self, group: str, pointer: Pointer) -> None:
        self.layers.publish(group, pointer)

    # Rollouts

    @property
    def policy_limits(self) -> PolicyLimits:
        """Nothing: IoT Hub gives a deployment to every device that it targets, at once."""
        return PolicyLimits()

    def _progress(self, group: str) -> RolloutProgress | None:
        return self.layers.progress(group)

    def _publish_paced(self, group: str, pointer: Pointer, policy: RolloutPolicy) -> None:
        self.layers.publish(group, pointer)

    def _render_paced(
        self, group: str, pointer: Pointer, policy: RolloutPolicy
    ) -> Iterator[Rendered]:
        return self.layers.render(group, pointer)

    # Enrolment

    def _enrolled_group(self, device: str) -> str | None:
        found = self._members.find(device)
        return None if found is None else found[1].group

    def _enroll(self, device: str, group: str, labels: dict[str, str]) -> DeviceInfo:
        hub = self._members.add(device, group, labels)
        upload = None if self._grants is None else self._grants.upload(device)
        if upload is not None:
            self.give(hub, device, {UPLOAD: dict(upload)})
        found = self._device(device)
        if found is None:
            raise UnavailableError(
                f"device {device!r} was retired at the same time", cure="enrol it again"
            )
        return found

    def give(self, hub: Hub, device: str, desired: Mapping[str, Any]) -> None:
        """Set desired properties of a device's module.

        Raises:
            LimitExceededError: no twin could hold them; nothing was sent.
        """
        check(desired)
        patch = {"properties": {"desired": dict(desired)}}
        hub.change_twin(device, patch, etag="*", module=MODULE)

    def _retire(self, device: str) -> None:
        """Take it out of the fleet, and delete its module's twin; identity and segments stay."""
        self._members.remove(device)

    # Requests

    def _invoke(
        self, device: str, path: str, body: bytes | None, headers: dict[str, str], timeout_s: float
    ) -> Reply:
        found = self._members.find(device)
        if found is None:
            raise NotFoundError(
                f"no device {device!r} on {self.name}", cure="list them with: edgefleet devices"
            )
        asked = request_of(path, headers, body)
        size = (
            len(path) + len(asked["body"] or "") + sum(len(k) + len(v) for k, v in headers.items())
        )
        if size > MAX_REQUEST:
            raise LimitExceededError(
                f"a request of {size} bytes; a direct method carries {MAX_REQUEST}",
                cure="send less at once, or ask the device on its own network",
            )
        least, most = METHOD_S
        seconds = min(most, max(least, math.ceil(timeout_s)))
        try:
            status, payload = found[0].invoke(device, MODULE, "invoke", asked, seconds)
        except Exception as error:
            if status_of(error) == 504 or code_of(error) in _UNREACHABLE:
                raise UnavailableError(
                    f"device {device!r} doesn't answer",
                    cure="see whether it is connected: edgefleet why",
                ) from error
            raise
        return _reply(device, status, payload)


def _said(hub: Hub, members: list[Member]) -> dict[str, Said]:
    """What a page of devices says, in one query."""
    if not members:
        return {}
    named = one_of("deviceId", (member.device for member in members))
    rows = hub.query(select("*", "devices.modules", f"{OF_MODULE} AND {named}"))
    return {str(row["deviceId"]): read_module(row) for row in rows}


def _info(member: Member, said: Said, evidence: dict[str, str], agent: Agent | None) -> DeviceInfo:
    return DeviceInfo(
        name=member.device,
        group=str(member.group),
        labels=member.labels,
        connected=said.connected,
        last_seen=said.came,
        report=said.report,
        evidence=evidence,
        blocked=None if agent is None else agent.blocked,
    )


def _reply(device: str, status: int, payload: Any) -> Reply:  # noqa: ANN401 - JSON
    if status != 200:
        said = payload.get("error") if isinstance(payload, dict) else None
        raise UnavailableError(f"{device!r} can't answer: {said or status}")
    return reply_of(device, payload)
