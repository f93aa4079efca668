"""The kit's suite of deployers over the mock's API server, with devices that the kit plays.

A played device writes with the rights of a pod of the runtime, roles and admission policy included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgefleet.errors import AccessDeniedError
from edgefleet.protocol.report import AccessReport
from edgefleet.testing.kit.deployer import DeployerConformance
from edgefleet_kubernetes.cloud.api_status import Refused
from edgefleet_kubernetes.cloud.api_writes import Write
from edgefleet_kubernetes.names import POINTER_KEY, REPORT_KEY, pointer_name
from providers.kubernetes.tests.deployer_rig import Rig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from edgefleet.interfaces.state import StateStore
    from edgefleet.protocol.event import Event
    from edgefleet.testing.kit.devices import DeviceEnd
    from edgefleet_kubernetes.deployer import KubernetesDeployer

SECRET = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "models", "namespace": "edgefleet"},
    "type": "Opaque",
}


class PlayedDevice:
    """A node's runtime, as far as the cluster sees it."""

    def __init__(self, rig: Rig, name: str) -> None:
        self._rig, self._name = rig, name

    def pointer(self) -> bytes | None:
        """What kubelet mounts of the ConfigMap that its pod's volume names."""
        group = self._rig.deployer.device(self._name).group
        name = pointer_name("edgefleet", group)
        found = self._rig.store().find("ConfigMap", name, "edgefleet")
        return None if found is None else found["data"][POINTER_KEY].encode()

    def access(self) -> AccessReport:
        there = self._rig.store().find("Secret", "models", "edgefleet") is not None
        return AccessReport(state="ok" if there else "expired")

    def send_report(self, report: bytes) -> None:
        try:
            self._rig.report(self._name, self._name, {REPORT_KEY: report.decode()})
        except Refused as refused:
            raise AccessDeniedError(str(refused)) from refused

    def send_hot(self, events: Sequence[Event]) -> None:
        raise NotImplementedError

    def upload(self, name: str, path: Path) -> None:
        raise NotImplementedError


class OnCluster(DeployerConformance):
    """What holds for whatever brings pointers there. Fixture: ``rig``."""

    @pytest.fixture
    def device_end(self, rig: Rig) -> Callable[[str], DeviceEnd]:
        return lambda name: PlayedDevice(rig, name)

    @pytest.fixture
    def expire_access(self, rig: Rig) -> Callable[[str], Callable[[], None]]:
        """Models are read with a pull secret."""

        def expire(_: str) -> Callable[[], None]:
            rig.store().delete("Secret", "models", "edgefleet")
            return lambda: rig.put(SECRET)

        return expire

    @pytest.fixture
    def forge_report(self, rig: Rig) -> Callable[[str, str, bytes], None]:
        def forge(by: str, victim: str, report: bytes) -> None:
            with pytest.raises(Refused, match="the report of its own node alone"):
                rig.report(by, victim, {REPORT_KEY: report.decode()})

        return forge


class TestDeployer(OnCluster):
    @pytest.fixture
    def rig(self, tmp_path: Path, state: Callable[[], StateStore]) -> Iterator[Rig]:
        made = Rig(tmp_path / "cloud", state)
        made.deployer.install()
        made.put(SECRET)
        yield made
        made.close()

    @pytest.fixture
    def deployer(self, rig: Rig) -> KubernetesDeployer:
        return rig.deployer

    @pytest.fixture
    def foreign(self, rig: Rig) -> tuple[Callable[[str], None], Callable[[], None]]:
        theirs = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "edgefleet-pointer-theirs", "namespace": "edgefleet"},
            "data": {POINTER_KEY: "not ours"},
        }

        def plant(group: str) -> None:
            rig.put(theirs)
            labels = {"metadata": {"labels": {"rack": "4"}}}
            rig.store().patch("Node", "a", labels, how=Write(manager="rack-tool"))

        def check() -> None:
            found = rig.store().get("ConfigMap", "edgefleet-pointer-theirs", "edgefleet")
            assert found["data"] == theirs["data"]
            assert rig.store().get("Node", "a")["metadata"]["labels"]["rack"] == "4"

        return plant, check
