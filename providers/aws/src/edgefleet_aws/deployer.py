"""The deployer: pointers in the configuration of Greengrass components, reports from shadows.

How pointers get into deployments is `publishing`'s affair. A device's name is its thing's: what it
says, it says in its own thing's shadow and below its own prefix in S3, which AWS's policies hold it
to.
"""

from __future__ import annotations

import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.errors import (
    ConfigurationError,
    LimitExceededError,
    NotFoundError,
    UnavailableError,
)
from edgefleet.interfaces.abilities import (
    CanEnroll,
    CanInstall,
    CanInvoke,
    CanPace,
    Reply,
)
from edgefleet.interfaces.deployer import Deployer
from edgefleet.interfaces.requests import reply_of, request_of
from edgefleet.interfaces.values import DeviceInfo, Group, Rendered
from edgefleet_aws import recipes, wheelhouse
from edgefleet_aws.errors import code_of
from edgefleet_aws.groups import ThingGroups
from edgefleet_aws.install import Installation
from edgefleet_aws.names import Names
from edgefleet_aws.pacing import LIMITS
from edgefleet_aws.publishing import GroupPointers
from edgefleet_aws.service import AwsService
from edgefleet_aws.shadows import Shadow, Shadows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from edgefleet.interfaces.policy import PolicyLimits, RolloutPolicy, RolloutProgress
    from edgefleet.interfaces.state import StateStore
    from edgefleet.protocol.pointer import Pointer
    from edgefleet_aws.clients import Clients
    from edgefleet_aws.settings import AwsSettings

MAX_REQUEST = 128 << 10  # bytes of a message; AWS IoT Core endpoints and quotas
READERS = 8  # shadows read at once
_FIRST_POLL_S, _LAST_POLL_S = 0.05, 1.0
_NOT_TAKEN = {"FAILED", "REJECTED", "TIMED_OUT"}
_NOT_THERE = {"NoSuchKey", "404"}


