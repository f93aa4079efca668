"""Mixed precision: the guilty layers are found, named, and no more than they left in floats."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.optimization import optimize, sensitivity
from edgefleet.optimization.layers import worst_layers
from edgefleet.optimization.makers import NotMade
from edgefleet.optimization.sensitivity import fewest, make_mixed
from tests.optimization import models
from tests.optimization.making import (
    digit_images,
    in_floats,
    judged_by,
    make,
    recipe,
    small_cnn,
    source_of,
)

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

CALIBRATION = 200
WIDE = 3  # channel of the first convolution


def passing(needed: set[int], asked: list[tuple[int, ...]]) -> Any:
    def attempt(chosen: tuple[int, ...]) -> bool:
        asked.append(chosen)
        return needed <= {*chosen}

    return attempt


@given(st.integers(1, 30), st.data())
def test_exactly_those_needed_are_found_where_steps_allow(total: int, data: st.DataObject) -> None:
    needed = data.draw(st.sets(st.integers(0, total - 1), min_size=1))
    asked: list[tuple[int, ...]] = []
    assert fewest(total, passing(needed, asked), max_steps=1000) == tuple(sorted(needed))
    assert len(asked) == len({*asked})


@given(st.integers(1, 300), st.integers(1, 20), st.data())
def test_a_search_asks_no_more_often_than_allowed_and_keeps_only_what_passed(
    total: int, steps: int, data: st.DataObject
) -> None:
    needed = data.draw(st.sets(st.integers(0, total - 1), min_size=1, max_size=4))
    asked: list[tuple[int, ...]] = []
    found = fewest(total, passing(needed, asked), max_steps=steps)
    assert len(asked) <= steps
    assert found is None or (found in asked and needed <= {*found})


def test_the_worst_alone_takes_one_question() -> None:
    asked: list[tuple[int, ...]] = []
    assert fewest(100, passing({0}, asked), max_steps=16) == (0,)
    assert asked == [(0,)]


def test_a_search_takes_about_two_logarithms_of_the_rank() -> None:
    asked: list[tuple[int, ...]] = []
    found = fewest(1000, passing(set(range(100)), asked), max_steps=14)
    assert len(asked) == 14  # 1, 2, 4, … 128, then six halvings
    assert found == tuple(range(100))


def test_between_too_few_and_so_many_that_nothing_is_left_the_right_number_is_found() -> None:
    def attempt(chosen: tuple[int, ...]) -> bool | None:
        return None if len(chosen) > 6 else len(chosen) >= 5

    found = fewest(20, attempt, max_steps=16)
    assert found is not None
    assert len(found) == 5


def test_none_is_found_where_only_nothing_left_would_pass() -> None:
    assert fewest(20, lambda chosen: None if len(chosen) > 2 else False, max_steps=16) is None
    assert fewest(20, lambda chosen: False, max_steps=16) is None


@pytest.fixture(scope="module")
def images() -> Any:
    return digit_images()


@pytest.fixture(scope="module")
def wide_cnn(images: Any) -> onnx.ModelProto:
    pixels, labels = images
    return small_cnn(pixels[:1200], labels[:1200], wide=WIDE)


def accuracy(images: Any) -> Any:
    pixels, labels = images
    return lambda predict: float((predict(pixels[1200:]).argmax(1) == labels[1200:]).mean())


def test_a_convolution_with_one_wide_channel_is_rescued_by_leaving_just_it_in_floats(
    wide_cnn: onnx.ModelProto, images: Any, tmp_path: Path
) -> None:
    path = models.save(wide_cnn, tmp_path / "wide.onnx")
    bundle = optimize(
        path,
        targets=["raspberry-pi-5"],
        calibration=images[0][:CALIBRATION],
        evaluate=accuracy(images),
        max_accuracy_drop=0.02,
    )
    int8, mixed = bundle.report.row("int8"), bundle.report.row("int8-mixed")
    assert int8.outcome == "rejected"
    assert int8.accuracy_drop is not None
    assert int8.accuracy_drop > 0.1
    assert mixed.accuracy_drop is not None
    assert mixed.accuracy_drop <= 0.02
    named = re.search(r"in floats: (.*)$", mixed.why)
    assert named is not None
    assert {"conv0", "conv1"} <= {*named[1].split(", ")}
    assert "gemm" not in named[1]


def test_a_rejected_candidate_names_the_layer_that_lost_most(
    wide_cnn: onnx.ModelProto, images: Any, tmp_path: Path
) -> None:
    path = models.save(wide_cnn, tmp_path / "wide.onnx")
    bundle = optimize(
        path,
        targets=["raspberry-pi-5"],
        calibration=images[0][:CALIBRATION],
        evaluate=accuracy(images),
        candidates=["int8"],
    )
    row = bundle.report.row("int8")
    assert row.layers[0].layer == "conv0"
    assert row.layers[0].error == 1.0  # nothing is left of an ordinary value
    assert 1 < len(row.layers) <= 3
    assert [layer.error for layer in row.layers] == sorted(
        (layer.error for layer in row.layers), reverse=True, key=lambda error: error or 0.0
    )
    assert "loses most at conv0, " in row.why
    assert bundle.report.row("fp32").layers == ()


def test_weights_of_one_wide_channel_lose_little_for_each_channel_has_its_scale(
    wide_cnn: onnx.ModelProto, images: Any, tmp_path: Path
) -> None:
    source = source_of(wide_cnn, tmp_path, images[0][:CALIBRATION])
    made = make("int8", source, tmp_path)
    assert source.samples is not None
    by_tensor = {
        loss.tensor: loss.error for loss in worst_layers(made, source.file, source.samples)
    }
    assert by_tensor.get("w0", 0.0) < 0.1


def test_each_step_is_judged_and_the_search_ends_at_its_bound(
    wide_cnn: onnx.ModelProto, images: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensitivity, "MAX_STEPS", 1)
    seen: list[str] = []
    source = source_of(
        wide_cnn,
        tmp_path,
        images[0][:CALIBRATION],
        judge=judged_by(accuracy(images), 2.0, seen),  # more than any model has
    )
    with pytest.raises(NotMade, match=r"in floats was not enough: .* of 2\.000"):
        make("int8-mixed", source, tmp_path)
    assert len(seen) == 1


def test_what_is_left_in_floats_is_really_in_floats_and_the_rest_is_not(
    wide_cnn: onnx.ModelProto, images: Any, tmp_path: Path
) -> None:
    seen: list[str] = []
    source = source_of(
        wide_cnn,
        tmp_path,
        images[0][:CALIBRATION],
        judge=judged_by(accuracy(images), 0.8, seen),
    )
    made = make("int8-mixed", source, tmp_path)
    assert in_floats(made) == {"conv0", "conv1"}


def test_a_model_that_loses_nothing_has_nothing_to_rescue_and_says_so(tmp_path: Path) -> None:
    model = models.linear()
    whole = np.zeros((models.FEATURES, models.FEATURES), np.float32)
    np.fill_diagonal(whole, 63)
    model.graph.initializer[0].raw_data = whole.tobytes()
    data = np.zeros((16, models.FEATURES), np.float32)
    source = source_of(model, tmp_path, data, judge=judged_by(lambda predict: 0.0, 1.0, []))
    with pytest.raises(NotMade, match="nothing to leave in floats"):
        make("int8-mixed", source, tmp_path)


def test_a_search_without_evaluation_or_calibration_says_so(tmp_path: Path) -> None:
    judge = judged_by(lambda predict: 1.0, 0.0, [])
    for source in (
        source_of(models.linear(), tmp_path, models.inputs_for()),
        source_of(models.linear(), tmp_path, judge=judge),
    ):
        with pytest.raises(NotMade, match="needs evaluate= and calibration="):
            make_mixed(recipe("int8-mixed"), source, tmp_path, lambda _: None)
