"""A shadow model sees copies of requests; its answers are compared and reported, never returned."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from device_runtime.tests.reconciler.rig import Rig
from device_runtime.tests.support import FakeModel, X
from edgefleet.protocol.layout import BundleLayout
from edgefleet.protocol.release import Release, ReleaseModel, RuntimeSettings
from edgefleet.protocol.report import ShadowReport
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.reconciler.compare import compare
from edgefleet_runtime.serve.table import ServedModel

ALWAYS = RuntimeSettings(shadow_share=1.0)


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """No test finds the thread of another."""
    yield
    for thread in threads():
        thread.join(90)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.driver.close()


def shadowed(
    rig: Rig,
    active: BundleLayout,
    shadow: BundleLayout,
    settings: RuntimeSettings = ALWAYS,
) -> str:
    """Deploy a release with a shadow beside the active model."""
    models = (
        ReleaseModel(name="digits", version="1", bundle=active.digest),
        ReleaseModel(name="digits", version="2", bundle=shadow.digest, role="shadow"),
    )
    release = rig.repository.put(Release(models=models, settings=settings).encoded())
    rig.deploy(release)
    return release


def figures(rig: Rig) -> ShadowReport:
    shadow = rig.model("2").shadow
    assert shadow is not None
    return shadow


def compared(rig: Rig, count: int) -> ShadowReport:
    eventually(lambda: figures(rig).compared == count)
    return figures(rig)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "shadow digits"]


def test_the_active_model_answers_and_the_shadow_is_compared(rig: Rig) -> None:
    shadowed(rig, rig.repository.fake(2), rig.repository.fake(3))
    for _ in range(5):
        assert rig.factor() == 2
    assert compared(rig, 5) == ShadowReport(compared=5, dropped=0, agreement=1.0, max_abs_diff=1.0)
    model = rig.model("2")
    assert (model.role, model.state, model.inferences) == ("shadow", "active", 5)
    assert [served.version for served in rig.table] == ["1"]


def test_another_top_class_is_a_disagreement(rig: Rig) -> None:
    shadowed(rig, rig.repository.fake(2), rig.repository.fake(-2))
    rig.infer("digits", np.array([[1, 2, 3, 4], [0, 0, 0, 0]], np.float32))
    assert compared(rig, 1).agreement == 0.5


def test_a_shadow_that_fails_harms_nobody_and_is_counted(rig: Rig) -> None:
    shadowed(rig, rig.repository.fake(2), rig.repository.fake(3))
    assert rig.rack.running is not None
    served = rig.rack.running.units["digits", "shadow"].served
    assert served is not None
    model = served.model
    assert isinstance(model, FakeModel)
    model.content["fails"] = True
    assert rig.factor() == 2
    eventually(lambda: rig.model("2").failures == 1)
    assert figures(rig).compared == 0


def test_what_a_request_s_buffer_holds_later_does_not_matter(rig: Rig) -> None:
    shadowed(rig, rig.repository.fake(2), rig.repository.fake(2))
    x = X.copy()
    rig.infer("digits", x)
    x[:] = 99
    assert compared(rig, 1).max_abs_diff == 0


class Held:
    """Holds the shadow inside its run until a test lets it go."""

    def __init__(self, rig: Rig, patch: pytest.MonkeyPatch) -> None:
        self.entered, self.go = threading.Event(), threading.Event()
        slot = rig.rack.running
        assert slot is not None
        model = slot.units["digits", "shadow"].served
        infer = ServedModel.infer

        def held(served: ServedModel, *arguments: Any) -> Any:
            if served is model:
                self.entered.set()
                assert self.go.wait(90)
            return infer(served, *arguments)

        patch.setattr(ServedModel, "infer", held)


def test_copies_are_bounded_in_bytes_and_what_is_dropped_is_counted(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = RuntimeSettings(
        shadow_share=1.0, shadow_max_bytes=3 * 32
    )  # a request and its answer: 32
    shadowed(rig, rig.repository.fake(2), rig.repository.fake(2), room)
    held = Held(rig, monkeypatch)
    rig.infer()
    assert held.entered.wait(90)
    for _ in range(9):
        assert rig.factor() == 2  # answered while the shadow is stuck
    assert figures(rig).dropped == 7
    held.go.set()
    assert compared(rig, 3).dropped == 7


def test_a_shadow_without_a_share_of_the_time_never_runs(rig: Rig) -> None:
    shadowed(rig, rig.repository.fake(2), rig.repository.fake(2), RuntimeSettings(shadow_share=0))
    rig.infer()
    assert figures(rig) == ShadowReport(compared=0, dropped=1)


def test_a_shadow_rests_as_long_as_its_share_asks(rig: Rig) -> None:
    shadowed(
        rig, rig.repository.fake(2), rig.repository.fake(2), RuntimeSettings(shadow_share=1e-9)
    )
    rig.infer()
    compared(rig, 1)
    rig.infer()
    [thread] = threads()
    rig.driver.close()  # it rests for hours, and yet ends at once
    thread.join(90)
    assert not thread.is_alive()
    assert figures(rig).compared == 1


def test_a_swap_ends_the_shadow_and_closes_it(rig: Rig) -> None:
    settings = RuntimeSettings(shadow_share=1.0, keep_previous=False)
    shadowed(rig, rig.repository.fake(2), rig.repository.fake(3), settings)
    rig.infer()
    compared(rig, 1)
    [thread] = threads()
    rig.deploy(
        rig.repository.release(
            {"digits": rig.repository.fake(4)}, settings=RuntimeSettings(keep_previous=False)
        )
    )
    assert rig.factor() == 4
    thread.join(90)
    assert not thread.is_alive()
    eventually(lambda: [model.closed for model in rig.engine.opened] == [True, True, False])


def test_a_kept_release_comes_back_with_its_shadow(rig: Rig) -> None:
    release = shadowed(rig, rig.repository.fake(2), rig.repository.fake(3))
    rig.deploy(rig.repository.release({"digits": rig.repository.fake(4)}))
    rig.deploy(release)
    rig.infer()
    assert compared(rig, 1).max_abs_diff == 4.0


def test_a_shadow_that_fails_its_self_test_rejects_the_release(rig: Rig) -> None:
    shadowed(rig, rig.repository.fake(2), rig.repository.fake(3, recorded=5))
    assert rig.condition == "rejected"
    assert "self-test" in (rig.model("2").reason or "")


def test_a_shadow_is_restored_with_its_release(rig: Rig) -> None:
    shadowed(rig, rig.repository.fake(2), rig.repository.fake(3))
    again = rig.restarted()
    assert again.factor() == 2
    assert compared(again, 1).agreement == 1.0
    again.driver.close()


arrays = hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=4))


@given(arrays)
def test_an_answer_agrees_with_itself_whatever_it_holds(array: np.ndarray[Any, Any]) -> None:
    same = compare({"y": array}, {"y": array.copy()})
    assert same.agreeing == same.results
    assert same.max_abs == 0


@given(arrays, st.floats(0.5, 1000, width=32))
def test_the_largest_difference_is_found(array: np.ndarray[Any, Any], apart: float) -> None:
    left = np.nan_to_num(array, posinf=0, neginf=0) % 1000
    right = left.copy()
    right.flat[-1] += apart
    assert compare({"y": left}, {"y": right}).max_abs == pytest.approx(apart, rel=1e-2)


@pytest.mark.parametrize(
    "got", [{}, {"y": np.zeros(3, np.float32)}, {"y": np.array([1, math.nan], np.float32)}]
)
def test_what_cannot_be_compared_is_infinitely_apart(got: dict[str, Any]) -> None:
    assert compare({"y": np.ones(2, np.float32)}, got).max_abs == math.inf


def test_classes_given_as_integers_or_strings_are_compared_as_they_are() -> None:
    names = np.array([b"cat", b"dog"], dtype=object)
    due = {"label": np.array([1, 2, 3]), "name": names}
    got = {"label": np.array([1, 2, 4]), "name": names}
    difference = compare(due, got)
    assert (difference.results, difference.agreeing, difference.max_abs) == (5, 4, 1.0)


def test_who_listens_learns_of_each_request_whether_the_shadow_disagrees(tmp_path: Path) -> None:
    heard: list[tuple[str, float, bool]] = []

    def on_compared(served: ServedModel, inputs: Any, outputs: Any, disagrees: bool) -> None:  # noqa: FBT001 - a listener's
        assert np.array_equal(outputs["y"], 2 * inputs["x"])
        heard.append((served.version, float(inputs["x"][0, 3]), disagrees))

    rig = Rig(tmp_path, on_compared=on_compared)
    shadowed(rig, rig.repository.fake(2), rig.repository.fake(-2))
    rig.infer("digits", np.array([[0, 0, 0, 5]], np.float32))
    eventually(lambda: len(heard) == 1)
    rig.infer("digits", np.array([[0, 0, 0, 0]], np.float32))
    eventually(lambda: len(heard) == 2)
    assert heard == [("1", 5.0, True), ("1", 0.0, False)]
    rig.driver.close()
