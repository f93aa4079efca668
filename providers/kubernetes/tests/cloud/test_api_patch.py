"""JSON merge patch, JSON patch and strategic merge patch."""

from __future__ import annotations

from typing import Any

import pytest

from edgefleet_kubernetes.cloud.api_patch import json_patch, merge_patch
from edgefleet_kubernetes.cloud.api_status import Refused
from edgefleet_kubernetes.cloud.api_store import Store
from providers.kubernetes.tests.cloud.api_samples import config_map, daemon_set

# RFC 7396, appendix A
MERGES: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]
# RFC 6902, appendix A
PATCHES: list[tuple[Any, Any, Any]] = [
    ({"foo": "bar"}, {"op": "add", "path": "/baz", "value": "q"}, {"baz": "q", "foo": "bar"}),
    ({"foo": ["a", "c"]}, {"op": "add", "path": "/foo/1", "value": "b"}, {"foo": ["a", "b", "c"]}),
    ({"foo": ["a"]}, {"op": "add", "path": "/foo/-", "value": ["b"]}, {"foo": ["a", ["b"]]}),
    ({"baz": "q", "foo": 1}, {"op": "remove", "path": "/baz"}, {"foo": 1}),
    ({"foo": ["a", "b"]}, {"op": "remove", "path": "/foo/1"}, {"foo": ["a"]}),
    ({"baz": "q"}, {"op": "replace", "path": "/baz", "value": "b"}, {"baz": "b"}),
    (
        {"a": {"x": 1}, "b": {}},
        {"op": "move", "from": "/a/x", "path": "/b/y"},
        {"a": {}, "b": {"y": 1}},
    ),
    ({"a": [1, 2]}, {"op": "copy", "from": "/a/0", "path": "/a/2"}, {"a": [1, 2, 1]}),
    ({"/": 9, "~1": 10}, {"op": "test", "path": "/~01", "value": 10}, {"/": 9, "~1": 10}),
]


@pytest.mark.parametrize("document,patch,merged", MERGES)
def test_merge_patches_of_the_rfc(document: Any, patch: Any, merged: Any) -> None:
    assert merge_patch(document, patch) == merged


@pytest.mark.parametrize("document,operation,patched", PATCHES)
def test_json_patches_of_the_rfc(document: Any, operation: Any, patched: Any) -> None:
    assert json_patch(document, [operation]) == patched


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/a", "value": 2},
        {"op": "remove", "path": "/b"},
        {"op": "replace", "path": "/b", "value": 1},
        {"op": "add", "path": "/l/5", "value": 1},
        {"op": "add", "path": "/x/y", "value": 1},
        {"op": "bend", "path": "/a"},
        {"op": "add", "path": "/a"},
    ],
)
def test_json_patches_that_cant_be_done_are_refused(operation: dict[str, Any]) -> None:
    with pytest.raises(Refused, match=r"422 Invalid"):
        json_patch({"a": 1, "l": []}, [operation])


def test_a_merge_patch_with_a_stale_version_is_a_conflict(store: Store) -> None:
    store.create(config_map(data={"k": "1"}))
    with pytest.raises(Refused, match=r"409 Conflict"):
        store.patch("ConfigMap", "a", {"metadata": {"resourceVersion": "1"}}, "default")


def test_what_isnt_there_cant_be_patched(store: Store) -> None:
    with pytest.raises(Refused, match=r"404 NotFound"):
        store.patch("ConfigMap", "a", {"data": {"k": "1"}}, "default")


def _strategic(store: Store, patch: dict[str, Any]) -> Any:
    changed = store.patch("DaemonSet", "d", {"spec": patch}, "default", type="strategic")
    return changed["spec"]


def _template(**spec: Any) -> dict[str, Any]:
    return {"template": {"spec": spec}}


def test_a_strategic_patch_merges_containers_by_name(store: Store) -> None:
    store.create(daemon_set())
    spec = _strategic(store, _template(containers=[{"name": "main", "image": "app:2"}]))
    container = spec["template"]["spec"]["containers"][0]
    assert container["image"] == "app:2"
    assert container["securityContext"]["allowPrivilegeEscalation"] is False


def test_a_strategic_patch_adds_orders_and_deletes_items(store: Store) -> None:
    store.create(daemon_set())
    added = {"containers": [{"name": "side", "image": "s:1"}]}
    order = {"$setElementOrder/containers": [{"name": "side"}, {"name": "main"}]}
    spec = _strategic(store, _template(**added, **order))
    names = [one["name"] for one in spec["template"]["spec"]["containers"]]
    assert names == ["side", "main"]
    spec = _strategic(store, _template(containers=[{"name": "main", "$patch": "delete"}]))
    names = [one["name"] for one in spec["template"]["spec"]["containers"]]
    assert names == ["side"]


def test_a_strategic_patch_retains_only_the_keys_it_names(store: Store) -> None:
    store.create(daemon_set())
    strategy = {"$retainKeys": ["type"], "type": "OnDelete"}
    spec = _strategic(store, {"updateStrategy": strategy})
    assert spec["updateStrategy"] == {"type": "OnDelete"}


def test_a_strategic_patch_replaces_and_clears(store: Store) -> None:
    store.create(daemon_set())
    replaced = [{"$patch": "replace"}, {"name": "only", "image": "o:1"}]
    spec = _strategic(store, _template(containers=replaced, securityContext=None))
    assert [one["name"] for one in spec["template"]["spec"]["containers"]] == ["only"]
    assert spec["template"]["spec"]["securityContext"] == {}


def test_a_strategic_patch_takes_values_out_of_a_set(store: Store) -> None:
    store.create(config_map(finalizers=["x.dev/a", "x.dev/b"]))
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["x.dev/a"]}}
    changed = store.patch("ConfigMap", "a", patch, "default", type="strategic")
    assert changed["metadata"]["finalizers"] == ["x.dev/b"]
