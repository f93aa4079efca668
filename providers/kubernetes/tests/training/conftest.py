"""Fixtures of training's tests: a registry, and what an operator keeps in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from edgefleet.testing.cloud.oci import OciRegistry
from edgefleet_kubernetes.artifacts import Artifacts, open_artifacts
from edgefleet_kubernetes.clients import Clients
from edgefleet_kubernetes.cloud.node_images import TRAINING_IMAGE
from edgefleet_kubernetes.mock import KubernetesMock
from edgefleet_kubernetes.settings import KubernetesSettings
from edgefleet_kubernetes.trainer import KubernetesTrainer


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[OciRegistry]:
    with OciRegistry(tmp_path / "registry") as found:
        yield found


@pytest.fixture
def artifacts_of(tmp_path: Path) -> Iterator[Callable[..., Artifacts]]:
    """Opens the artifacts of a fleet in a registry, with more settings."""
    opened: list[Artifacts] = []

    def make(registry: OciRegistry, **more: object) -> Artifacts:
        told = {"prefix": "plant", "registry": f"oci://{registry.host}/plant", **more}
        opened.append(open_artifacts(KubernetesSettings.model_validate(told), tmp_path))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[KubernetesMock]:
    """A cluster of two nodes, the first with two GPUs."""
    mock = KubernetesMock(tmp_path / "mock")
    mock.start()
    try:
        mock.stage.nodes.add_node("node-1", resources={"nvidia.com/gpu": "2"})
        mock.stage.nodes.add_node("node-2")
        yield mock
    finally:
        mock.stop()


@pytest.fixture
def told(cluster: KubernetesMock, registry: OciRegistry) -> dict[str, Any]:
    """Settings of a fleet on the cluster, with a registry beside it."""
    return {
        **cluster.settings,
        "prefix": "plant",
        "kubeconfig": str(cluster.kubeconfig),
        "registry": f"oci://{registry.host}/plant",
        "training_image": TRAINING_IMAGE,
    }


@pytest.fixture
def trainers(told: dict[str, Any], tmp_path: Path) -> Iterator[Callable[..., KubernetesTrainer]]:
    """Makes trainers with more settings; closed at the end."""
    with ExitStack() as opened:

        def make(**more: object) -> KubernetesTrainer:
            settings = KubernetesSettings.model_validate({**told, **more})
            trainer = KubernetesTrainer(Clients(settings), settings, base=tmp_path)
            opened.callback(trainer.close)
            return trainer

        yield make


@pytest.fixture
def on_cluster(trainers: Callable[..., KubernetesTrainer]) -> KubernetesTrainer:
    return trainers()
