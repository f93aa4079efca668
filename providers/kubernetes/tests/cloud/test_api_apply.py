"""Server-side apply: ownership of fields, conflicts, force, what goes away."""

from __future__ import annotations

from typing import Any

import pytest

from edgefleet_kubernetes.cloud.api_status import Refused
from edgefleet_kubernetes.cloud.api_store import Store
from edgefleet_kubernetes.cloud.api_writes import Write
from providers.kubernetes.tests.cloud.api_samples import Object, config_map, daemon_set, pod


def _apply(store: Store, document: Object, manager: str, *, force: bool = False) -> Object:
    return store.patch(
        document["kind"],
        document["metadata"]["name"],
        document,
        "default",
        type="apply",
        how=Write(manager=manager, force=force),
    )


def _owned(document: Object, manager: str) -> Any:
    entries = document["metadata"]["managedFields"]
    return next((one["fieldsV1"] for one in entries if one["manager"] == manager), None)


def _containers(*containers: Object) -> Object:
    found = daemon_set()
    found["spec"]["template"]["spec"] = {"containers": list(containers)}
    return found


def test_apply_makes_what_isnt_there(store: Store) -> None:
    made = _apply(store, config_map(data={"k": "1"}), "one")
    assert made["data"] == {"k": "1"}
    assert _owned(made, "one") == {"f:data": {"f:k": {}}}


def test_applying_the_same_again_changes_nothing(store: Store) -> None:
    first = _apply(store, daemon_set(), "one")
    assert _apply(store, daemon_set(), "one") == first


def test_managers_share_a_map_by_its_keys(store: Store) -> None:
    _apply(store, config_map(data={"a": "1"}), "one")
    made = _apply(store, config_map(data={"b": "2"}), "two")
    assert made["data"] == {"a": "1", "b": "2"}


def test_another_value_for_anothers_field_is_a_conflict_that_names_both(store: Store) -> None:
    _apply(store, config_map(data={"a": "1"}), "one")
    with pytest.raises(Refused) as caught:
        _apply(store, config_map(data={"a": "2"}), "two")
    refused = caught.value
    assert (refused.code, refused.reason) == (409, "Conflict")
    assert refused.message == 'Apply failed with 1 conflict: conflict with "one": .data.a'
    cause = {"reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".data.a"}
    assert refused.details["causes"] == [cause]


def test_conflicts_are_told_by_manager(store: Store) -> None:
    _apply(store, config_map(data={"a": "1", "b": "1"}), "one")
    _apply(store, config_map(data={"c": "1"}), "two")
    with pytest.raises(Refused) as caught:
        _apply(store, config_map(data={"a": "2", "b": "2", "c": "2"}), "three")
    assert caught.value.message.splitlines() == [
        'Apply failed with 3 conflicts: conflicts with "one":',
        "- .data.a",
        "- .data.b",
        'conflicts with "two":',
        "- .data.c",
    ]


def test_a_field_that_was_updated_belongs_to_who_updated_it(store: Store) -> None:
    made = _apply(store, config_map(data={"a": "1"}), "one")
    made["data"]["a"] = "2"
    store.update(made, how=Write(manager="kubectl-edit"))
    with pytest.raises(Refused, match=r'conflict with "kubectl-edit" using v1: .data.a'):
        _apply(store, config_map(data={"a": "1"}), "one")


def test_force_takes_fields_over(store: Store) -> None:
    _apply(store, config_map(data={"a": "1", "b": "1"}), "one")
    made = _apply(store, config_map(data={"a": "2"}), "two", force=True)
    assert made["data"] == {"a": "2", "b": "1"}
    assert _owned(made, "one") == {"f:data": {"f:b": {}}}
    assert _owned(made, "two") == {"f:data": {"f:a": {}}}


def test_the_same_value_is_owned_by_both(store: Store) -> None:
    _apply(store, config_map(data={"a": "1"}), "one")
    made = _apply(store, config_map(data={"a": "1"}), "two")
    assert _owned(made, "one") == _owned(made, "two")
    kept = _apply(store, config_map(data={}), "one")
    assert kept["data"] == {"a": "1"}


def test_what_isnt_applied_any_more_goes_away(store: Store) -> None:
    _apply(store, config_map(data={"a": "1", "b": "2"}, labels={"x": "y"}), "one")
    made = _apply(store, config_map(data={"b": "2"}), "one")
    assert made["data"] == {"b": "2"}
    assert "labels" not in made["metadata"]


def test_containers_merge_by_name(store: Store) -> None:
    _apply(store, _containers({"name": "a", "image": "a:1"}), "one")
    second = {"name": "b", "image": "b:1"}
    other = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "d"},
        "spec": {"template": {"spec": {"containers": [second]}}},
    }
    made = _apply(store, other, "two")
    containers = made["spec"]["template"]["spec"]["containers"]
    assert [one["name"] for one in containers] == ["a", "b"]
    owned = _owned(made, "two")["f:spec"]["f:template"]["f:spec"]["f:containers"]
    assert owned == {'k:{"name":"b"}': {".": {}, "f:image": {}, "f:name": {}}}
    del other["spec"]
    made = _apply(store, other, "two")
    containers = made["spec"]["template"]["spec"]["containers"]
    assert [one["name"] for one in containers] == ["a"]


