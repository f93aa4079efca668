"""What holds for any objects: ownership survives being written, apply settles, watches tell all."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet_kubernetes.cloud.api_fields import Owner, entries_of, owners_of
from edgefleet_kubernetes.cloud.api_objects import clone
from edgefleet_kubernetes.cloud.api_patch import merge_patch
from edgefleet_kubernetes.cloud.api_store import Store
from edgefleet_kubernetes.cloud.api_writes import Write
from providers.kubernetes.tests.cloud.api_samples import Object, config_map

NAMES = st.sampled_from("abcd")
DATA = st.dictionaries(NAMES, st.sampled_from("12"), max_size=4)
PARTS = st.one_of(
    st.text(min_size=1, max_size=5).map("f:{}".format),
    st.sampled_from(['k:{"name":"a"}', 'v:"x"']),
)
PATHS = st.sets(st.lists(PARTS, min_size=1, max_size=4).map(tuple), min_size=1, max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=10,
)
DEEDS = st.lists(
    st.tuples(st.sampled_from(["put", "delete", "label"]), NAMES, st.sampled_from(["on", "off"])),
    max_size=20,
)


def _store() -> Store:
    made = Store()
    made.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
    return made


def _apply(store: Store, manager: str, data: dict[str, str], *, force: bool = False) -> Object:
    how = Write(manager=manager, force=force)
    return store.patch("ConfigMap", "x", config_map("x", data), "default", type="apply", how=how)


@given(PATHS)
def test_ownership_reads_back_as_written(paths: set[tuple[str, ...]]) -> None:
    owner = Owner("m", "Apply", "", paths, "2026-01-01T00:00:00Z", "v1")
    document = {"metadata": {"managedFields": entries_of([owner])}}
    assert owners_of(document) == [owner]


@given(JSON)
def test_a_copy_is_equal_and_apart(value: Any) -> None:
    copied = clone(value)
    assert copied == value
    if isinstance(value, dict | list) and value:
        assert copied is not value


@given(st.dictionaries(st.text(max_size=3), JSON), st.dictionaries(st.text(max_size=3), JSON))
def test_a_merge_patch_taken_twice_is_as_taken_once(document: Any, patch: Any) -> None:
    once = merge_patch(document, patch)
    assert merge_patch(once, patch) == once


@settings(max_examples=25)
@given(DATA, DATA)
def test_apply_settles(first: dict[str, str], second: dict[str, str]) -> None:
    store = _store()
    _apply(store, "one", first)
    forced = _apply(store, "two", second, force=True)
    assert forced.get("data", {}) == {**first, **second}
    assert _apply(store, "two", second, force=True) == forced


@settings(max_examples=25)
@given(DATA, DATA)
def test_what_nobody_applies_any_more_is_gone(
    first: dict[str, str], second: dict[str, str]
) -> None:
    store = _store()
    _apply(store, "one", first)
    _apply(store, "two", second, force=True)
    _apply(store, "one", {})
    assert _apply(store, "two", {}).get("data", {}) == {}


@settings(max_examples=25)
@given(DEEDS)
def test_who_replays_a_watch_has_what_a_list_gives(deeds: list[tuple[str, str, str]]) -> None:
    store = _store()
    watch = store.watch("ConfigMap", labels="state=on")
    for deed, name, state in deeds:
        found = store.find("ConfigMap", name, "default")
        if found is None:
            store.create(config_map(name, labels={"state": state}))
        elif deed == "delete":
            store.delete("ConfigMap", name, "default")
        elif deed == "label":
            found["metadata"]["labels"] = {"state": state}
            store.update(found)
        else:
            store.update({**found, "data": {"k": store.version}})
    seen: dict[str, Object] = {}
    while (change := watch.next(0)) is not None:
        name = change.object["metadata"]["name"]
        assert (change.type == "ADDED") is (name not in seen)
        if change.type == "DELETED":
            del seen[name]
        else:
            seen[name] = change.object
    listed = store.list("ConfigMap", labels="state=on")
    assert seen == {one["metadata"]["name"]: one for one in listed}
