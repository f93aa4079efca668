"""Fixtures of the tests of the mock's API server: a store, a running cluster, the real kubectl."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgefleet_kubernetes.clients import Clients
from edgefleet_kubernetes.cloud.api_store import Store
from edgefleet_kubernetes.cloud.stage import Stage
from edgefleet_kubernetes.mock import KubernetesMock
from edgefleet_kubernetes.settings import KubernetesSettings
from providers.kubernetes.tests.cloud.kubectl import Kubectl
from providers.kubernetes.tests.cloud.node_bench import Bench
from providers.kubernetes.tests.cloud.place import Place, on_cluster, on_mock

_numbers = itertools.count(1)


@pytest.fixture
def store() -> Store:
    """A store of its own, with one namespace."""
    made = Store()
    made.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
    return made


@pytest.fixture(scope="session")
def running_mock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubernetesMock]:
    """The mock, running."""
    cloud = KubernetesMock(tmp_path_factory.mktemp("kubernetes"))
    cloud.start()
    yield cloud
    cloud.stop()


@pytest.fixture
def mock(running_mock: KubernetesMock) -> Iterator[KubernetesMock]:
    """The mock, with no faults injected."""
    yield running_mock
    running_mock.rules.clear()


@pytest.fixture
def cluster(mock: KubernetesMock) -> Stage:
    """Its cluster."""
    return mock.stage


@pytest.fixture
def namespace(cluster: Stage) -> str:
    """A namespace of the test's own."""
    name = f"t{next(_numbers)}"
    cluster.store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


@pytest.fixture
def make_clients(mock: KubernetesMock, tmp_path: Path) -> Iterator[Callable[..., Clients]]:
    """Makes clients of whoever has a token; of the operator for none."""
    made: list[Clients] = []

    def make(token: str = "", **changes: object) -> Clients:
        path = mock.stage.kubeconfig(tmp_path / f"kubeconfig-{len(made)}", token=token)
        settings = {"kubeconfig": path, "max_attempts": 1, **changes}
        made.append(Clients(KubernetesSettings.model_validate(settings)))
        return made[-1]

    yield make
    for clients in made:
        clients.close()


@pytest.fixture
def clients(make_clients: Callable[..., Clients]) -> Clients:
    """The operator's clients, which repeat nothing."""
    return make_clients()


@pytest.fixture(params=["mock", pytest.param("live", marks=pytest.mark.live)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A namespace of the test's own, on the mock; with ``--live`` on a real cluster, too."""
    if request.param == "live":
        with on_cluster(tmp_path) as found:
            yield found
    else:
        with on_mock(request.getfixturevalue("cluster"), tmp_path) as found:
            yield found


@pytest.fixture
def kubectl(place: Place) -> Kubectl:
    """Runs the real kubectl in the test's namespace."""
    if place.kubectl is None:
        pytest.skip("kubectl isn't installed")
    return place.kubectl


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A cluster without nodes."""
    bench = Bench(tmp_path)
    yield bench
    bench.stop()
