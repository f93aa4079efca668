"""A fleet's groups and devices in AWS IoT: thing groups and things."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgefleet.errors import ConflictError, NotFoundError
from edgefleet_aws.errors import code_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet_aws.clients import Clients
    from edgefleet_aws.names import Names

_MISSING = "ResourceNotFoundException"
_EXISTS = "ResourceAlreadyExistsException"
_PAGE = 250  # the most that AWS IoT gives at once


class ThingGroups:
    """Who is in which group.

    Args:
        clients: to reach AWS IoT with.
        names: of the fleet.
    """

    def __init__(self, clients: Clients, names: Names) -> None:
        self._clients = clients  # made when they are asked for: they may lack a region
        self._names = names
        self._arns: dict[str, str] = {}

    def all(self) -> Iterator[str]:
        """Names of the fleet's groups."""
        pages = self._clients.iot.get_paginator("list_thing_groups")
        start = self._names.start_of_groups
        for page in pages.paginate(namePrefixFilter=start, PaginationConfig={"PageSize": _PAGE}):
            for found in page.get("thingGroups", ()):
                group = self._names.group_of(found["groupName"])
                if group is not None:
                    self._arns[group] = found["groupArn"]
                    yield group
        yield from self._names.adopted

    def has(self, group: str) -> bool:
        """Whether there is such a group."""
        try:
            self._arns[group] = self._describe(group)
        except Exception as error:
            if code_of(error) != _MISSING:
                raise
            return False
        return True

    def arn(self, group: str) -> str:
        """ARN of a group's thing group, which deployments are for."""
        if group not in self._arns:
            self._arns[group] = self._describe(group)
        return self._arns[group]

    def _describe(self, group: str) -> str:
        name = self._names.thing_group(group)
        return str(self._clients.iot.describe_thing_group(thingGroupName=name)["thingGroupArn"])

    def devices(self, group: str) -> Iterator[str]:
        """Names of a group's devices; of a group that isn't there none."""
        pages = self._clients.iot.get_paginator("list_things_in_thing_group")
        name = self._names.thing_group(group)
        try:
            for page in pages.paginate(thingGroupName=name, PaginationConfig={"PageSize": _PAGE}):
                yield from page.get("things", ())
        except Exception as error:
            if code_of(error) != _MISSING:
                raise

    def of(self, device: str) -> list[str]:
        """The groups that a device is in: one, or none; more only while two enrol it at once."""
        found: list[str] = []
        if not self._names.is_possible(device):
            return found  # another deployer's device may be called so
        pages = self._clients.iot.get_paginator("list_thing_groups_for_thing")
        try:
            for page in pages.paginate(thingName=self._names.thing(device)):
                for one in page.get("thingGroups", ()):
                    group = self._names.group_of(one["groupName"])
                    if group is not None:
                        found.append(group)
        except Exception as error:
            if code_of(error) != _MISSING:
                raise
        return found

    def make_fleet(self) -> str:
        """ARN of the thing group of all the fleet's devices, made where it is missing."""
        return self._make(self._names.fleet_group)

    def fleet_arn(self) -> str:
        """ARN that the fleet's thing group has, or will have."""
        me = self._clients.sts.get_caller_identity()
        partition, account = str(me["Arn"]).split(":")[1], me["Account"]
        region = self._clients.iot.meta.region_name
        return f"arn:{partition}:iot:{region}:{account}:thinggroup/{self._names.fleet_group}"

    def make(self, group: str) -> None:
        """Make a group's thing group where it is missing."""
        if group in self._names.adopted:
            self.arn(group)  # it is somebody else's to make
        else:
            self._arns[group] = self._make(self._names.thing_group(group))

    def adopt(self, group: str) -> None:
        """Make a group's thing group where it is missing, and its devices the fleet's.

        Only a thing group that somebody else made can have devices that the fleet doesn't know.

        Raises:
            NotFoundError: the settings name a thing group that isn't there.
        """
        try:
            self.make(group)
        except Exception as error:
            if code_of(error) != _MISSING:
                raise
            name = self._names.thing_group(group)
            raise NotFoundError(
                f"there is no thing group {name!r}", cure="correct `thing_groups` of the profile"
            ) from error
        if group in self._names.adopted:
            for device in self.devices(group):
                self._clients.iot.add_thing_to_thing_group(
                    thingGroupName=self._names.fleet_group, thingName=device
                )

    def add(self, device: str, group: str) -> None:
        """Put a device into a group; thing and group are made where they are missing.

        Raises:
            ConflictError: somebody put it into another group at the same time.
        """
        thing = self._names.thing(device)
        self._make_thing(thing)
        self.make(group)
        self.make_fleet()
        for name in (self._names.fleet_group, self._names.thing_group(group)):
            self._clients.iot.add_thing_to_thing_group(thingGroupName=name, thingName=thing)
        others = [one for one in self.of(device) if one != group]
        if others:
            self._take_out(thing, self._names.thing_group(group))
            raise ConflictError(
                f"device {device!r} was put into {others[0]!r} at the same time",
                cure="retire it, then enrol it again",
            )

    def remove(self, device: str) -> None:
        """Take a device out of the fleet's groups; the thing itself stays."""
        thing = self._names.thing(device)
        for group in self.of(device):
            self._take_out(thing, self._names.thing_group(group))
        self._take_out(thing, self._names.fleet_group)

    def _take_out(self, thing: str, name: str) -> None:
        with suppressed(_MISSING):
            self._clients.iot.remove_thing_from_thing_group(thingGroupName=name, thingName=thing)

    def _make_thing(self, thing: str) -> None:
        """A thing that is there, such as a core device that is adopted, stays as it is."""
        try:
            self._clients.iot.describe_thing(thingName=thing)
        except Exception as error:
            if code_of(error) != _MISSING:
                raise
            with suppressed(_EXISTS):
                self._clients.iot.create_thing(thingName=thing)

    def _make(self, name: str) -> str:
        try:
            made = self._clients.iot.create_thing_group(thingGroupName=name, tags=self._names.tags)
            return str(made["thingGroupArn"])
        except Exception as error:
            if code_of(error) != _EXISTS:  # with properties that somebody gave it
                raise
        return str(self._clients.iot.describe_thing_group(thingGroupName=name)["thingGroupArn"])


@contextmanager
def suppressed(code: str) -> Iterator[None]:
    """Pass over an answer of AWS's with that code."""
    try:
        yield
    except Exception as error:
        if code_of(error) != code:
            raise
