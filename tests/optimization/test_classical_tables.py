"""Tables of mixed columns: one input a column."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

import edgefleet
from tests.optimization.asking import ask

if TYPE_CHECKING:
    from pathlib import Path


from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

NUMBERS = ["temperature", "hours"]
TEXT = ["site", "grade"]


@pytest.fixture
def table() -> Any:
    chance = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "temperature": chance.normal(60, 10, 120),
            "hours": chance.integers(0, 5000, 120),
            "site": chance.choice(["north", "south", "sea"], 120),
            "grade": chance.choice(["a", "b"], 120),
        }
    )


@pytest.fixture
def worn(table: Any) -> Any:
    return ((table["temperature"] > 60) & (table["site"] != "sea")).to_numpy().astype(int)


def by_columns(last: Any, *, numbers: Any = None) -> Any:
    prepare = ColumnTransformer(
        [
            ("numbers", numbers or StandardScaler(), NUMBERS),
            ("text", OneHotEncoder(handle_unknown="ignore"), TEXT),
        ]
    )
    return make_pipeline(prepare, last)


def test_each_column_is_an_input_of_its_own_kind(table: Any, worn: Any, tmp_path: Path) -> None:
    estimator = by_columns(LogisticRegression()).fit(table, worn)

    made = edgefleet.convert(estimator, table, tmp_path / "model.onnx")

    assert [(spec.name, spec.datatype, spec.shape) for spec in made.interface.inputs] == [
        ("temperature", "FP32", (-1, 1)),
        ("hours", "INT64", (-1, 1)),
        ("site", "BYTES", (-1, 1)),
        ("grade", "BYTES", (-1, 1)),
    ]
    said = ask(made, made.arrays)
    np.testing.assert_allclose(said["probabilities"], estimator.predict_proba(table), atol=1e-5)


def test_a_forest_over_mixed_columns_keeps_its_labels(
    table: Any, worn: Any, tmp_path: Path
) -> None:
    forest = RandomForestClassifier(8, random_state=0)
    estimator = by_columns(forest, numbers=MinMaxScaler()).fit(table, worn)

    made = edgefleet.convert(estimator, table, tmp_path / "model.onnx")

    assert (ask(made, made.arrays)["label"] == estimator.predict(table)).all()


def test_a_text_that_training_never_saw_is_ignored_as_the_original_does(
    table: Any, worn: Any, tmp_path: Path
) -> None:
    estimator = by_columns(LogisticRegression()).fit(table, worn)
    made = edgefleet.convert(estimator, table, tmp_path / "model.onnx")
    strange = table.iloc[:3].assign(site="moon")

    said = ask(made, {**{k: v[:3] for k, v in made.arrays.items()}, "site": [["moon"]] * 3})

    np.testing.assert_allclose(said["probabilities"], estimator.predict_proba(strange), atol=1e-5)


def test_columns_of_numbers_that_nobody_picks_by_name_are_one_matrix(
    table: Any, worn: Any, tmp_path: Path
) -> None:
    numbers = table[NUMBERS]
    estimator = DecisionTreeClassifier(random_state=0).fit(numbers, worn)

    made = edgefleet.convert(estimator, numbers, tmp_path / "model.onnx")

    assert [spec.name for spec in made.interface.inputs] == ["X"]
    assert (ask(made, made.arrays)["label"] == estimator.predict(numbers)).all()


def test_missing_numbers_are_filled_as_the_pipeline_fills_them(
    table: Any, worn: Any, tmp_path: Path
) -> None:
    holes = table[NUMBERS].astype(float)
    holes.iloc[::7, 0] = np.nan
    estimator = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())
    estimator.fit(holes, worn)

    made = edgefleet.convert(estimator, holes, tmp_path / "model.onnx")

    said = ask(made, made.arrays)
    np.testing.assert_allclose(said["probabilities"], estimator.predict_proba(holes), atol=1e-5)


def test_a_column_of_times_is_named_and_refused(table: Any, worn: Any, tmp_path: Path) -> None:
    estimator = by_columns(LogisticRegression()).fit(table, worn)
    dated = table.assign(seen=pd.Timestamp("2026-01-01"))

    with pytest.raises(edgefleet.EdgeFleetError, match="'seen'"):
        edgefleet.convert(estimator, dated, tmp_path / "model.onnx")


def test_a_hole_in_a_column_of_text_is_named_and_refused(
    table: Any, worn: Any, tmp_path: Path
) -> None:
    estimator = by_columns(LogisticRegression()).fit(table, worn)
    sites = table["site"].astype(object)
    sites.iloc[3] = None

    with pytest.raises(edgefleet.EdgeFleetError, match="'site' holds"):
        edgefleet.convert(estimator, table.assign(site=sites), tmp_path / "model.onnx")


def test_a_hole_that_only_pandas_knows_is_named_and_refused(
    table: Any, worn: Any, tmp_path: Path
) -> None:
    estimator = by_columns(LogisticRegression()).fit(table, worn)
    hours = table["hours"].astype("Int64")
    hours.iloc[5] = pd.NA

    with pytest.raises(edgefleet.EdgeFleetError, match="'hours' holds NAType"):
        edgefleet.convert(estimator, table.assign(hours=hours), tmp_path / "model.onnx")
