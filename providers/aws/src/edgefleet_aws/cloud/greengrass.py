"""AWS IoT Greengrass V2 and the devices' side of IoT Core, put together for the mock."""

from __future__ import annotations

import datetime as dt
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from moto.iam.models import iam_backends
from moto.iot.models import iot_backends
from moto.iotdata.models import iotdata_backends
from moto.s3.models import s3_backends

from edgefleet_aws.cloud.calls import Call, Fault
from edgefleet_aws.cloud.cloudformation import CloudFormation
from edgefleet_aws.cloud.components import Components
from edgefleet_aws.cloud.core_devices import CoreDevices
from edgefleet_aws.cloud.deployments import Deployments
from edgefleet_aws.cloud.device_bucket import DeviceBucket
from edgefleet_aws.cloud.device_cloud import DeviceCloud
from edgefleet_aws.cloud.indexing import Indexing
from edgefleet_aws.cloud.limits import MAX_GROUPS, refused_shadow
from edgefleet_aws.cloud.moto_state import Things
from edgefleet_aws.cloud.packages import ACCOUNT
from edgefleet_aws.cloud.provisioning import Provisioning
from edgefleet_aws.cloud.rest_json import RestJsonMount, invalid_in_iot
from edgefleet_aws.cloud.rollout import Crowd
from edgefleet_aws.cloud.site import Site
from edgefleet_aws.cloud.stacks import Stacks
from edgefleet_aws.cloud.tags import Tags

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path
    from wsgiref.types import StartResponse

    from edgefleet.testing.cloud.keeping import Part
    from edgefleet_aws.cloud.server import Mount


