"""A whole device of the mock: its pod's real runtime, from the pointer to what it recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import edgefleet as ef
from device_runtime.tests.node.device import times
from edgefleet.interfaces.abilities import CanInstall
from edgefleet.testing.waiting import eventually
from edgefleet_kubernetes.cloud.node_images import RUNTIME_IMAGE
from edgefleet_kubernetes.mock import KubernetesMock

NODE = "edge-7"
GROUP = "line-3"


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesMock]:
    made = KubernetesMock(tmp_path / "mock")
    made.start()
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    yield made
    made.stop()


@pytest.fixture
def fleet(cloud: KubernetesMock, tmp_path: Path) -> Iterator[ef.Fleet]:
    settings = {**cloud.settings, "runtime_image": RUNTIME_IMAGE}
    told = "\n".join(f'{name} = "{value}"' for name, value in settings.items())
    profile = tmp_path / "edgefleet.toml"
    profile.write_text(
        f'[profiles.default]\nprovider = "kubernetes"\n[profiles.default.kubernetes]\n{told}\n',
        encoding="utf-8",
    )
    made = ef.connect(config=profile)
    yield made
    made.close()


def test_a_release_arrives_and_outlives_its_pod_with_no_registry(
    cloud: KubernetesMock, fleet: ef.Fleet, tmp_path: Path
) -> None:
    deployer = fleet.deployers["kubernetes"]
    assert isinstance(deployer, CanInstall)
    deployer.install(group=GROUP)
    (tmp_path / "model.onnx").write_bytes(times(2.0))
    model = fleet.push(tmp_path / "model.onnx", "digits")
    deployment = fleet.deploy(model, to=GROUP)
    cloud.add_device(NODE, group=GROUP)
    deployment.wait(timeout_s=90)
    told = eventually(lambda: list(fleet.telemetry.query(kind="health")))
    assert {event.device for event in told} == {NODE}

    cloud.registry.stop()
    nodes = cloud.stage.nodes
    before = set(nodes.pids(NODE).values())
    for pod in cloud.stage.store.list("Pod"):
        cloud.stage.store.delete("Pod", pod["metadata"]["name"], pod["metadata"]["namespace"])
    eventually(lambda: (now := set(nodes.pids(NODE).values())) and not now & before)

    def again() -> bool:
        report = deployer.device(NODE).report
        return report is not None and report.health.starts == 2 and report.state == "active"

    eventually(again)
    cloud.registry.start()