class GreengrassDeployer(AwsService, CanEnroll, CanInvoke, CanInstall, CanPace, Deployer):
    """Devices with a Greengrass V2 nucleus, of either kind.

    Args:
        clients: to reach AWS with; closed with the deployer.
        settings: bucket, prefix, region.
        name: of this deployer in the profile.
        state: gives the profile's state store.
        base: folder that relative paths in settings start from.
    """

    needs = ("deployer", "install")

    def __init__(
        self,
        clients: Clients,
        settings: AwsSettings,
        *,
        name: str = "aws",
        state: Callable[[], StateStore],
        base: Path = Path(),
    ) -> None:
        self.name = name
        self._clients = clients
        self._settings = settings
        self._base = base
        self._names = Names(settings)
        self._things = ThingGroups(clients, self._names)
        self._pointers = GroupPointers(
            clients, settings, self._names, self._things, state, deployer=name
        )
        self._shadows = Shadows(clients)

    # Groups and devices

    def _groups(self) -> Iterator[Group]:
        for name in self._things.all():
            yield Group(name=name, deployer=self.name)  # counting would cost a call each

    def _group(self, name: str) -> Group | None:
        return Group(name=name, deployer=self.name) if self._things.has(name) else None

    def _devices(self, group: str | None) -> Iterator[DeviceInfo]:
        groups = [group] if group is not None else sorted(self._things.all())
        found = sorted((device, one) for one in groups for device in self._things.devices(one))
        with ThreadPoolExecutor(READERS) as readers:
            shadows = readers.map(self._shadows.read, (device for device, _ in found))
            for (device, one), shadow in zip(found, shadows, strict=True):
                yield _info(device, one, shadow, {})

    def _device(self, name: str) -> DeviceInfo | None:
        groups = self._things.of(name)
        if not groups:
            return None
        evidence, blocked = self._evidence(name, groups[0])
        return _info(name, groups[0], self._shadows.read(name), evidence, blocked)

    def _evidence(self, thing: str, group: str) -> tuple[dict[str, str], str | None]:
        """What Greengrass says of a core device, and why it didn't take the newest pointer.

        Nothing of a thing that is no core device yet.
        """
        try:
            core = self._clients.greengrass.get_core_device(coreDeviceThingName=thing)
            latest = self._clients.greengrass.list_effective_deployments(
                coreDeviceThingName=thing, maxResults=10
            )
        except Exception as error:
            if code_of(error) == "ResourceNotFoundException":
                return {"core device": "none"}, None
            raise
        evidence = {"core device": f"{core['status']}, nucleus {core['coreVersion']}"}
        blocked: str | None = None
        looked = False
        for one in latest.get("effectiveDeployments", ()):
            status, reason = one["coreDeviceExecutionStatus"], one.get("reason", "")
            said = f"{status} {reason}".strip()
            evidence.setdefault(f"deployment {one['deploymentName']}", said)
            if not looked and one["targetArn"] == self._things.arn(group):
                looked = True  # the newest of its group; older ones are history
                if status in _NOT_TAKEN:
                    blocked = f"its nucleus didn't take deployment {one['deploymentName']}: {said}"
        return evidence, blocked

    def _label(self, device: str, labels: Mapping[str, str | None]) -> None:
        self._shadows.label(device, labels)

    # Pointers

    def _pointer(self, group: str) -> Pointer | None:
        return self._pointers.read(group)

    def _render(self, group: str, pointer: Pointer) -> Iterator[Rendered]:
        return self._pointers.render(group, pointer, None)

    def _publish(self, group: str, pointer: Pointer) -> None:
        self._pointers.publish(group, pointer, None)

    # Rollouts

    @property
    def policy_limits(self) -> PolicyLimits:
        """What Greengrass honours. Nuclei of the light kind roll nothing back."""
        return LIMITS

    def _progress(self, group: str) -> RolloutProgress | None:
        return self._pointers.progress(group)

    def _publish_paced(self, group: str, pointer: Pointer, policy: RolloutPolicy) -> None:
        self._pointers.publish(group, pointer, policy)

    def _render_paced(
        self, group: str, pointer: Pointer, policy: RolloutPolicy
    ) -> Iterator[Rendered]:
        return self._pointers.render(group, pointer, policy)

    # Enrolment

    def _enrolled_group(self, device: str) -> str | None:
        return next(iter(self._things.of(device)), None)

    def _enroll(self, device: str, group: str, labels: dict[str, str]) -> DeviceInfo:
        self._things.add(device, group)
        if labels:
            self._shadows.label(device, labels)
        return _info(device, group, self._shadows.read(device), *self._evidence(device, group))

    def _retire(self, device: str) -> None:
        """Take it out of our groups and delete its shadow; thing, nucleus and segments stay."""
        self._things.remove(device)
        self._shadows.forget(device)

    # Installation

    @contextmanager
    def _installation(self) -> Iterator[Installation]:
        wheels, python = self._settings.runtime_wheels, self._settings.runtime_python
        version = metadata.version("edgefleet")
        if wheels is not None:
            with wheelhouse.archive(self._base / wheels) as archive:
                artifact = {"Uri": archive.address(self._settings), "Unarchive": "ZIP"}
                recipe = recipes.runtime_recipe(
                    self._names, version, archive.lifecycle(), (artifact,)
                )
                yield Installation(self._clients, self._settings, recipe, archive)
        elif python is not None:
            recipe = recipes.runtime_recipe(self._names, version, recipes.run_lifecycle(python))
            yield Installation(self._clients, self._settings, recipe)
        else:
            raise ConfigurationError(
                "the profile doesn't say where devices get the runtime from",
                cure=f"pip wheel -w wheels '{wheelhouse.NEEDS}', and name the folder in "
                "`runtime_wheels`; or name a Python on the devices in `runtime_python`",
            )

    def _install(self, group: str | None) -> None:
        with self._installation() as installation:
            installation.install()
        if group is not None:
            self._things.adopt(group)

    def _install_documents(self, group: str | None) -> Iterator[Rendered]:
        with self._installation() as installation:
            yield from installation.documents()

    def _uninstall(self, data: bool) -> None:  # noqa: FBT001 - the interface's own
        nothing = {"ComponentName": "", "ComponentVersion": ""}
        Installation(self._clients, self._settings, nothing).uninstall(data=data)

    # Requests

    def _invoke(
        self, device: str, path: str, body: bytes | None, headers: dict[str, str], timeout_s: float
    ) -> Reply:
        deadline = time.monotonic() + timeout_s
        if self._enrolled_group(device) is None:
            raise NotFoundError(
                f"no device {device!r} on {self.name}", cure="list them with: edgefleet devices"
            )
        number = uuid.uuid4().hex
        request = {"id": number, **request_of(path, headers, body)}
        payload = json.dumps(request).encode()
        if len(payload) > MAX_REQUEST:
            raise LimitExceededError(
                f"a request of {len(payload)} bytes; AWS IoT carries {MAX_REQUEST}",
                cure="send less at once, or ask the device on its own network",
            )
        topic = self._names.invoke_topic(device)
        self._clients.iot_data.publish(topic=topic, qos=1, payload=payload)
        key = f"{self._names.devices_folder(device)}replies/{number}.json"
        return reply_of(device, self._await_object(device, key, deadline))

    def _await_object(self, device: str, key: str, deadline: float) -> bytes:
        at = {"Bucket": self._settings.bucket, "Key": key}
        pause = _FIRST_POLL_S
        while True:
            try:
                with self._clients.s3.get_object(**at)["Body"] as stream:
                    data: bytes = stream.read()
            except Exception as error:
                if code_of(error) not in _NOT_THERE:
                    raise
            else:
                self._clients.s3.delete_object(**at)
                return data
            left = deadline - time.monotonic()
            if left <= 0:
                raise UnavailableError(
                    f"device {device!r} doesn't answer",
                    cure="see whether it is connected: edgefleet why",
                )
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, _LAST_POLL_S)


def _info(
    device: str, group: str, shadow: Shadow, evidence: dict[str, str], blocked: str | None = None
) -> DeviceInfo:
    if shadow.problem is not None:
        evidence = {**evidence, "report": shadow.problem}
    return DeviceInfo(
        name=device,
        group=group,
        labels=shadow.labels,
        last_seen=shadow.came,
        report=shadow.report,
        evidence=evidence,
        blocked=blocked,
    )
