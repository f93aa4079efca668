"""The mock's registry: the stand-in, or Debian's ``docker-registry`` and the whole way over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pytest

from device_runtime.tests.node.device import times
from edgefleet.errors import ConfigurationError
from edgefleet.protocol.tags import path_of
from edgefleet.testing.kit import samples
from edgefleet.testing.mock import MockSession, mock
from edgefleet.testing.waiting import eventually
from edgefleet_kubernetes.clients import Clients
from edgefleet_kubernetes.cloud.oci_registry import installed
from edgefleet_kubernetes.mock import (
    REGISTRY_VARIABLE,
    REPOSITORY,
    KubernetesMock,
    RegistryKind,
)
from edgefleet_kubernetes.registry import KubernetesRegistry
from edgefleet_kubernetes.settings import KubernetesSettings
from edgefleet_kubernetes.state import KubernetesStateStore

GROUP = "line-3"
REAL = pytest.param(
    "docker-registry",
    marks=pytest.mark.skipif(not installed(), reason="docker-registry is not installed here"),
)


@pytest.fixture(autouse=True)
def _no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which registry this machine chose is nobody's business here."""
    monkeypatch.delenv(REGISTRY_VARIABLE, raising=False)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., KubernetesMock]]:
    """Starts mocks on one folder, each after the one before has stopped."""
    made: list[KubernetesMock] = []

    def go(registry: RegistryKind | None = None) -> KubernetesMock:
        for one in made:
            one.stop()
        made.append(KubernetesMock(tmp_path / "mock", registry=registry))
        made[-1].start()
        return made[-1]

    yield go
    for one in made:
        one.stop()


@pytest.fixture
def registry_of(tmp_path: Path) -> Iterator[Callable[[KubernetesMock], KubernetesRegistry]]:
    """Makes an operator's registry on a mock."""
    with ExitStack() as opened:

        def make(cloud: KubernetesMock) -> KubernetesRegistry:
            settings = KubernetesSettings.model_validate(cloud.settings)
            state = opened.enter_context(
                closing(KubernetesStateStore(Clients(settings, base=tmp_path), settings))
            )
            registry = KubernetesRegistry(settings, state=lambda: state, base=tmp_path)
            return opened.enter_context(closing(registry))

        yield make


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MockSession]:
    """The mock as the command has it, with one device."""
    monkeypatch.setenv(REGISTRY_VARIABLE, "docker-registry")
    with mock("kubernetes", devices=1, group=GROUP, state=tmp_path / "mock") as made:
        yield made


@pytest.mark.skipif(not installed(), reason="docker-registry is not installed here")
def test_a_model_goes_to_a_device_and_segments_come_back_by_the_real_registry(
    session: MockSession, tmp_path: Path
) -> None:
    (tmp_path / "model.onnx").write_bytes(times(2.0))
    with session.connect() as fleet:
        model = fleet.push(tmp_path / "model.onnx", "digits")
        fleet.deploy(model, to=GROUP).wait(timeout_s=90)
        answer = fleet.device("dev-01").infer("digits", np.ones((1, 4), np.float32))
        assert float(answer["y"][0, 0]) == 2.0
        told = eventually(lambda: [*fleet.telemetry.query(kind="prediction")], "predictions")
    assert {event.device for event in told} == {"dev-01"}
    below = f"docker-registry/content/docker/registry/v2/repositories/{REPOSITORY}/devices/dev-01"
    tags = tmp_path / "mock" / "kubernetes" / below / "_manifests" / "tags"
    assert any(str(path_of(one.name)).startswith("segments/") for one in tags.iterdir())


@pytest.mark.parametrize("kind", ["stand-in", REAL])
def test_a_mock_that_starts_again_has_its_registry_where_it_was_with_what_it_held(
    kind: RegistryKind,
    start: Callable[..., KubernetesMock],
    registry_of: Callable[[KubernetesMock], KubernetesRegistry],
    tmp_path: Path,
) -> None:
    first = start(kind)
    address = first.settings["registry"]
    registry_of(first).push(samples.bundle(tmp_path), "digits")
    second = start()
    assert second.settings["registry"] == address
    registry_of(second).pull("digits:1", tmp_path / "pulled").verify()


@pytest.mark.skipif(not installed(), reason="docker-registry is not installed here")
def test_another_registry_than_a_folder_began_with_is_refused(
    start: Callable[..., KubernetesMock],
) -> None:
    start("docker-registry")
    with pytest.raises(ConfigurationError, match="pushed to the registry docker-registry, not to"):
        start("stand-in")


def test_a_registry_that_nobody_knows_is_refused(
    start: Callable[..., KubernetesMock], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(REGISTRY_VARIABLE, "harbor")
    with pytest.raises(ConfigurationError, match="no registry 'harbor'"):
        start()


@pytest.mark.skipif(not installed(), reason="docker-registry is not installed here")
def test_the_real_registry_cant_be_looked_into(start: Callable[..., KubernetesMock]) -> None:
    cloud = start("docker-registry")
    with pytest.raises(ConfigurationError, match="start it with the stand-in"):
        _ = cloud.registry
