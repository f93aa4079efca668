"""The deployer: groups and devices as documents of the profile's state store.

It talks to no gateway: gateways read what is written here, and write here what devices say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.errors import EdgeFleetError, InvalidInputError, NotFoundError, UnavailableError
from edgefleet.interfaces.abilities import CanEnroll, CanInvoke, CanRemoveGroups
from edgefleet.interfaces.deployer import Deployer
from edgefleet.interfaces.values import Action, DeviceInfo, Group, Rendered
from edgefleet.interfaces.wanted import WantedPointers
from edgefleet.protocol.report import read_report
from edgefleet_gateway.invitations import Invites
from edgefleet_gateway.receipts import TakesReceipts
from edgefleet_gateway.records import DeviceRecord, Keys, ReportRecord
from edgefleet_gateway.requests import Requests
from edgefleet_gateway.roster import Roster, utc_now
from edgefleet_gateway.sightings import Sightings, lasts, read_sightings, why_silent
from edgefleet_gateway.upgrades import Upgrades

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from edgefleet.interfaces.abilities import Reply
    from edgefleet.interfaces.registry import Registry
    from edgefleet.interfaces.state import StateStore
    from edgefleet.plugins.provider import Context
    from edgefleet.protocol.pointer import Pointer
    from edgefleet.protocol.report import Report
    from edgefleet_gateway.settings import GatewaySettings


class GatewayDeployer(
    Invites, TakesReceipts, Upgrades, CanEnroll, CanRemoveGroups, CanInvoke, Deployer
):
    """Devices that pull.

    Args:
        settings: of the profile.
        context: gives the profile's state store and registry.
        clock: tells the time.
    """

    provider = "gateway"

    def __init__(
        self,
        settings: GatewaySettings,
        context: Context,
        *,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.name = context.name
        self._settings = settings
        self._clock = clock
        self._keys = Keys(settings.prefix)
        self._state: Callable[[], StateStore] = context.state
        self._registry: Callable[[], Registry] = context.registry
        self._wanted = WantedPointers(context.state, deployer=settings.prefix)
        self._roster = Roster(context.state, self._keys, clock=clock)
        self._requests = Requests(self._roster, context.state, self._keys, clock=clock)

    # Groups and devices

    def _groups(self) -> Iterator[Group]:
        for name in self._roster.groups():
            yield Group(name=name, deployer=self.name)

    def _group(self, name: str) -> Group | None:
        return Group(name=name, deployer=self.name) if self._roster.has_group(name) else None

    def _devices(self, group: str | None) -> Iterator[DeviceInfo]:
        there = self._roster.devices()
        records = {name: one for name, one in there.items() if group in (None, one.group)}
        sightings = read_sightings(self._state(), self._keys)
        reports = self._roster.reports(tuple(records))
        for (name, record), said in zip(records.items(), reports, strict=True):
            yield self._info(name, record, said, sightings)

    def _device(self, name: str) -> DeviceInfo | None:
        record = self._roster.find(name)
        if record is None:
            return None
        sightings = read_sightings(self._state(), self._keys)
        return self._info(name, record, self._roster.report(name), sightings)

    def _info(
        self, name: str, record: DeviceRecord, said: ReportRecord | None, sightings: Sightings
    ) -> DeviceInfo:
        now, seen, said = self._clock(), sightings.of(name), record.own(said)
        evidence: dict[str, str] = {}
        if seen is not None:
            evidence |= {"gateway": seen.gateway, "last poll": f"{seen.at:%Y-%m-%d %H:%M:%S} UTC"}
        if record.certificates:
            newest = record.certificates[-1]
            evidence["certificate ends"] = f"{newest.ends:%Y-%m-%d %H:%M:%S} UTC"
        if record.revoked:
            evidence["certificate"] = "revoked"
        report, unreadable = _read(said)
        if unreadable is not None:
            evidence["report"] = unreadable
        times = (None if said is None else said.came, None if seen is None else seen.at)
        last = max((one for one in times if one is not None), default=None)
        silence = why_silent(
            name,
            record,
            last_seen=last,
            sightings=sightings,
            settings=self._settings,
            now=now,
        )
        return DeviceInfo(
            name=name,
            group=record.group,
            labels={**record.said, **record.labels},
            connected=last is not None
            and not record.revoked
            and now - last <= lasts(self._settings),
            last_seen=last,
            report=report,
            evidence=evidence,
            blocked=None if silence is None else silence.why,
            cure=None if silence is None else silence.cure,
        )

    def _label(self, device: str, labels: Mapping[str, str | None]) -> None:
        self._roster.label(device, labels)

    # Pointers

    def _pointer(self, group: str) -> Pointer | None:
        found = self._wanted.find(group)
        return None if found is None else found.pointer

    def _held(self, group: str) -> Pointer | None:
        """None: the state store itself refuses a lower one, and a repeat must ring the bell."""
        return None

    def _render(self, group: str, pointer: Pointer) -> Iterator[Rendered]:
        there, content = self._pointer(group), pointer.encoded()
        if there is None:
            action = Action.CREATE
        else:
            action = Action.UNCHANGED if there.encoded() == content else Action.UPDATE
        yield Rendered(path=f"pointers/{group}.json", content=content, action=action)

    def _publish(self, group: str, pointer: Pointer) -> None:
        self._wanted.raise_to(group, pointer)
        self._roster.ring(f"pointer/{group}")

    # Enrolment

    def _enrolled_group(self, device: str) -> str | None:
        record = self._roster.find(device)
        return None if record is None else record.group

    def _remove_group(self, group: str) -> tuple[str, ...]:
        return self._roster.remove_group(group)

    def _enroll(self, device: str, group: str, labels: dict[str, str]) -> DeviceInfo:
        self._roster.enroll(device, group, labels)
        info = self._device(device)
        if info is None:
            raise NotFoundError(f"device {device!r} was retired meanwhile")
        return info

    def _retire(self, device: str) -> None:
        self._roster.retire(device)

    # Requests

    def _invoke(
        self, device: str, path: str, body: bytes | None, headers: dict[str, str], timeout_s: float
    ) -> Reply:
        def silent(device: str) -> EdgeFleetError:
            info = self._device(device)
            if info is None:
                return NotFoundError(f"device {device!r} was retired meanwhile")
            if info.blocked is not None:
                return UnavailableError(
                    f"device {device!r} doesn't answer: {info.blocked}", cure=info.cure
                )
            return UnavailableError(
                f"device {device!r} didn't answer within {timeout_s:g} s",
                cure="give it longer; a device that doesn't wait at its gateway looks for requests"
                f" every {self._settings.poll_s:g} s",
            )

        return self._requests.ask(device, path, body, headers, timeout_s, why_silent=silent)


def _read(said: ReportRecord | None) -> tuple[Report | None, str | None]:
    """A device's report, and why it can't be read if it can't."""
    if said is None:
        return None, None
    try:
        return read_report(said.report), None
    except InvalidInputError as error:
        return None, error.message
