"""What the two nuclei make of recipes and deployments."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_aws.cloud import recipes
from edgefleet_aws.cloud.recipes import Kind, RefusedError

TREE = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
OBJECT = st.dictionaries(st.sampled_from("abc"), TREE, max_size=3)


def manifest(platform: dict[str, Any], script: str) -> dict[str, Any]:
    return {"Platform": platform, "Lifecycle": {"run": script}}


def chosen(kind: Kind, *manifests: dict[str, Any]) -> object:
    recipe = {"Manifests": list(manifests)}
    found = recipes.manifest_for(recipe, kind, architecture="amd64", name="x")
    return found.lifecycle["run"]


@pytest.mark.parametrize("kind", list(Kind))
def test_the_first_manifest_that_fits_is_taken(kind: Kind) -> None:
    assert (
        chosen(
            kind,
            manifest({"os": "windows", "runtime": "*"}, "a"),
            manifest({"os": "linux", "architecture": "aarch64", "runtime": "*"}, "b"),
            manifest({"os": "linux", "runtime": "*"}, "c"),
            manifest({"os": "*", "runtime": "*"}, "d"),
        )
        == "c"
    )


def test_the_light_nucleus_passes_over_manifests_without_a_runtime() -> None:
    both = manifest({"os": "linux"}, "classic"), manifest({"runtime": "aws_nucleus_lite"}, "lite")
    assert chosen(Kind.LITE, *both) == "lite"
    assert chosen(Kind.CLASSIC, *both) == "classic"


def test_no_manifest_for_the_platform_is_refused() -> None:
    with pytest.raises(RefusedError, match="NO_AVAILABLE_COMPONENT_VERSION"):
        chosen(Kind.LITE, manifest({"os": "linux"}, "classic"))


@pytest.mark.parametrize(
    "change, restarting",
    [
        ({}, []),
        ({"has_update": True}, [Kind.LITE]),
        ({"new_version": True}, [Kind.CLASSIC, Kind.LITE]),
        ({"new_lifecycle": True}, [Kind.CLASSIC]),
    ],
)
def test_what_restarts_a_component(change: dict[str, bool], restarting: list[Kind]) -> None:
    facts = {"new_version": False, "new_lifecycle": False, "has_update": False, **change}
    assert [kind for kind in Kind if recipes.restarts(kind, **facts)] == restarting


def test_an_update_resets_before_it_merges() -> None:
    defaults = {"a": {"b": 1, "c": 2}, "d": 3}
    there = {"a": {"b": 10, "c": 20, "e": 30}, "d": 40}
    update = {"reset": ["/a/b", "/a/e"], "merge": '{"a": {"c": 21}, "f": 5}'}
    assert recipes.updated(there, update, defaults) == {
        "a": {"b": 1, "c": 21},
        "d": 40,
        "f": 5,
    }


def test_resetting_everything_gives_the_defaults() -> None:
    assert recipes.updated({"a": 1}, {"reset": [""]}, {"b": 2}) == {"b": 2}


@given(OBJECT, OBJECT)
def test_merging_twice_is_merging_once(base: dict[str, Any], over: dict[str, Any]) -> None:
    once = recipes.merged(base, over)
    assert recipes.merged(once, over) == once


@given(OBJECT)
def test_what_did_not_change_has_no_changed_paths(tree: dict[str, Any]) -> None:
    assert recipes.changed_paths(tree, tree) == []


def test_changed_paths_name_what_is_new_other_and_gone() -> None:
    before = {"a": {"b": 1, "c": 2}, "d": 3}
    after = {"a": {"b": 1, "c": 4}, "e": 5}
    assert recipes.changed_paths(before, after) == [["a", "c"], ["d"], ["e"]]


def test_variables_that_are_unknown_stay() -> None:
    known = {"iot:thingName": "cam-1"}
    text = recipes.interpolated("{iot:thingName} {work:path} {}", known.get)
    assert text == "cam-1 {work:path} {}"


def test_scripts_are_found_whatever_their_case_and_form() -> None:
    assert recipes.script_of({"Run": "a"}, "run") == ("a", None)
    assert recipes.script_of({"install": {"Script": "b", "Timeout": 30}}, "install") == ("b", 30.0)
    assert recipes.script_of({"install": "b"}, "run") is None


def test_two_deployments_that_want_two_versions_are_refused() -> None:
    one = {"a": {"componentVersion": "1.0.0"}}
    other = {"a": {"componentVersion": "1.0.1"}, "b": {"componentVersion": "2.0.0"}}
    assert recipes.root_components([one, one]) == {"a": "1.0.0"}
    with pytest.raises(RefusedError, match="VERSION_REQUIREMENTS_NOT_MET"):
        recipes.root_components([one, other])
