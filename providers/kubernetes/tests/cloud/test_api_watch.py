"""Watches in process: order, selectors, the bounded past."""

from __future__ import annotations

import pytest

from edgefleet_kubernetes.cloud.api_status import Refused
from edgefleet_kubernetes.cloud.api_store import Store
from edgefleet_kubernetes.cloud.api_watch import Watch
from providers.kubernetes.tests.cloud.api_samples import config_map


def _told(watch: Watch) -> list[str]:
    found = []
    while (change := watch.next(0)) is not None:
        found.append(f"{change.type} {change.object['metadata']['name']}")
    return found


def test_changes_come_in_order(store: Store) -> None:
    watch = store.watch("ConfigMap", since=store.version)
    made = store.create(config_map())
    store.update({**made, "data": {"k": "1"}})
    store.delete("ConfigMap", "a", "default")
    assert _told(watch) == ["ADDED a", "MODIFIED a", "DELETED a"]


def test_without_a_version_what_there_is_comes_first(store: Store) -> None:
    store.create(config_map("b"))
    store.create(config_map("a"))
    watch = store.watch("ConfigMap")
    store.create(config_map("c"))
    assert _told(watch) == ["ADDED a", "ADDED b", "ADDED c"]


def test_from_a_version_only_what_came_after_is_told(store: Store) -> None:
    since = store.create(config_map("a"))["metadata"]["resourceVersion"]
    store.create(config_map("b"))
    assert _told(store.watch("ConfigMap", since=since)) == ["ADDED b"]


def test_a_deleted_object_has_the_version_of_its_deletion(store: Store) -> None:
    since = store.create(config_map())["metadata"]["resourceVersion"]
    watch = store.watch("ConfigMap", since=since)
    store.delete("ConfigMap", "a", "default")
    change = watch.next(0)
    assert change is not None
    assert int(change.object["metadata"]["resourceVersion"]) > int(since)


def test_an_object_comes_and_goes_with_its_labels(store: Store) -> None:
    watch = store.watch("ConfigMap", labels="on=yes", since=store.version)
    made = store.create(config_map(labels={"on": "no"}))
    for value in ("yes", "no"):
        made["metadata"]["labels"] = {"on": value}
        made = store.update(made)
    assert _told(watch) == ["ADDED a", "DELETED a"]


def test_other_namespaces_and_kinds_arent_told(store: Store) -> None:
    watch = store.watch("ConfigMap", "default", since=store.version)
    store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}})
    store.create(config_map(namespace="other"))
    assert _told(watch) == []


def test_a_past_that_is_forgotten_is_gone() -> None:
    store = Store(history=2)
    store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
    since = store.version
    for number in range(4):
        store.create(config_map(f"a{number}"))
    with pytest.raises(Refused, match=r"410 Expired: too old resource version"):
        store.watch("ConfigMap", since=since)
    latest = store.version
    store.forget()
    assert _told(store.watch("ConfigMap", since=latest)) == []


def test_a_closed_watch_gives_what_came_before_and_ends(store: Store) -> None:
    watch = store.watch("ConfigMap", since=store.version)
    store.create(config_map())
    watch.close()
    store.create(config_map("b"))
    assert [change.object["metadata"]["name"] for change in watch] == ["a"]
