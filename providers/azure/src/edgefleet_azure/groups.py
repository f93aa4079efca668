"""A fleet's devices and groups in its IoT Hubs: tags of device twins, and which hub a group is in.

Rules kept here:

- A device's group is one tag of its twin, changed under its etag, so that it is in one group.
- A group lies in one hub: that of its devices; a new one in the first hub with room, in an order
  that its own name gives, so that every operator comes to the same.
- What a query says may be minutes old; what was enrolled from here is known at once.
"""

from __future__ import annotations

import hashlib
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote

from edgefleet.errors import (
    ConfigurationError,
    ConflictError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
)
from edgefleet.protocol.names import check_name
from edgefleet_azure.hubs import MAX_DEPLOYMENTS, select
from edgefleet_azure.manifests import MODULE, fleet_condition, group_condition
from edgefleet_azure.twins import MAX_TAGS, check, check_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from edgefleet_azure.hubs import Hub, Hubs

GROUPS = (MAX_DEPLOYMENTS - 1) // 2
"""Of a hub: one base, and two layers a group while one is replaced."""
LISTING_S = 10.0  # so long a listing of groups is good for another look
_TRIES = 10  # of a change of tags, while others change them


class Member(NamedTuple):
    """A device's tags.

    Attributes:
        group: None for a device that isn't in the fleet.
        etag: of its twin.
    """

    device: str
    group: str | None
    labels: dict[str, str]
    etag: str


