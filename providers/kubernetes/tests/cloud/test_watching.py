"""Watching a cluster: no change is missed, whatever becomes of the connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from lightkube import ApiError

from edgefleet.testing.cloud.rules import Rule
from edgefleet_kubernetes import watching as watching_module
from edgefleet_kubernetes.clients import Clients
from edgefleet_kubernetes.cloud.api_status import Refused
from edgefleet_kubernetes.cloud.stage import Stage
from edgefleet_kubernetes.mock import KubernetesMock
from edgefleet_kubernetes.watching import Change, Watching
from providers.kubernetes.tests.cloud.api_samples import config_map


@pytest.fixture
def path(namespace: str) -> str:
    return f"api/v1/namespaces/{namespace}/configmaps"


@pytest.fixture
def put(cluster: Stage, namespace: str) -> Callable[[str, str], None]:
    """Writes a ConfigMap in the cluster."""

    def put(name: str, value: str) -> None:
        document = config_map(name, data={"k": value}, namespace=namespace)
        store = cluster.store
        if store.find("ConfigMap", name, namespace) is None:
            store.create(document)
        else:
            store.update(document)

    return put


@pytest.fixture
def changes(clients: Clients, path: str) -> Iterator[Iterator[Change]]:
    """Changes of ConfigMaps that were written by tests, after one that is there."""
    watching = Watching(
        clients,
        path,
        query={"fieldSelector": "metadata.name!=kube-root-ca.crt"},
        wait=lambda _seconds: None,
    )
    found = iter(watching)
    yield found
    found.close()  # type: ignore[attr-defined]


def _told(changes: Iterator[Change], count: int) -> list[str]:
    found = []
    for _ in range(count):
        change = next(changes)
        value = change.object.get("data", {}).get("k")
        found.append(f"{change.type} {change.object['metadata']['name']}={value}")
    return found


def test_what_there_is_comes_first_and_then_what_changes(
    changes: Iterator[Change], put: Callable[[str, str], None]
) -> None:
    put("a", "1")
    assert _told(changes, 1) == ["ADDED a=1"]
    put("a", "2")
    put("b", "1")
    assert _told(changes, 2) == ["MODIFIED a=2", "ADDED b=1"]


def test_a_watch_that_is_cut_goes_on_without_a_gap(
    changes: Iterator[Change], put: Callable[[str, str], None], cluster: Stage
) -> None:
    put("a", "1")
    put("b", "1")
    assert _told(changes, 2) == ["ADDED a=1", "ADDED b=1"]
    put("a", "2")
    assert _told(changes, 1) == ["MODIFIED a=2"]
    cluster.cut_watches()
    put("a", "3")
    put("b", "2")
    assert _told(changes, 2) == ["MODIFIED a=3", "MODIFIED b=2"]


def test_what_changed_while_the_server_was_away_is_told(
    changes: Iterator[Change],
    put: Callable[[str, str], None],
    cluster: Stage,
    namespace: str,
) -> None:
    put("a", "1")
    put("b", "1")
    assert _told(changes, 2) == ["ADDED a=1", "ADDED b=1"]
    put("a", "2")
    assert _told(changes, 1) == ["MODIFIED a=2"]  # the watch stands
    with cluster.away():
        put("a", "3")
        cluster.store.delete("ConfigMap", "b", namespace)
        put("c", "1")
    assert _told(changes, 3) == ["MODIFIED a=3", "DELETED b=1", "ADDED c=1"]


def test_a_server_that_is_away_is_asked_until_it_is_back(
    clients: Clients, path: str, put: Callable[[str, str], None], cluster: Stage
) -> None:
    waits: list[float] = []
    away = ExitStack()

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 6:
            away.close()

    put("a", "1")
    query = {"fieldSelector": "metadata.name=a"}
    changes = iter(Watching(clients, path, query=query, wait=wait))
    assert _told(changes, 1) == ["ADDED a=1"]
    put("a", "2")
    assert _told(changes, 1) == ["MODIFIED a=2"]
    away.enter_context(cluster.away())
    put("a", "3")
    assert _told(changes, 1) == ["MODIFIED a=3"]
    assert len(waits) >= 6
    changes.close()  # type: ignore[attr-defined]


def test_a_connection_on_which_nothing_comes_is_dead(
    clients: Clients,
    path: str,
    put: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watching_module, "QUIET_S", 0.2)
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            monkeypatch.setattr(watching_module, "QUIET_S", 60.0)
            put("a", "2")

    put("a", "1")
    query = {"fieldSelector": "metadata.name=a"}
    changes = iter(Watching(clients, path, query=query, wait=wait))
    assert _told(changes, 2) == ["ADDED a=1", "MODIFIED a=2"]
    changes.close()  # type: ignore[attr-defined]


def test_a_past_that_the_server_forgot_is_listed_anew_and_compared(
    changes: Iterator[Change],
    put: Callable[[str, str], None],
    cluster: Stage,
    namespace: str,
) -> None:
    for name in ("a", "b", "c"):
        put(name, "1")
    assert len(_told(changes, 3)) == 3
    put("a", "2")
    assert _told(changes, 1) == ["MODIFIED a=2"]
    with cluster.away():
        put("a", "3")
        cluster.store.delete("ConfigMap", "b", namespace)
        put("d", "1")
        cluster.server.reading.forget()
    assert sorted(_told(changes, 3)) == ["ADDED d=1", "DELETED b=1", "MODIFIED a=3"]
    put("c", "2")
    assert _told(changes, 1) == ["MODIFIED c=2"]


def test_an_object_that_was_made_anew_meanwhile_is_another(
    changes: Iterator[Change],
    put: Callable[[str, str], None],
    cluster: Stage,
    namespace: str,
) -> None:
    put("a", "1")
    assert _told(changes, 1) == ["ADDED a=1"]
    put("a", "2")
    assert _told(changes, 1) == ["MODIFIED a=2"]
    with cluster.away():
        cluster.store.delete("ConfigMap", "a", namespace)
        put("a", "9")
        cluster.server.reading.forget()
    assert _told(changes, 2) == ["DELETED a=2", "ADDED a=9"]


def test_a_server_that_is_busy_is_asked_again(
    mock: KubernetesMock, changes: Iterator[Change], put: Callable[[str, str], None]
) -> None:
    put("a", "1")
    for operation in ("list", "watch"):
        mock.rules.add(Rule(f"configmaps.{operation}", times=2, fault=Refused(503, "x", "busy")))
    assert _told(changes, 1) == ["ADDED a=1"]
    put("a", "2")
    assert _told(changes, 1) == ["MODIFIED a=2"]


def test_who_may_not_watch_is_told(
    cluster: Stage, make_clients: Callable[..., Clients], path: str
) -> None:
    clients = make_clients(cluster.add_user("blind"))
    with pytest.raises(ApiError, match=r"cannot list resource"):
        next(iter(Watching(clients, path)))
