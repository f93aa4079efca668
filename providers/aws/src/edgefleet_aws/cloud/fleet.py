"""A fleet on the mock cloud: its side of Greengrass, and devices that run the real runtime."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from contextlib import closing
from importlib import metadata
from typing import TYPE_CHECKING, Any, NamedTuple

from edgefleet_aws.clients import Clients
from edgefleet_aws.cloud.greengrass import Greengrass
from edgefleet_aws.cloud.recipes import Kind
from edgefleet_aws.deployer import GreengrassDeployer
from edgefleet_aws.install import Installation
from edgefleet_aws.names import Names
from edgefleet_aws.recipes import run_lifecycle, runtime_recipe
from edgefleet_aws.state import S3StateStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from edgefleet_aws.cloud.stage import Stage
    from edgefleet_aws.settings import AwsSettings


LISTEN_S = 60.0  # after which a device that came back is left to itself
POLL_S = 0.02


class _Device(NamedTuple):
    kind: Kind
    hardware: dict[str, str]
    on: bool = True


class DeviceFleet:
    """Devices of one fleet.

    Args:
        stage: the cloud that they are on.
        region: of everything.
        folder: for the devices' disks.
        borrowed: gives variables of other clouds, which components find in their environment too.

    Attributes:
        greengrass: what is mounted for them.
        nuclei: kinds of the devices' nuclei, by turns.
    """

    def __init__(
        self,
        stage: Stage,
        region: str,
        folder: Path,
        *,
        borrowed: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._stage, self._region, self._folder = stage, region, folder
        self._borrowed = borrowed
        self.greengrass = Greengrass(stage.mounts, region, folder, self._environment)
        self.nuclei: tuple[Kind, ...] = (Kind.CLASSIC, Kind.LITE)
        self._devices: dict[str, _Device] = {}
        self._installed = False

    def install(self, settings: AwsSettings, *, lifecycle: Mapping[str, Any] | None = None) -> None:
        """Prepare a fleet's side of Greengrass; no error when it is there.

        Args:
            settings: of the fleet.
            lifecycle: of the runtime's component; None runs the runtime with this Python.
        """
        if self._installed:
            return
        names = Names(settings)
        self.greengrass.devices.role_alias = names.devices
        scripts = run_lifecycle(sys.executable) if lifecycle is None else dict(lifecycle)
        version = metadata.version("edgefleet-runtime")
        with closing(self._clients(settings)) as clients:
            Installation(clients, settings, runtime_recipe(names, version, scripts)).install()
        self._installed = True

    def add(
        self, settings: AwsSettings, name: str, *, group: str, labels: Mapping[str, str]
    ) -> None:
        """Enrol a device and start its nucleus; the runtime runs when that has deployed it."""
        self.install(settings)
        store = S3StateStore(self._clients(settings), settings)
        deployer = GreengrassDeployer(self._clients(settings), settings, state=lambda: store)
        with closing(store), closing(deployer):
            deployer.enroll(name, group=group, labels=labels)
        kept = name in self._devices
        self.power_on(name, labels)
        if kept:
            self._wait_until_it_listens(Names(settings), name)

    def power_on(self, name: str, hardware: Mapping[str, str]) -> None:
        """Give an enrolled device a nucleus, and wait until that has done what is wanted of it.

        Args:
            name: the device's.
            hardware: what it is, in place of this machine.
        """
        if name not in self._devices:
            kind = self.nuclei[len(self._devices) % len(self.nuclei)]
            self._devices[name] = _Device(kind, dict(hardware))
            self._place(name)
        if self.greengrass.site.nucleus(name).on:
            self.greengrass.site.settle(name)

    def _wait_until_it_listens(self, names: Names, name: str) -> None:
        """Wait for a device that came back to hear operators again, while its runtime is up.

        IoT Core keeps no request for a device that doesn't listen: whoever sent one waits in vain.
        """
        nucleus, topic = self.greengrass.site.nucleus(name), names.invoke_topic(name)
        deadline = time.monotonic() + LISTEN_S
        while nucleus.process_id(names.runtime) and not self.greengrass.devices.listens(topic):
            if time.monotonic() > deadline:
                return
            time.sleep(POLL_S)

    def _place(self, name: str) -> None:
        kind, hardware, on = self._devices[name]
        variables = {"EDGEFLEET_LABELS": json.dumps(hardware)} if hardware else {}
        self.greengrass.site.add(name, kind, variables, on=on)

    def shut_down(self) -> None:
        """Shut every device down in order; their disks stay, and `kept` still tells of them."""
        site = self.greengrass.site
        for name, device in self._devices.items():
            self._devices[name] = device._replace(on=site.nucleus(name).on)
        site.stop()

    def kept(self) -> Any:  # noqa: ANN401 - JSON
        """The devices as they were before `shut_down`."""
        return {name: [one.kind.value, one.hardware, one.on] for name, one in self._devices.items()}

    def restore(self, kept: Any) -> None:  # noqa: ANN401 - JSON
        """Put these devices there again, with their disks; those that were on start."""
        for name, (kind, hardware, on) in kept.items():
            self._devices[name] = _Device(Kind(kind), hardware, on=on)
            self._place(name)

    def forget(self) -> None:
        """Shut every device down, and forget devices, groups and deployments; disks stay."""
        self._devices.clear()
        self._installed = False
        self.greengrass.stop()

    def remove(self) -> None:
        """Shut every device down, and forget devices, disks, groups and deployments."""
        try:
            self.forget()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _clients(self, settings: AwsSettings) -> Clients:
        return _ClientsOf(self._stage, settings)

    def _environment(self) -> dict[str, str]:
        """What components find in their environment, beside what the nucleus tells them."""
        return {
            **self._borrowed(),
            "PATH": os.environ.get("PATH", os.defpath),
            "AWS_ENDPOINT_URL": self._stage.url,
            "no_proxy": "127.0.0.1",
        }


class _ClientsOf(Clients):
    """Clients of the mock itself, whatever the environment says."""

    def __init__(self, stage: Stage, settings: AwsSettings) -> None:
        super().__init__(settings)
        self._stage = stage

    def _make(self, service: str) -> Any:  # noqa: ANN401 - boto3 has no types
        return self._stage.client(service)

    def close(self) -> None:
        """Leave them open: everybody has the same."""
