"""Deletion: finalizers, grace, owners, namespaces."""

from __future__ import annotations

from typing import Any

import pytest

from edgefleet_kubernetes.cloud.api_status import Refused
from edgefleet_kubernetes.cloud.api_store import Store
from providers.kubernetes.tests.cloud.api_samples import Object, config_map, daemon_set, plain, pod


def _owned(name: str, *owners: Object) -> Object:
    references: list[dict[str, Any]] = [
        {
            "apiVersion": one["apiVersion"],
            "kind": one["kind"],
            "name": one["metadata"]["name"],
            "uid": one["metadata"]["uid"],
            "blockOwnerDeletion": True,
        }
        for one in owners
    ]
    return config_map(name, ownerReferences=references)


def _names(store: Store, kind: str = "ConfigMap") -> list[str]:
    return [one["metadata"]["name"] for one in store.list(kind)]


def test_what_isnt_there_cant_be_deleted(store: Store) -> None:
    with pytest.raises(Refused, match=r"404 NotFound"):
        store.delete("ConfigMap", "a", "default")


def test_a_finalizer_holds_an_object_until_it_is_taken_away(store: Store) -> None:
    store.create(config_map(finalizers=["x.dev/wait"]))
    store.delete("ConfigMap", "a", "default")
    held = store.get("ConfigMap", "a", "default")
    assert held["metadata"]["deletionTimestamp"]
    held["metadata"]["finalizers"] = []
    store.update(held)
    assert store.find("ConfigMap", "a", "default") is None


def test_what_is_being_deleted_gets_no_new_finalizers(store: Store) -> None:
    store.create(config_map(finalizers=["x.dev/wait"]))
    store.delete("ConfigMap", "a", "default")
    held = store.get("ConfigMap", "a", "default")
    held["metadata"]["finalizers"].append("x.dev/more")
    with pytest.raises(Refused, match=r"422 .*no new finalizers"):
        store.update(held)


@pytest.mark.parametrize("condition", ["uid", "version"])
def test_a_condition_that_fails_is_a_conflict(store: Store, condition: str) -> None:
    store.create(config_map())
    with pytest.raises(Refused, match=r"409 Conflict: .*Precondition failed"):
        store.delete("ConfigMap", "a", "default", **{condition: "other"})  # type: ignore[arg-type]
    assert _names(store) == ["a"]


def test_a_pod_on_a_node_waits_for_its_kubelet(store: Store) -> None:
    store.create(pod(nodeName="n", terminationGracePeriodSeconds=7))
    marked = store.delete("Pod", "p", "default")
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 7
    assert _names(store, "Pod") == ["p"]
    store.delete("Pod", "p", "default", grace_s=0)
    assert _names(store, "Pod") == []


def test_a_pod_on_no_node_goes_at_once(store: Store) -> None:
    store.create(pod())
    store.delete("Pod", "p", "default")
    assert _names(store, "Pod") == []


def test_what_an_owner_leaves_goes_with_it(store: Store) -> None:
    owner = store.create(daemon_set())
    store.create(_owned("child", owner))
    store.delete("DaemonSet", "d", "default")
    assert _names(store) == []


def test_a_second_owner_keeps_what_the_first_leaves(store: Store) -> None:
    first, second = store.create(config_map("one")), store.create(config_map("two"))
    store.create(_owned("child", first, second))
    store.delete("ConfigMap", "one", "default")
    assert _names(store) == ["child", "two"]
    (reference,) = store.get("ConfigMap", "child", "default")["metadata"]["ownerReferences"]
    assert reference["name"] == "two"


def test_orphans_stay(store: Store) -> None:
    owner = store.create(config_map("one"))
    store.create(_owned("child", owner))
    store.delete("ConfigMap", "one", "default", propagation="Orphan")
    assert "ownerReferences" not in store.get("ConfigMap", "child", "default")["metadata"]


def test_in_the_foreground_an_owner_goes_last(store: Store) -> None:
    owner = store.create(config_map("one"))
    child = {**_owned("child", owner)}
    child["metadata"]["finalizers"] = ["x.dev/wait"]
    store.create(child)
    store.delete("ConfigMap", "one", "default", propagation="Foreground")
    assert _names(store) == ["child", "one"]
    held = store.get("ConfigMap", "child", "default")
    held["metadata"]["finalizers"] = []
    store.update(held)
    assert _names(store) == []


def test_a_child_whose_owner_is_gone_goes_too(store: Store) -> None:
    owner = store.create(config_map("one"))
    store.delete("ConfigMap", "one", "default")
    store.create(_owned("child", owner))
    assert _names(store) == []


def test_a_namespace_goes_with_all_that_is_in_it(store: Store) -> None:
    store.create(plain("Namespace", "other"))
    store.create(config_map(namespace="other"))
    store.delete("Namespace", "other")
    assert (_names(store), _names(store, "Namespace")) == ([], ["default"])


def test_a_namespace_that_is_ending_takes_nothing_new(store: Store) -> None:
    store.create(plain("Namespace", "other"))
    store.create(config_map(namespace="other", finalizers=["x.dev/wait"]))
    store.delete("Namespace", "other")
    with pytest.raises(Refused, match=r"403 Forbidden: .*because it is being terminated"):
        store.create(config_map("b", namespace="other"))
    held = store.get("ConfigMap", "a", "other")
    held["metadata"]["finalizers"] = []
    store.update(held)
    assert store.find("Namespace", "other") is None
