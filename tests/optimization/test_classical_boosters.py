"""LightGBM and XGBoost, alone and in pipelines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import edgefleet
from edgefleet.errors import InvalidModelError
from tests.optimization.asking import ask

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("onnxmltools")
lightgbm = pytest.importorskip("lightgbm")
xgboost = pytest.importorskip("xgboost")

CLASSIFIERS = {
    "LightGBM": lambda: lightgbm.LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=1),
    "XGBoost": lambda: xgboost.XGBClassifier(n_estimators=5, n_jobs=1),
}
REGRESSORS = {
    "LightGBM": lambda: lightgbm.LGBMRegressor(n_estimators=5, verbose=-1, n_jobs=1),
    "XGBoost": lambda: xgboost.XGBRegressor(n_estimators=5, n_jobs=1),
}


@pytest.mark.parametrize("load", [load_iris, load_breast_cancer])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_boosters_probabilities_survive(name: str, load: Any, tmp_path: Path) -> None:
    rows, labels = load(return_X_y=True)
    estimator = CLASSIFIERS[name]().fit(rows[::2], labels[::2])

    made = edgefleet.convert(estimator, rows[1::2], tmp_path / "model.onnx")

    said = ask(made, made.arrays)
    np.testing.assert_allclose(
        said["probabilities"], estimator.predict_proba(rows[1::2]), atol=1e-5
    )
    assert (said["label"] == estimator.predict(rows[1::2])).all()


@pytest.mark.parametrize("name", REGRESSORS)
def test_a_booster_behind_a_scaler_decides_where_it_did(name: str, tmp_path: Path) -> None:
    rows, values = load_diabetes(return_X_y=True)
    estimator = make_pipeline(StandardScaler(), REGRESSORS[name]()).fit(rows[::2], values[::2])

    made = edgefleet.convert(estimator, rows[1::2], tmp_path / "model.onnx")

    said = ask(made, made.arrays)["prediction"][:, 0]
    np.testing.assert_allclose(said, estimator.predict(rows[1::2]), rtol=1e-5)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_no_float32_falls_on_the_other_side_of_a_threshold(name: str, tmp_path: Path) -> None:
    rows, labels = load_breast_cancer(return_X_y=True)
    rows = rows.astype(np.float32)
    estimator = CLASSIFIERS[name]().fit(rows[::2], labels[::2])

    made = edgefleet.convert(estimator, rows[1::2], tmp_path / "model.onnx")

    assert made.arithmetic == "float32"
    assert made.on_edges is not None
    assert made.on_edges.rows > 50
    assert made.on_edges.none


def test_boosters_vote_with_estimators_of_scikit_learn(tmp_path: Path) -> None:
    rows, labels = load_iris(return_X_y=True)
    parts = [
        ("light", CLASSIFIERS["LightGBM"]()),
        ("extreme", CLASSIFIERS["XGBoost"]()),
        ("linear", make_pipeline(StandardScaler(), LogisticRegression())),
    ]
    estimator = VotingClassifier(parts, voting="soft").fit(rows[::2], labels[::2])

    made = edgefleet.convert(estimator, rows[1::2], tmp_path / "model.onnx")

    said = ask(made, made.arrays)["probabilities"]
    np.testing.assert_allclose(said, estimator.predict_proba(rows[1::2]), atol=1e-5)


def test_a_forest_of_xgboost_between_two_classes_survives(tmp_path: Path) -> None:
    rows, labels = load_breast_cancer(return_X_y=True)
    estimator = xgboost.XGBRFClassifier(n_estimators=5, n_jobs=1).fit(rows[::2], labels[::2])

    made = edgefleet.convert(estimator, rows[1::2], tmp_path / "model.onnx")

    said = ask(made, made.arrays)["probabilities"]
    np.testing.assert_allclose(said, estimator.predict_proba(rows[1::2]), atol=1e-5)


def test_a_conversion_that_answers_otherwise_is_refused_with_how_far_it_is_off(
    tmp_path: Path,
) -> None:
    rows, labels = load_iris(return_X_y=True)
    # onnxmltools 1.16 takes the trees of the three classes of such a forest for each other's.
    estimator = xgboost.XGBRFClassifier(n_estimators=5, n_jobs=1).fit(rows[::2], labels[::2])

    with pytest.raises(InvalidModelError, match=r"\d+ of 75 labels differ.*the worst by 0\.\d"):
        edgefleet.convert(estimator, rows[1::2], tmp_path / "model.onnx")
    assert list(tmp_path.glob("*.onnx")) == []


def test_a_bare_booster_is_told_to_come_as_an_estimator(tmp_path: Path) -> None:
    rows, labels = load_iris(return_X_y=True)
    booster = CLASSIFIERS["LightGBM"]().fit(rows, labels).booster_

    with pytest.raises(edgefleet.EdgeFleetError, match="LGBMClassifier"):
        edgefleet.convert(booster, rows, tmp_path / "model.onnx")