def test_a_conflict_names_the_item_of_a_list(store: Store) -> None:
    _apply(store, _containers({"name": "a", "image": "a:1"}), "one")
    with pytest.raises(Refused, match=r'spec.template.spec.containers\[name="a"\].image'):
        _apply(store, _containers({"name": "a", "image": "a:2"}), "two")


def test_ports_are_told_apart_by_protocol_too(store: Store) -> None:
    ports = [{"containerPort": 80, "protocol": "UDP"}, {"containerPort": 80}]
    made = _apply(store, _containers({"name": "a", "image": "a:1", "ports": ports}), "one")
    again = _apply(store, _containers({"name": "a", "image": "a:1", "ports": ports}), "one")
    assert again == made


def test_finalizers_are_a_set(store: Store) -> None:
    _apply(store, config_map(finalizers=["x.dev/a"]), "one")
    made = _apply(store, config_map(finalizers=["x.dev/b"]), "two")
    assert made["metadata"]["finalizers"] == ["x.dev/a", "x.dev/b"]
    made = _apply(store, config_map(), "one")
    assert made["metadata"]["finalizers"] == ["x.dev/b"]


def test_an_atomic_map_is_replaced_whole(store: Store) -> None:
    store.create(pod("p", nodeSelector={"a": "1"}))
    selector = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
    with pytest.raises(Refused, match=r"conflict with .*spec.nodeSelector"):
        _apply(store, {**selector, "spec": {"nodeSelector": {"b": "1"}}}, "two")


def test_an_applied_version_that_is_stale_is_a_conflict(store: Store) -> None:
    made = _apply(store, config_map(data={"a": "1"}), "one")
    _apply(store, config_map(data={"a": "2"}), "one")
    stale = config_map(data={"a": "3"}, resourceVersion=made["metadata"]["resourceVersion"])
    with pytest.raises(Refused, match=r"409 Conflict"):
        _apply(store, stale, "one")


def test_managed_fields_arent_applied(store: Store) -> None:
    made = _apply(store, config_map(data={"a": "1"}), "one")
    with pytest.raises(Refused, match=r"managedFields must be nil"):
        _apply(store, made, "one")


def test_what_is_applied_must_be_valid(store: Store) -> None:
    with pytest.raises(Refused, match=r"422 Invalid"):
        _apply(store, daemon_set(updateStrategy={"type": "Slowly"}), "one")
    assert store.find("DaemonSet", "d", "default") is None


def test_status_is_owned_apart(store: Store) -> None:
    made = store.create(daemon_set(), how=Write(manager="one"))
    numbers = ("currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled")
    made["status"] = {**dict.fromkeys(numbers, 0), "numberReady": 0}
    told = store.update(made, how=Write(manager="controller", subresource="status"))
    entry = next(one for one in told["metadata"]["managedFields"] if one["manager"] == "controller")
    assert entry["subresource"] == "status"
    assert entry["fieldsV1"].keys() == {"f:status"}
