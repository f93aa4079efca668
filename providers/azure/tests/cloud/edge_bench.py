"""An IoT Hub with devices that run the real runtime, and who operates them without a deployer."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from device_runtime.tests import onnx_models
from device_runtime.tests.support import Repository, details
from edgefleet.protocol.pointer import Pointer
from edgefleet.protocol.report import Report, read_report
from edgefleet.testing.cloud.authority import Authority
from edgefleet.testing.waiting import eventually
from edgefleet_azure.cloud.edge_device import EdgeSite
from edgefleet_azure.cloud.hub_state import HubState
from edgefleet_azure.cloud.hub_values import Configuration, HubError, Identity, Message, key
from providers.azure.tests.cloud.edge_storage import READ, WRITE, Storage

HOST = "plant.azure-devices.test"
MODULE = "edgefleet"
IMAGE = "registry.test/edgefleet-runtime:1"
ROUTE = "FROM /messages/modules/edgefleet/outputs/hot INTO $upstream"


def module_of(
    *, image: str = IMAGE, command: list[str] | None = None, **settings: Any
) -> dict[str, Any]:
    """The runtime's module in a manifest."""
    run = "run --root /var/lib/edgefleet --channel iotedge --uds /run/edgefleet/runtime.sock"
    options = {
        "Cmd": command or run.split(),
        "HostConfig": {
            "Binds": [f"{path}:{path}" for path in ("/var/lib/edgefleet", "/run/edgefleet")]
        },
    }
    return {
        "type": "docker",
        "status": "running",
        "restartPolicy": "always",
        "settings": {"image": image, "createOptions": json.dumps(options)},
        **settings,
    }


def base_of(module: Mapping[str, Any], **agent: Any) -> dict[str, Any]:
    """The base deployment's content."""
    system = {"type": "docker", "settings": {"image": "registry.test/agent:1.6"}}
    return {
        "$edgeAgent": {
            "properties.desired": {
                "schemaVersion": "1.1",
                "runtime": {"type": "docker", "settings": {"minDockerVersion": "v1.25"}},
                "systemModules": {"edgeAgent": system, "edgeHub": system},
                "modules": {MODULE: dict(module)},
                **agent,
            }
        },
        "$edgeHub": {
            "properties.desired": {
                "schemaVersion": "1.1",
                "routes": {"hot": {"route": ROUTE, "priority": 0, "timeToLiveSecs": 60}},
                "storeAndForwardConfiguration": {"timeToLiveSecs": 7200},
            }
        },
    }


class Bench:
    """The hub, its storage, and a site for devices."""

    def __init__(self, root: Path) -> None:
        authority = Authority(root / "authority", vendor="Azure")
        self.hub = HubState(host=HOST)
        self.repository = Repository(root / "repository")
        self.storage = Storage(self.repository.source, authority)
        self.messages: list[Message] = []
        self.hub.on_message(self.messages.append)
        self.now = 1000.0
        bundle = authority.certificate
        self.site = EdgeSite(
            root / "devices",
            images={IMAGE: (sys.executable, "-m", "edgefleet_runtime")},
            environment=lambda: {"PATH": os.environ["PATH"], "SSL_CERT_FILE": str(bundle)},
            authority=authority,
            cool_off_s=0.02,
            clock=lambda: self.now,
        )
        self.deploy("base", base_of(module_of()), priority=1)

    def stop(self) -> None:
        self.site.stop()
        self.storage.stop()

    # -- the operator

    def deploy(self, name: str, content: Mapping[str, Any], *, priority: int) -> None:
        """Make an automatic deployment for all devices, or change one."""
        document = {
            "content": {"modulesContent": dict(content)},
            "targetCondition": "*",
            "priority": priority,
        }
        now = self.hub.now()
        with self.hub.changing():
            self.hub.configurations[name] = Configuration(
                name, document, self.hub.number(), now, now
            )
        self.hub.evaluate_all()

    def add(self, name: str, *, on: bool = True, upload: bool = True) -> None:
        """Enrol a device, and power it on."""
        keys = {"primaryKey": key(), "secondaryKey": key()}
        self.hub.add(Identity(name, None, {"type": "sas", "symmetricKey": keys}, edge=True))
        if upload:
            own = {"address": f"{self.storage.address}/devices/{name}", "write": WRITE}
            self.hub.change_twin(
                name, MODULE, tags=None, desired={"edgefleetUpload": own}, replace=False
            )
        self.site.add(name, self.hub, host=HOST, on=on)

    def publish(self, factor: float = 2.0, *, read: str = READ, padding: int = 0) -> Pointer:
        """Make a release with one model, and point to it in a layered deployment."""
        model = self._model(factor, padding)
        files = {"model.onnx": model.read_bytes()}
        layout = self.repository.bundle(files, details(factor, entry="model.onnx", variant="fp32"))
        release = self.repository.release({"scale": layout})
        pointer = self.repository.pointer(release, sources=[f"{self.storage.address}/models"])
        self.layer(pointer, read=read)
        return pointer

    def _model(self, factor: float, padding: int) -> Path:
        """``y = factor * x``, and so many bytes that no one reads."""
        return onnx_models.save(
            self.repository.root / f"m{self.repository.number}.onnx",
            [helper.make_node("Mul", ["x", "factor"], ["y"])],
            [onnx_models.tensor("x", TensorProto.FLOAT, ["n", 4])],
            [onnx_models.tensor("y", TensorProto.FLOAT, ["n", 4])],
            {
                "factor": np.float32(factor),
                "padding": np.random.default_rng(0).integers(0, 256, padding, np.uint8),
            },
        )

    def layer(self, pointer: Pointer, *, read: str = READ) -> None:
        """Point to a release, and say how blobs may be read."""
        access = {"read": read, "at": f"{self.storage.address}/models"}
        value = {"pointer": pointer.encoded().decode(), "access": access}
        content = {MODULE: {"properties.desired.edgefleet": value}}
        self.deploy("layer", content, priority=10 + pointer.number)

    # -- what the hub knows of devices

    def reported(self, name: str, module: str = MODULE) -> dict[str, Any]:
        """Reported properties; none before the first."""
        try:
            found: dict[str, Any] = self.hub.twin(name, module)["reported"]
        except HubError:
            return {}
        return found

    def report(self, name: str) -> Report | None:
        """The newest report that reached the hub."""
        pieces = self.reported(name).get("edgefleet", {}).get("report", {})
        text = "".join(pieces[number] for number in sorted(pieces, key=int))
        return read_report(text.encode()) if text else None

    def serves(self, name: str, pointer: Pointer) -> Report:
        """Wait for the report that attests a pointer's release."""

        def attested() -> Report | None:
            report = self.report(name)
            good = report is not None and report.attests(pointer.current, pair=pointer.pair)
            return report if good else None

        try:
            found: Report = eventually(attested, f"{name} serves {pointer.number}")
        except AssertionError as error:
            log = "\n".join(self.site.log(name, MODULE, 40))
            raise AssertionError(f"{error}; {self.report(name)}\n{log}") from None
        return found

    def log(self, name: str) -> str:
        return "\n".join(self.site.log(name, MODULE, 10**6))
