"""Where tests of a cluster run: on the mock, and with ``--live`` on the one of ``KUBECONFIG``."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from edgefleet.testing.waiting import eventually
from edgefleet_kubernetes.clients import Clients
from edgefleet_kubernetes.cloud.stage import Stage
from edgefleet_kubernetes.kubeconfig import VARIABLE
from edgefleet_kubernetes.settings import KubernetesSettings
from providers.kubernetes.tests.cloud.kubectl import Kubectl


@dataclass(frozen=True)
class Place:
    """A namespace of a cluster.

    Attributes:
        clients: of whoever may do everything in it.
        namespace: its name.
        kubectl: runs in it; None where there is none.
    """

    clients: Clients
    namespace: str
    kubectl: Kubectl | None


@contextmanager
def on_mock(cluster: Stage, folder: Path) -> Iterator[Place]:
    """A namespace of the mock's cluster."""
    path = cluster.kubeconfig(folder / "place-config")
    with _place(path, folder) as place:
        yield place


@contextmanager
def on_cluster(folder: Path) -> Iterator[Place]:
    """A namespace of the cluster that ``KUBECONFIG`` names."""
    named = os.environ.get(VARIABLE)
    if not named:
        pytest.fail(f"--live needs {VARIABLE}")
    with _place(Path(named), folder) as place:
        yield place


@contextmanager
def _place(path: Path, folder: Path) -> Iterator[Place]:
    clients = Clients(KubernetesSettings(kubeconfig=path, max_attempts=3))
    name = f"edgefleet-test-{secrets.token_hex(4)}"
    document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    clients.call("POST", "api/v1/namespaces", document=document)
    maps = f"api/v1/namespaces/{name}/configmaps"
    eventually(lambda: clients.call("GET", maps)["items"])  # a controller puts the authority there
    own = yaml.safe_load(path.read_text())
    for context in own["contexts"]:
        context["context"]["namespace"] = name
    config = folder / "kubectl-config"
    config.touch(mode=0o600)
    config.write_text(yaml.safe_dump(own))
    program = shutil.which("kubectl")
    environment = {**os.environ, VARIABLE: str(config), "HOME": str(folder)}
    kubectl = None if program is None else Kubectl(program, environment)
    try:
        yield Place(clients, name, kubectl)
    finally:
        clients.call("DELETE", f"api/v1/namespaces/{name}")
        clients.close()
