"""The kit's suite of a whole fleet over Kubernetes on its mock: devices that the kit plays, with a
pod's own rights, and real ones, whose runtime a kubelet runs by our manifests.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgefleet.errors import AccessDeniedError
from edgefleet.fleet import Fleet
from edgefleet.policy_files import policy_of
from edgefleet.profile import Profile
from edgefleet.protocol.report import AccessReport
from edgefleet.testing.cloud.oci_tokens import Access, User
from edgefleet.testing.kit.devices import AddDevice, enrolling
from edgefleet.testing.kit.fleet import FleetConformance
from edgefleet.testing.kit.fleet_fixtures import first_deployer
from edgefleet.testing.mock import FAST_TELEMETRY
from edgefleet_kubernetes.cloud.api_status import Refused
from edgefleet_kubernetes.cloud.api_users import service_account
from edgefleet_kubernetes.cloud.api_writes import Write
from edgefleet_kubernetes.deployer import KubernetesDeployer
from edgefleet_kubernetes.mock import KubernetesMock
from edgefleet_kubernetes.names import (
    POINTER_KEY,
    REPORT_KEY,
    fleet_labels,
    pointer_name,
    report_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from edgefleet.protocol.event import Event
    from edgefleet.testing.kit.devices import DeviceEnd

PREFIX, NAMESPACE = "edgefleet", "edgefleet"


class PlayedDevice:
    """A node's runtime, as far as the cluster sees it."""

    def __init__(self, cloud: KubernetesMock, fleet: Fleet, name: str) -> None:
        self._store, self._fleet, self._name = cloud.stage.store, fleet, name

    def pointer(self) -> bytes | None:
        group = first_deployer(self._fleet).device(self._name).group
        found = self._store.find("ConfigMap", pointer_name(PREFIX, group), NAMESPACE)
        return None if found is None else found["data"][POINTER_KEY].encode()

    def access(self) -> AccessReport:
        return AccessReport(state="ok")

    def send_report(self, report: bytes) -> None:
        account = self._store.get("ServiceAccount", f"{PREFIX}-device", NAMESPACE)
        claims = {"authentication.kubernetes.io/node-name": (self._name,)}
        user = service_account(NAMESPACE, f"{PREFIX}-device", account["metadata"]["uid"], claims)
        where = f"{NAMESPACE}-reports"
        document = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": report_name(PREFIX, self._name),
                "namespace": where,
                "labels": fleet_labels(PREFIX, part="report"),
            },
            "data": {REPORT_KEY: report.decode()},
        }
        how = replace(Write(user=user, manager="edgefleet-runtime"), force=True)
        name = document["metadata"]["name"]  # type: ignore[index]
        try:
            self._store.patch("ConfigMap", name, document, where, type="apply", how=how)
        except Refused as refused:
            raise AccessDeniedError(str(refused)) from refused

    def send_hot(self, events: Sequence[Event]) -> None:
        raise NotImplementedError

    def upload(self, name: str, path: Path) -> None:
        raise NotImplementedError


class TestFleet(FleetConformance):
    @pytest.fixture
    def own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesMock]:
        """A cluster without nodes."""
        cloud = KubernetesMock(tmp_path / "cloud")
        cloud.start()
        try:
            for name, value in cloud.environment.items():
                monkeypatch.setenv(name, value)
            yield cloud
        finally:
            cloud.stop()

    @pytest.fixture
    def fleet(self, own: KubernetesMock, tmp_path: Path) -> Iterator[Fleet]:
        profile = Profile(
            name="test",
            base=tmp_path,
            provider="kubernetes",
            recorded=policy_of(FAST_TELEMETRY, "the mock"),
            settings={"kubernetes": own.settings},
        )
        with Fleet(profile) as fleet:
            yield fleet

    @pytest.fixture
    def add_device(self, own: KubernetesMock, fleet: Fleet) -> AddDevice:
        """Enrols a node that has no power."""
        deployer = first_deployer(fleet)
        assert isinstance(deployer, KubernetesDeployer)
        deployer.install()
        enroll = enrolling(self, deployer)

        def add(name: str, /, *, group: str, labels: Mapping[str, str] | None = None) -> None:
            node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
            own.stage.store.create(node)
            enroll(name, group=group, labels=labels)

        return add

    @pytest.fixture
    def device_end(self, own: KubernetesMock, fleet: Fleet) -> Callable[[str], DeviceEnd]:
        return lambda name: PlayedDevice(own, fleet, name)

    @pytest.fixture
    def power_on(self, own: KubernetesMock) -> AddDevice:
        return own.add_device

    @pytest.fixture
    def expire_access(self, own: KubernetesMock) -> Callable[[str], Callable[[], None]]:
        """The registry knows its operator, and nobody else any more."""

        def expire(_: str) -> Callable[[], None]:
            login = {own.registry.host: {"username": "operator", "password": "word"}}
            logins = Path(own.settings["registry_credentials"])
            logins.write_text(json.dumps({"auths": login}), encoding="utf-8")
            own.registry.access = Access(
                {"operator": User("word")}, bearer=True, lifetime_s=300, clock=time.monotonic
            )

            def renew() -> None:
                own.registry.access = None

            return renew

        return expire