class DeviceGroups:
    """Who is in which group, and where.

    Args:
        hubs: of the fleet.
        prefix: of the fleet.
    """

    def __init__(self, hubs: Hubs, prefix: str) -> None:
        self._hubs = hubs
        self._prefix = prefix
        self._lock = threading.Lock()
        self._listed: tuple[float, dict[str, dict[str, int]]] | None = None
        self._made: dict[str, str] = {}

    def counts(self, *, fresh: bool = False) -> dict[str, dict[str, int]]:
        """Of each group the number of its devices in each hub; one query a hub.

        Args:
            fresh: whether a listing of some seconds ago won't do.
        """
        with self._lock:
            listed = self._listed
        if fresh or listed is None or time.monotonic() - listed[0] > LISTING_S:
            found: dict[str, dict[str, int]] = {}
            for hub in self._hubs:
                for group, count in self._count(hub):
                    found.setdefault(group, {})[hub.host] = count
            listed = (time.monotonic(), found)
            with self._lock:
                self._listed = listed
        with self._lock:
            made = {group: {host: 0} for group, host in self._made.items()}
        return {**made, **listed[1]}

    def _count(self, hub: Hub) -> Iterator[tuple[str, int]]:
        tag = "tags.edgefleet.group"
        query = select(
            f"{tag} AS name, COUNT() AS devices",
            "devices",
            fleet_condition(self._prefix),
            group_by=tag,
        )
        for row in hub.query(query):
            group = row.get("name")
            try:
                yield check_name("group", str(group)), int(row["devices"])
            except InvalidInputError:
                continue  # whoever wrote that tag meant no group of ours

    def has(self, group: str) -> bool:
        """Whether there is such a group; looks anew before it says no."""
        return self._hosts(group) is not None

    def _hosts(self, group: str) -> dict[str, int] | None:
        """Devices of a group by hub; None for no such group."""
        found = self.counts().get(group)
        return self.counts(fresh=True).get(group) if found is None else found

    def hub_of(self, group: str) -> Hub:
        """The hub that a group's devices are in.

        Raises:
            NotFoundError: no such group.
            ConfigurationError: its devices are in several.
        """
        found = self._hosts(group)
        if found is None:
            raise NotFoundError(f"no group {group!r}", cure="enrol a device into it")
        hosts = [host for host, count in found.items() if count] or list(found)
        if len(hosts) > 1:
            raise ConfigurationError(
                f"devices of group {group!r} are in several hubs: {', '.join(sorted(hosts))}",
                cure="a group lies in one hub: enrol the devices of one of them into another group",
            )
        return self._hubs[hosts[0]]

    def place(self, group: str) -> Hub:
        """The hub for a group's next device.

        Raises:
            LimitExceededError: no hub has room for another group.
        """
        return self._hubs[self.host_for(group)]

    def host_for(self, group: str, *, planned: Iterable[str] = ()) -> str:
        """Host of the hub for a group's next device.

        Args:
            group: of the fleet, or a new one.
            planned: hosts of hubs that are yet to be made, and so hold no group.

        Raises:
            LimitExceededError: no hub has room for another group.
        """
        if self.has(group):
            return self.hub_of(group).host
        filled = dict.fromkeys((*(hub.host for hub in self._hubs), *planned), 0)
        for hosts in self.counts().values():
            for host in hosts:
                filled[host] += 1
        for host in ranked(filled, group):
            if filled[host] < GROUPS:
                return host
        raise LimitExceededError(
            f"{len(filled)} hubs hold at most {GROUPS * len(filled)} groups",
            cure="name another hub in `hubs` of the profile, or merge groups",
        )

    def devices(self, group: str | None) -> Iterator[tuple[Hub, list[Member]]]:
        """Devices of one group or all, by hub, as many at once as a hub gives."""
        if group is None:
            condition, hubs = fleet_condition(self._prefix), list(self._hubs)
        else:
            condition = group_condition(self._prefix, group)
            hubs = [self.hub_of(group)] if self.has(group) else []
        for hub in hubs:
            for page in hub.pages(select("deviceId, tags, etag", "devices", condition)):
                yield hub, [self._member(row) for row in page if _is_ours(row)]

    def find(self, device: str) -> tuple[Hub, Member] | None:
        """A device of the fleet, and its hub."""
        for hub in self._hubs:
            member = self._read(hub, device)
            if member is not None and member.group is not None:
                return hub, member
        return None

    def _read(self, hub: Hub, device: str) -> Member | None:
        twin = hub.twin(device)
        return None if twin is None else self._member(twin)

    def _member(self, twin: Mapping[str, Any]) -> Member:
        ours = (twin.get("tags") or {}).get("edgefleet")
        ours = ours if isinstance(ours, dict) and ours.get("fleet") == self._prefix else {}
        labels = ours.get("labels")
        found = labels if isinstance(labels, dict) else {}
        return Member(
            str(twin["deviceId"]),
            ours.get("group"),
            {unquote(key): str(value) for key, value in found.items()},
            str(twin.get("etag", "")),
        )

    def add(self, device: str, group: str, labels: Mapping[str, str]) -> Hub:
        """Put a device into a group; an edge device that isn't there is registered.

        Raises:
            ConflictError: it is in another group, or another fleet's.
            InvalidInputError: it has no IoT Edge.
        """
        found = self.find(device)
        hub = found[0] if found is not None else self._place_of(device, group)
        hub.register(device, MODULE)
        self._tag(hub, device, group, labels)
        with self._lock:
            self._made[group] = hub.host
            self._listed = None
        return hub

    def _place_of(self, device: str, group: str) -> Hub:
        """Where the device is registered already, else where its group is."""
        return next((hub for hub in self._hubs if hub.twin(device) is not None), self.place(group))

    def _tag(self, hub: Hub, device: str, group: str, labels: Mapping[str, str]) -> None:
        for _ in range(_TRIES):
            twin = hub.twin(device) or {}
            tags = twin.get("tags") or {}
            there = tags.get("edgefleet") or {}
            if there.get("fleet", self._prefix) != self._prefix:
                raise ConflictError(
                    f"device {device!r} is in the fleet {there['fleet']!r}",
                    cure="retire it there first",
                )
            if there.get("group", group) != group:
                raise ConflictError(
                    f"device {device!r} was put into {there['group']!r} at the same time",
                    cure="retire it, then enrol it again",
                )
            ours: dict[str, Any] = {"fleet": self._prefix, "group": group}
            if labels:
                ours["labels"] = _written(labels)
            if self._change(hub, device, tags, ours, str(twin.get("etag", ""))):
                return
        raise _busy(device)

    def label(self, device: str, labels: Mapping[str, str | None]) -> None:
        """Set labels of a device; None removes one."""
        for _ in range(_TRIES):
            found = self.find(device)
            if found is None:
                raise NotFoundError(f"no device {device!r}", cure="list them: edgefleet devices")
            hub, member = found
            twin = hub.twin(device) or {}
            written = {"labels": _written(labels)}
            if self._change(hub, device, twin.get("tags") or {}, written, member.etag):
                return
        raise _busy(device)

    def remove(self, device: str) -> None:
        """Take a device out of the fleet, and what it said with it; its identity stays."""
        for _ in range(_TRIES):
            found = self.find(device)
            if found is None:
                return
            hub, member = found
            if hub.change_twin(device, {"tags": {"edgefleet": None}}, etag=member.etag):
                hub.forget_module(device, MODULE)
                with self._lock:
                    self._made.clear()
                    self._listed = None
                return
        raise _busy(device)

    @staticmethod
    def _change(
        hub: Hub, device: str, tags: Mapping[str, Any], ours: dict[str, Any], etag: str
    ) -> bool:
        """Whether the tags could be changed; False where others changed the twin meanwhile."""
        there = tags.get("edgefleet") or {}
        check({"edgefleet": ours})
        check_size({**tags, "edgefleet": _merged(there, ours)}, MAX_TAGS)
        return hub.change_twin(device, {"tags": {"edgefleet": ours}}, etag=etag)


def _is_ours(row: Mapping[str, Any]) -> bool:
    """Whether a device has a name that devices of a fleet can have."""
    try:
        check_name("device", str(row.get("deviceId")))
    except InvalidInputError:
        return False
    return True


def ranked(hosts: Mapping[str, int], group: str) -> list[str]:
    """Hosts in the order in which a group tries them: the same for everybody."""

    def weight(host: str) -> bytes:
        return hashlib.sha256(f"{host}\0{group}".encode()).digest()

    return sorted(hosts, key=weight)


def _merged(there: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """What a twin makes of its tag and a change of it, for its size."""
    labels = {**(there.get("labels") or {}), **(ours.get("labels") or {})}
    left = {key: value for key, value in labels.items() if value is not None}
    return {**there, **ours, "labels": left}


def _written(labels: Mapping[str, str | None]) -> dict[str, str | None]:
    """Labels as tags take them: names without dots, dollars and blanks."""
    return {quote(key, safe="").replace(".", "%2E"): value for key, value in labels.items()}


def _busy(device: str) -> ConflictError:
    return ConflictError(
        f"the twin of {device!r} changed {_TRIES} times while it was being changed",
        cure="repeat the call when fewer people are at work",
    )