class Greengrass:
    """What is mounted on the mock cloud for devices, and the devices themselves.

    Args:
        mounts: where it is mounted, by boto3's names of services.
        region: of everything.
        folder: for the devices' disks.
        environment: of components on devices.

    Attributes:
        devices: what they reach.
        site: where they stand.
        provisioning: by which new ones register themselves.
    """

    def __init__(
        self,
        mounts: dict[str, Mount],
        region: str,
        folder: Path,
        environment: Callable[[], Mapping[str, str]],
        *,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._region = region
        self._components = Components(f"arn:aws:greengrass:{region}:{ACCOUNT}", self._object, clock)
        self._things = _MotoThings(region)
        self._deployments = Deployments(
            f"arn:aws:iot:{region}:{ACCOUNT}", self._things, clock, self._changed
        )
        self.devices = DeviceCloud(
            region,
            components=self._components,
            deployments=self._deployments,
            fetch=self._object,
            put=_put,
            clock=clock,
        )
        self.site = Site(folder, self.devices, environment)
        cores = CoreDevices(self.devices.devices, _members(region))
        mounts["greengrassv2"] = RestJsonMount(
            {
                **self._components.operations(),
                **self._deployments.operations(),
                **cores.operations(),
            }
        )
        self._indexing = Indexing()
        self.provisioning = Provisioning(region, clock)
        self._tags = Tags(region)
        mounts["iot"] = _Iot(
            self._tags,
            {
                **self._indexing.operations(),
                **self.provisioning.operations(),
                **self._deployments.job_operations(),
            },
        )
        mounts["iot-data"] = _IotData(
            {"Publish": self._publish}, whole=False, refusal=invalid_in_iot
        )
        self._stacks = CloudFormation(
            Stacks(region, self.provisioning), f"arn:aws:cloudformation:{region}:{ACCOUNT}"
        )
        mounts["cloudformation"] = self._stacks
        mounts["s3"] = DeviceBucket(self.devices, mounts.get("s3"))

    @property
    def parts(self) -> dict[str, Part]:
        """What goes on where it was, in the order in which it must come back."""
        return {
            "stacks": self._stacks,
            "things": Things(self._region),
            "tags": self._tags,
            "components": self._components,
            "deployments": self._deployments,
            "core devices": self.devices,
        }

    def populate(self, thing_group: str, crowd: Crowd) -> None:
        """Have a group hold devices that are there as a number only."""
        self._things.crowds[thing_group] = crowd

    def _changed(self) -> None:
        self.site.wake()

    def stop(self) -> None:
        """Shut devices down, and forget all that belongs to devices; may be called twice.

        Raises what had ended the work of a device, once all is forgotten.
        """
        try:
            self.site.stop()
        finally:
            self._forget()

    def _forget(self) -> None:
        self._stacks.clear()
        self._indexing.clear()
        self._tags.clear()
        self.provisioning.clear()
        self._components.clear()
        self._deployments.clear()
        self.devices.clear()
        self._things.crowds.clear()
        iot_backends[ACCOUNT][self._region].reset()
        iotdata_backends[ACCOUNT][self._region].reset()
        iam_backends[ACCOUNT]["aws"].reset()

    def _publish(self, request: Mapping[str, Any]) -> None:
        self.devices.deliver(request["topic"], request.get("payload", b""))

    @staticmethod
    def _object(address: str) -> bytes | None:
        parts = urlsplit(address)
        bucket = s3_backends[ACCOUNT]["aws"].buckets.get(parts.netloc)
        key = None if bucket is None else bucket.keys.get(parts.path[1:])
        return None if key is None else bytes(key.value)


def _put(bucket: str, key: str, data: bytes) -> None:
    s3_backends[ACCOUNT]["aws"].put_object(bucket, key, data)


class _Iot(RestJsonMount):
    """AWS IoT; moto answers 500 to a group below one that isn't there, and keeps no tags."""

    def __init__(self, tags: Tags, operations: Mapping[str, Callable[[Any], Any]]) -> None:
        super().__init__({**tags.operations(), **operations}, whole=False, refusal=invalid_in_iot)
        self._tags = tags

    def answer(self, call: Call, start: StartResponse) -> Iterable[bytes] | None:
        if call.operation == "CreateThingGroup":
            parent = call.json().get("parentGroupName")
            groups = iot_backends[ACCOUNT][call.region].thing_groups.values()
            if parent and all(one.thing_group_name != parent for one in tuple(groups)):
                raise Fault("ResourceNotFoundException", f"no thing group {parent}", 404)
        answer = super().answer(call, start)
        if call.operation == "AddThingToThingGroup":
            self._check_room(call)
        if call.operation == "CreateThingGroup":  # left to moto, now that it was checked
            self._tags.created(call.path.rpartition("/")[2], call.json().get("tags") or ())
        return answer

    @staticmethod
    def _check_room(call: Call) -> None:
        asked, backend = call.json(), iot_backends[ACCOUNT][call.region]
        thing, group = asked.get("thingName"), asked.get("thingGroupName")
        groups = {
            one.thing_group_name
            for one in tuple(backend.thing_groups.values())
            if any(member.thing_name == thing for member in tuple(one.things.values()))
        }
        if group not in groups and len(groups) >= MAX_GROUPS:
            raise Fault("LimitExceededException", f"{thing} is in {MAX_GROUPS} groups", 410)


class _IotData(RestJsonMount):
    """AWS IoT's data plane; moto takes shadows of any size."""

    def answer(self, call: Call, start: StartResponse) -> Iterable[bytes] | None:
        answer = super().answer(call, start)
        if call.operation == "UpdateThingShadow":  # left to moto, which tells what is no JSON
            with suppress(ValueError):
                content = json.loads(call.body())
                refused = refused_shadow(content) if isinstance(content, dict) else None
                if refused is not None:
                    raise refused
        return answer


class _MotoThings:
    """What moto's IoT Core knows of things and groups."""

    def __init__(self, region: str) -> None:
        self._region = region
        self.crowds: dict[str, Crowd] = {}

    def crowd_of(self, arn: str) -> Crowd:
        return self.crowds.get(arn, Crowd())

    def exists(self, arn: str) -> bool:
        things = iot_backends[ACCOUNT][self._region].things
        return arn in self._groups() or arn in things

    def targets_of(self, thing: str) -> tuple[str, ...]:
        own = f"arn:aws:iot:{self._region}:{ACCOUNT}:thing/{thing}"
        return own, *(arn for arn, one in self._groups().items() if own in one.things)

    def _groups(self) -> Mapping[str, Any]:
        groups: dict[str, Any] = dict(iot_backends[ACCOUNT][self._region].thing_groups)
        return groups


def _members(region: str) -> Callable[[str], frozenset[str]]:
    def members(arn: str) -> frozenset[str]:
        group = iot_backends[ACCOUNT][region].thing_groups.get(arn)
        if group is None:
            return frozenset()
        return frozenset(thing.thing_name for thing in tuple(group.things.values()))

    return members
