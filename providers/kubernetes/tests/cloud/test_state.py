"""Shared documents in ConfigMaps: the kit's suite, and what is Kubernetes' own about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from edgefleet.errors import (
    AccessDeniedError,
    ConflictError,
    DocumentError,
    LimitExceededError,
    NotFoundError,
    UnavailableError,
)
from edgefleet.interfaces.state import MAX_BYTES
from edgefleet.testing.cloud.rules import Rule, Rules
from edgefleet.testing.kit.samples import noise
from edgefleet.testing.kit.state_service import StateServiceConformance
from edgefleet_kubernetes import state as state_module
from edgefleet_kubernetes.clients import Clients
from edgefleet_kubernetes.cloud.api_status import Refused
from edgefleet_kubernetes.cloud.stage import Stage
from edgefleet_kubernetes.mock import KubernetesMock
from edgefleet_kubernetes.names import state_name
from edgefleet_kubernetes.settings import KubernetesSettings
from edgefleet_kubernetes.state import KubernetesStateStore
from providers.kubernetes.tests.cloud.place import Place

MakeClients = Callable[..., Clients]
CALLS = {"replace": "configmaps.update", "delete": "configmaps.delete"}


@pytest.fixture
def settings(namespace: str) -> KubernetesSettings:
    return KubernetesSettings(namespace=namespace, prefix="plant")


@pytest.fixture
def state(clients: Clients, settings: KubernetesSettings) -> Iterator[KubernetesStateStore]:
    made = KubernetesStateStore(clients, settings)
    yield made
    made.close()


class TestState(StateServiceConformance):
    @pytest.fixture
    def state(self, place: Place) -> KubernetesStateStore:
        settings = KubernetesSettings(namespace=place.namespace, prefix="plant")
        return KubernetesStateStore(place.clients, settings)

    @pytest.fixture
    def faults(self, request: pytest.FixtureRequest, place: Place) -> Rules:
        """Rules of the cluster that the test runs on."""
        if request.node.callspec.params["place"] == "live":
            pytest.skip("no fault can be injected into a real cluster")
        mock: KubernetesMock = request.getfixturevalue("mock")
        return mock.rules

    @pytest.fixture
    def lose_answer(self, faults: Rules) -> Callable[[str], None]:
        return lambda what: faults.add(Rule(CALLS[what], cut_answer_at=0))

    @pytest.fixture
    def throttle(self, faults: Rules) -> Callable[[str], None]:
        fault = Refused(429, "TooManyRequests", "slowly")
        return lambda what: faults.add(Rule(CALLS[what], fault=fault))


def test_the_largest_document_fits_in_an_object(state: KubernetesStateStore) -> None:
    state.write("doc", noise(MAX_BYTES, 1), expect=None)
    found = state.read("doc")
    assert found is not None
    assert len(found.data) == MAX_BYTES


def test_what_no_object_holds_is_refused_before_it_is_sent(
    state: KubernetesStateStore, mock: KubernetesMock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "MAX_OBJECT", 10)
    before = len(list(mock.seen()))
    with pytest.raises(LimitExceededError, match=r"an object of Kubernetes holds 10"):
        state.write("doc", b"x" * 11, expect=None)
    assert len(list(mock.seen())) == before


def test_a_document_whose_making_lost_its_answer_is_there(
    state: KubernetesStateStore, mock: KubernetesMock
) -> None:
    mock.rules.add(Rule("configmaps.create", cut_answer_at=0))
    with pytest.raises(UnavailableError):  # a POST isn't repeated: it might be made twice
        state.write("doc", b"1", expect=None)
    found = state.read("doc")
    assert found is not None
    assert found.data == b"1"


def test_somebody_elses_write_in_between_is_a_conflict(
    state: KubernetesStateStore, make_clients: MakeClients, settings: KubernetesSettings
) -> None:
    tag = state.write("doc", b"1", expect=None)
    KubernetesStateStore(make_clients(), settings).write("doc", b"2", expect=tag)
    with pytest.raises(ConflictError):
        state.write("doc", b"3", expect=tag)


def test_fleets_share_a_namespace(
    state: KubernetesStateStore, clients: Clients, namespace: str
) -> None:
    other = KubernetesStateStore(clients, KubernetesSettings(namespace=namespace, prefix="depot"))
    state.write("groups/a", b"1", expect=None)
    other.write("groups/a", b"2", expect=None)
    assert [list(one.keys("groups/")) for one in (state, other)] == [["groups/a"]] * 2
    found = state.read("groups/a")
    assert found is not None
    assert found.data == b"1"


def test_keys_are_listed_page_by_page_without_documents(
    state: KubernetesStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "PAGE", 2)
    for number in range(5):
        state.write(f"groups/{number}", b"x", expect=None)
    state.write("fleet", b"x", expect=None)
    assert list(state.keys("groups/")) == [f"groups/{number}" for number in range(5)]


@pytest.mark.parametrize("change", ["annotation", "data"])
def test_an_object_that_was_tampered_with_is_told(
    state: KubernetesStateStore, cluster: Stage, namespace: str, change: str
) -> None:
    state.write("doc", b"1", expect=None)
    found = cluster.store.get("ConfigMap", state_name("plant", "doc"), namespace)
    if change == "annotation":
        found["metadata"]["annotations"]["edgefleet.dev/key"] = "other"
    else:
        del found["binaryData"]
    cluster.store.update(found)
    with pytest.raises(DocumentError, match=r"find out who changed it"):
        state.read("doc")


def test_a_cluster_that_isnt_prepared_is_told_with_the_cure(clients: Clients) -> None:
    store = KubernetesStateStore(clients, KubernetesSettings(namespace="nowhere"))
    with pytest.raises(NotFoundError, match=r"edgefleet install --provider kubernetes"):
        store.write("doc", b"1", expect=None)


def test_who_may_not_is_told_by_whom(
    cluster: Stage, make_clients: MakeClients, settings: KubernetesSettings
) -> None:
    store = KubernetesStateStore(make_clients(cluster.add_user("guest")), settings)
    with pytest.raises(AccessDeniedError, match=r'User "guest" cannot get resource "configmaps"'):
        store.read("doc")
