"""Devices of a mock cloud: enrolled as an operator does it, and kept over the mock's restarts."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edgefleet.errors import NotFoundError
from edgefleet_azure.cloud.edge_device import EdgeSite
from edgefleet_azure.cloud.edge_module import COOL_OFF_S

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgefleet.interfaces.abilities import CanEnroll
    from edgefleet_azure.cloud.stage import Stage

RUNTIME_IMAGE = "edgefleetmock.azurecr.io/edgefleet-runtime:mock"
"""The image of the device runtime in the mock's registry: this Python and what is installed."""


class _Device(NamedTuple):
    hub: str
    hardware: dict[str, str]
    on: bool = True


class DeviceFleet:
    """Devices on the hubs of a mock cloud.

    Args:
        stage: the cloud that they are on.
        folder: for the devices' disks.
        cool_off_s: the first pause before a module is restarted.
        borrowed: gives variables of other clouds, which modules find in their environment too.

    Attributes:
        site: where they stand.
    """

    def __init__(
        self,
        stage: Stage,
        folder: Path,
        *,
        cool_off_s: float = COOL_OFF_S,
        borrowed: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._stage, self._borrowed = stage, borrowed
        self._devices: dict[str, _Device] = {}
        self.site = EdgeSite(
            folder,
            images={RUNTIME_IMAGE: (sys.executable, "-m", "edgefleet_runtime")},
            environment=self._environment,
            authority=stage.authority,
            cool_off_s=cool_off_s,
        )

    def add(self, deployer: CanEnroll, name: str, *, group: str, labels: Mapping[str, str]) -> None:
        """Enrol a device and power it on, and wait until it has done what is wanted of it.

        Args:
            deployer: of the fleet, which is installed.
            name: the device's.
            group: of the fleet.
            labels: of the device; its runtime takes them for its hardware, in place of this
                machine's.
        """
        deployer.enroll(name, group=group, labels=labels)
        if name not in self._devices:
            self._devices[name] = _Device(self._hub_of(name), dict(labels))
            self._place(name)
        self.site.settle(name)

    def shut_down(self) -> None:
        """Shut every device down in order; their disks stay, and `kept` still tells of them."""
        for name, device in self._devices.items():
            self._devices[name] = device._replace(on=self.site.device(name).agent is not None)
        self.site.stop()

    def kept(self) -> Any:  # noqa: ANN401 - JSON
        """The devices as they were before `shut_down`."""
        return {name: list(device) for name, device in self._devices.items()}

    def restore(self, kept: Any) -> None:  # noqa: ANN401 - JSON
        """Put these devices there again, with their disks; those that were on start."""
        for name, fields in kept.items():
            self._devices[name] = _Device(*fields)
            self._place(name)

    def _place(self, name: str) -> None:
        hub, hardware, on = self._devices[name]
        self.site.add(
            name,
            self._stage.iot_hubs[hub].state,
            host=self._stage.authority_of(hub),
            variables={"EDGEFLEET_LABELS": json.dumps(hardware)} if hardware else {},
            on=on,
        )

    def _hub_of(self, device: str) -> str:
        for name, service in self._stage.iot_hubs.items():
            if (device, None) in service.state.identities:
                return name
        raise NotFoundError(f"no hub of the mock knows the device {device!r}")

    def _environment(self) -> dict[str, str]:
        """What modules find in their environment, beside what edgeAgent tells them."""
        programs = str(Path(sys.executable).parent)  # this Python is the image's
        return {
            **self._borrowed(),
            "PATH": os.pathsep.join((programs, os.environ.get("PATH", os.defpath))),
            "SSL_CERT_FILE": str(self._stage.authority.bundle.absolute()),
        }
