"""What base and layered deployments make of a device."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edgefleet_azure.cloud.hub_merge import APPLIED, TARGETED, Deployment, merge, placed

MODULES = {"properties.desired": {"schemaVersion": "1.1", "modules": {}}}


def base(name: str, priority: int, created: int = 0, **modules: Any) -> Deployment:
    return Deployment(name, priority, created, {"$edgeAgent": MODULES, **modules})


def layer(name: str, priority: int, created: int = 0, **content: Any) -> Deployment:
    modules = {"runtime": {f"properties.desired.{k}": v for k, v in content.items()}}
    return Deployment(name, priority, created, modules)


def desired(*deployments: Deployment, module: str = "runtime") -> dict[str, Any]:
    return placed({}, merge(deployments).places.get(module, ()))


layers = st.lists(
    st.builds(
        lambda name, priority, created, value: layer(name, priority, created, ours=value),
        st.uuids().map(str), st.integers(0, 5), st.integers(0, 1000), st.integers(),
    ),
    unique_by=lambda one: one.created,
    max_size=8,
)  # fmt: skip


@given(layers, st.randoms())
def test_the_order_in_which_deployments_are_listed_says_nothing(
    found: list[Deployment], random: Any
) -> None:
    bases = [base("b", 2, 5000), base("c", 1, 5001)]
    shuffled = [*found, *bases]
    random.shuffle(shuffled)
    assert merge(shuffled) == merge([*found, *bases])


@given(layers)
def test_of_layers_above_the_base_the_highest_and_newest_has_the_last_word(
    found: list[Deployment],
) -> None:
    above = [one for one in found if one.priority > 2]
    got = desired(base("b", 2, 5000), *found)
    if not above:
        assert got == {}
    else:
        last = max(above, key=lambda one: (one.priority, one.created))
        assert got == {"ours": last.modules["runtime"]["properties.desired.ours"]}


@given(layers)
def test_a_layer_of_properties_alone_is_never_applied(found: list[Deployment]) -> None:
    status = merge([base("b", 2, 5000), *found]).status
    assert status.pop("b") == APPLIED
    assert set(status.values()) <= {TARGETED}
    assert len(status) == len(found)


@given(layers)
def test_nothing_happens_without_a_base(found: list[Deployment]) -> None:
    result = merge(found)
    assert result.places == {}
    assert result.base is None


def test_the_base_with_the_highest_priority_wins_and_of_equal_ones_the_newest() -> None:
    assert merge([base("a", 1, 9), base("b", 2, 1), base("c", 2, 2)]).base == "c"


def test_a_layer_that_adds_a_module_is_applied() -> None:
    adds = Deployment(
        "l", 3, 1, {"$edgeAgent": {"properties.desired.modules.camera": {"version": "1"}}}
    )
    result = merge([base("b", 1), adds])
    assert result.status == {"b": APPLIED, "l": APPLIED}
    made = placed({}, result.places["$edgeAgent"])
    assert made["modules"] == {"camera": {"version": "1"}}


def test_layers_of_different_places_add_up() -> None:
    got = desired(base("b", 1), layer("l", 2, ours={"a": 1}), layer("m", 3, theirs={"b": 2}))
    assert got == {"ours": {"a": 1}, "theirs": {"b": 2}}


def test_a_place_below_one_that_is_set_keeps_its_surroundings() -> None:
    got = desired(
        base("b", 1), layer("l", 2, ours={"a": 1, "b": 1}), layer("m", 3, **{"ours.b": 2})
    )
    assert got == {"ours": {"a": 1, "b": 2}}


def test_a_higher_layer_replaces_what_a_lower_one_set_below() -> None:
    got = desired(base("b", 1), layer("l", 2, **{"ours.b": 2}), layer("m", 3, ours={"a": 1}))
    assert got == {"ours": {"a": 1}}


def test_what_somebody_set_elsewhere_in_a_twin_stays() -> None:
    places = merge([base("b", 1), layer("l", 2, ours=1)]).places["runtime"]
    assert placed({"upload": "x", "ours": 0}, places) == {"upload": "x", "ours": 1}
