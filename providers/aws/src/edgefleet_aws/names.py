"""Names of what a fleet has in AWS IoT and Greengrass; all of them begin with its prefix.

A fleet's things are in two of its thing groups: the fleet's own, which the base deployment is for,
and one for the group that they are in. A colon joins prefix and group, which no prefix holds, so
that fleets with similar names never see each other's groups.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgefleet.errors import InvalidInputError
from edgefleet.protocol.names import check_name

if TYPE_CHECKING:
    from edgefleet_aws.settings import AwsSettings

RELEASE = "edgefleet.Release"
SHADOW = "edgefleet"
TAG = "edgefleet"
RELEASE_VERSION = "1.0.0"  # of the empty component: its recipe never changes
_TAKEN = re.compile(r"[a-zA-Z0-9_-]+")  # CreateThing and CreateThingGroup, without our own colon


class Names:
    """The names of one fleet."""

    def __init__(self, settings: AwsSettings) -> None:
        self.prefix = settings.prefix
        self.bucket = settings.bucket
        self.adopted = dict(settings.thing_groups)
        """Thing groups that somebody else made, by the groups that they are."""
        self.tags = [{"Key": TAG, "Value": self.prefix}]
        """Of the thing groups that are made for the fleet."""
        self.devices = f"{self.prefix}-devices"
        """The devices' role and its policy, its alias, and the policy of their certificates."""
        self.cores = f"{self.prefix}-cores"
        """The policy of what a nucleus needs, of devices that registered themselves."""
        self.claim = f"{self.prefix}-claim"
        """The policy of claim certificates."""
        self.provisioning = f"{self.prefix}-new"
        """The provisioning template; at most 36 characters."""
        self.hot_rule = f"{self.prefix.replace('-', '_')}_hot"
        self.stack = f"edgefleet-{self.prefix}"
        self.runtime = f"edgefleet.Runtime.{self.prefix}"
        """The component of the runtime: its recipe names the fleet's topics and bucket."""
        self.hot_log = f"/edgefleet/{self.prefix}/hot"
        """The log group of alarms that couldn't be stored."""

    @property
    def fleet_group(self) -> str:
        """The thing group of all the fleet's devices."""
        return self.prefix

    @property
    def start_of_groups(self) -> str:
        """How the names of the groups' thing groups begin."""
        return f"{self.prefix}:"

    def thing_group(self, group: str) -> str:
        """The thing group of a group.

        Raises:
            InvalidInputError: AWS IoT takes no such name.
        """
        return self.adopted.get(group) or self.start_of_groups + _taken("group", group)

    def group_of(self, thing_group: str) -> str | None:
        """The group that a thing group stands for; None for those of others."""
        for group, adopted in self.adopted.items():
            if adopted == thing_group:
                return group
        if not thing_group.startswith(self.start_of_groups):
            return None
        group = thing_group.removeprefix(self.start_of_groups)
        try:
            check_name("group", group)
        except InvalidInputError:
            return None
        return None if group in self.adopted else group

    @staticmethod
    def is_possible(device: str) -> bool:
        """Whether AWS IoT takes a thing of that name."""
        return _TAKEN.fullmatch(device) is not None

    @staticmethod
    def thing(device: str) -> str:
        """The thing of a device.

        Raises:
            InvalidInputError: AWS IoT takes no such name.
        """
        return _taken("device", device)

    def devices_folder(self, device: str = "") -> str:
        """Where devices write in the bucket."""
        return f"{self.prefix}/devices/{device}/" if device else f"{self.prefix}/devices/"

    def hot_topic(self, device: str) -> str:
        """Alarms and health events go here; by basic ingest, which costs no messaging.

        https://docs.aws.amazon.com/iot/latest/developerguide/iot-basic-ingest.html
        """
        return f"$aws/rules/{self.hot_rule}/{self.prefix}/devices/{device}/hot"

    def invoke_topic(self, device: str) -> str:
        """Operators' requests to a device."""
        return f"{self.prefix}/devices/{device}/invoke"


def _taken(kind: str, name: str) -> str:
    check_name(kind, name)
    if not _TAKEN.fullmatch(name):
        raise InvalidInputError(
            f"AWS IoT takes no {kind} named {name!r}", cure="use letters, digits, _ and - only"
        )
    return name
