"""The registry beside the mock's clusters, and records in their objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from edgefleet.testing.kit import samples
from edgefleet_kubernetes.clients import Clients
from edgefleet_kubernetes.mock import KubernetesMock
from edgefleet_kubernetes.registry import KubernetesRegistry
from edgefleet_kubernetes.settings import KubernetesSettings
from edgefleet_kubernetes.state import KubernetesStateStore

Make = Callable[[], KubernetesRegistry]


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesMock]:
    cloud = KubernetesMock(tmp_path / "cloud")
    cloud.start()
    for key, value in cloud.environment.items():
        monkeypatch.setenv(key, value)
    yield cloud
    cloud.stop()


@pytest.fixture
def make(cloud: KubernetesMock, tmp_path: Path) -> Iterator[Callable[[], KubernetesRegistry]]:
    """Makes a registry as an operator does, with connections of its own."""
    open_ones = ExitStack()

    def made() -> KubernetesRegistry:
        settings = KubernetesSettings.model_validate({"prefix": "plant", **cloud.settings})
        state = KubernetesStateStore(Clients(settings, base=tmp_path), settings)
        registry = KubernetesRegistry(settings, state=lambda: state, base=tmp_path)
        open_ones.callback(state.close)
        open_ones.callback(registry.close)
        return registry

    with open_ones:
        yield made


def test_a_version_is_a_tag_there_and_its_record_an_object_of_the_cluster(
    cloud: KubernetesMock, make: Make, tmp_path: Path
) -> None:
    registry = make()
    bundle = samples.bundle(tmp_path)
    registry.push(bundle, "digits")
    registry.pull("digits:1", tmp_path / "pulled").verify()
    assert cloud.registry.content.repository("edgefleet/models").tags["digits-V1"] == bundle.digest
    assert any(" oci.PutManifest " in line for line in cloud.seen())


def test_two_that_push_at_once_get_two_numbers_from_the_cluster(make: Make, tmp_path: Path) -> None:
    bundles = [samples.bundle(tmp_path, seed) for seed in (1, 2)]
    pushed = samples.at_once([partial(make().push, bundle, "digits") for bundle in bundles])
    assert sorted(version.version for version in pushed) == ["1", "2"]
    there = {v.version: v.digest for v in make().versions("digits")}
    assert there == {version.version: version.digest for version in pushed}


def test_models_are_there_after_a_restart(
    cloud: KubernetesMock, make: Make, tmp_path: Path
) -> None:
    make().push(samples.bundle(tmp_path), "digits")
    host = cloud.registry.host
    cloud.stop()
    cloud.start()
    assert cloud.registry.host == host
    make().pull("digits:1", tmp_path / "pulled").verify()
