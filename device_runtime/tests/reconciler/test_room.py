"""Memory: a release that doesn't fit beside the other is rejected, or unloads it where allowed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.tests.reconciler.rig import Rig, serving
from edgefleet.errors import NotFoundError
from edgefleet.protocol.layout import BundleLayout
from edgefleet.protocol.release import RuntimeSettings
from edgefleet_runtime.engines.footprint import estimate
from edgefleet_runtime.reconciler.room import Fit, fit, together

SIZE = 10_000  # bytes of the files of each model here
ONE = estimate(SIZE)


def padded(rig: Rig, factor: float, **faults: Any) -> BundleLayout:
    """A bundle whose one file has `SIZE` bytes."""
    for length in range(SIZE - 200, SIZE):
        content = {"factor": factor, **faults, "padding": "x" * length}
        if len(json.dumps(content)) == SIZE:
            return rig.repository.fake(factor, **faults, padding="x" * length)
    raise AssertionError


def released(
    rig: Rig, factor: float, settings: RuntimeSettings | None = None, **faults: Any
) -> str:
    return rig.repository.release(
        {"digits": padded(rig, factor, **faults)}, version=str(factor), settings=settings
    )


def device(root: Path, factor: float) -> Rig:
    """A device with memory for so many models."""
    return Rig(root, memory_max_bytes=round(ONE * factor))


def test_what_fits_is_kept(tmp_path: Path) -> None:
    rig = device(tmp_path, 3)
    first = released(rig, 2)
    rig.deploy(first)
    rig.deploy(released(rig, 3))
    assert rig.driver.state.kept == first
    rig.deploy(released(rig, 4))
    assert rig.factor() == 4


def test_the_release_that_could_come_back_makes_room_first(tmp_path: Path) -> None:
    rig = device(tmp_path, 2.5)
    rig.deploy(released(rig, 2))
    second = released(rig, 3)
    rig.deploy(second)
    rig.deploy(released(rig, 4))
    assert rig.factor() == 4
    assert rig.driver.state.kept == second
    assert [model.closed for model in rig.engine.opened] == [True, False, False]


def test_a_release_that_does_not_fit_beside_the_other_is_rejected_with_figures(
    tmp_path: Path,
) -> None:
    rig = device(tmp_path, 1.5)
    rig.deploy(released(rig, 2))
    rig.deploy(released(rig, 3))
    assert (rig.factor(), rig.condition) == (2, "rejected")
    assert rig.driver.errors[0] == (
        f"the release needs an estimated {ONE} bytes of memory beside {ONE} of what runs, "
        f"{round(ONE * 1.5)} are allowed"
    )


def test_where_it_is_allowed_the_other_is_unloaded_first(tmp_path: Path) -> None:
    rig = device(tmp_path, 1.5)
    rig.deploy(released(rig, 2))
    rig.deploy(released(rig, 3, RuntimeSettings(unload_first=True)))
    assert (rig.factor(), rig.condition) == (3, "active")
    assert rig.driver.state.kept is None
    assert [model.closed for model in rig.engine.opened] == [True, False]


def test_never_are_more_models_loaded_than_fit(tmp_path: Path) -> None:
    rig = device(tmp_path, 1.5)
    rig.deploy(released(rig, 2))
    rig.channel.offer(rig.repository.pointer(released(rig, 3, RuntimeSettings(unload_first=True))))
    most = 0
    for _ in range(30):
        rig.driver.poll()
        rig.driver.step()
        most = max(most, sum(not model.closed for model in rig.engine.opened))
    assert most == 1
    assert rig.factor() == 3


def test_one_that_fails_after_that_brings_the_other_back(tmp_path: Path) -> None:
    rig = device(tmp_path, 1.5)
    rig.deploy(released(rig, 2))
    rig.deploy(released(rig, 3, RuntimeSettings(unload_first=True), recorded=5))
    assert (rig.factor(), rig.condition) == (2, "rejected")
    assert "self-test" in (rig.model("3").reason or "")


def test_a_power_cut_after_that_brings_the_other_back(tmp_path: Path) -> None:
    rig = device(tmp_path, 1.5)
    rig.deploy(released(rig, 2))
    third = released(rig, 3, RuntimeSettings(unload_first=True))
    rig.channel.offer(rig.repository.pointer(third))
    while rig.driver.state.running is not None:
        rig.driver.poll()
        rig.driver.step()
    with pytest.raises(NotFoundError):
        rig.infer()
    again = rig.restarted(memory_max_bytes=round(ONE * 1.5))
    assert again.factor() == 2
    again.settle()
    assert again.factor() == 3


def test_what_never_fits_is_rejected_even_alone(tmp_path: Path) -> None:
    rig = device(tmp_path, 0.5)
    rig.deploy(released(rig, 2, RuntimeSettings(unload_first=True)))
    assert rig.condition == "rejected"
    assert rig.driver.errors[0].startswith(f"the release needs an estimated {ONE} bytes of memory,")


def test_a_release_may_set_a_lower_cap_than_the_device(tmp_path: Path) -> None:
    rig = device(tmp_path, 9)
    serving(rig)
    rig.deploy(released(rig, 3, RuntimeSettings(memory_max_bytes=100)))
    assert (rig.factor(), rig.condition) == (2, "rejected")


footprints = st.dictionaries(st.sampled_from("abcdef"), st.just(10), max_size=4)


@given(footprints, footprints, footprints, st.integers(1, 80))
def test_what_is_said_to_fit_fits(
    new: dict[str, int], running: dict[str, int], kept: dict[str, int], cap: int
) -> None:
    match fit(new, running=running, kept=kept, max_bytes=cap):
        case Fit.BESIDE:
            assert together((new, running, kept)) <= cap
        case Fit.WITHOUT_KEPT:
            assert together((new, running)) <= cap < together((new, running, kept))
        case Fit.ALONE:
            assert together((new,)) <= cap < together((new, running))
        case Fit.NEVER:
            assert together((new,)) > cap
