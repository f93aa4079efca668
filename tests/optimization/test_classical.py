"""Families of estimators: what is written answers as the original does."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

import edgefleet
from edgefleet.optimization.classical import as_onnx_file
from edgefleet.optimization.classical_graph import is_classical
from edgefleet.optimization.onnx_file import inspect
from tests.optimization.asking import ask

ROOT = Path(__file__).parents[2]
SEED = 0


def iris() -> tuple[Any, Any, Any, Any]:
    rows, labels = load_iris(return_X_y=True)
    return rows[::2], labels[::2], rows[1::2], labels[1::2]


def two_kinds() -> tuple[Any, Any, Any, Any]:
    rows, labels, unseen, truth = iris()
    return rows[labels > 0], labels[labels > 0], unseen[truth > 0], truth[truth > 0]


def diabetes() -> tuple[Any, Any, Any, Any]:
    rows, values = load_diabetes(return_X_y=True)
    return rows[:200], values[:200], rows[200:300], values[200:300]


def scaled(estimator: Any) -> Any:
    return make_pipeline(StandardScaler(), estimator)


WITH_PROBABILITIES = {
    "neighbours": lambda: KNeighborsClassifier(3),
    "logistic regression": lambda: scaled(LogisticRegression()),
    "tree": lambda: DecisionTreeClassifier(random_state=SEED),
    "forest": lambda: RandomForestClassifier(8, random_state=SEED),
    "scaled forest": lambda: scaled(RandomForestClassifier(8, random_state=SEED)),
    "min-max scaled tree": lambda: make_pipeline(
        MinMaxScaler(), DecisionTreeClassifier(random_state=SEED)
    ),
    "gradient boosting": lambda: GradientBoostingClassifier(n_estimators=5, random_state=SEED),
    "histogram boosting": lambda: HistGradientBoostingClassifier(max_iter=5),
    "calibrated": lambda: scaled(CalibratedClassifierCV(LinearSVC(random_state=SEED), cv=3)),
    "voting": lambda: VotingClassifier(
        [("a", scaled(LogisticRegression())), ("b", DecisionTreeClassifier(random_state=SEED))],
        voting="soft",
    ),
}
WITH_SCORES = {
    "support vectors": SVC,
    "scaled support vectors": lambda: scaled(SVC(kernel="linear")),
    "linear support vectors": lambda: scaled(LinearSVC(random_state=SEED)),
}
REGRESSORS = {
    "neighbours": lambda: KNeighborsRegressor(3),
    "support vectors": lambda: scaled(SVR()),
    "linear": LinearRegression,
    "tree": lambda: DecisionTreeRegressor(random_state=SEED, max_depth=6),
    "forest": lambda: RandomForestRegressor(8, random_state=SEED),
    "scaled forest": lambda: scaled(RandomForestRegressor(8, random_state=SEED)),
    "gradient boosting": lambda: GradientBoostingRegressor(n_estimators=5, random_state=SEED),
    "histogram boosting": lambda: HistGradientBoostingRegressor(max_iter=5),
}


@pytest.mark.parametrize("data", [iris, two_kinds])
@pytest.mark.parametrize("name", WITH_PROBABILITIES)
def test_a_classifier_keeps_its_labels_and_probabilities(
    name: str, data: Any, tmp_path: Path
) -> None:
    rows, labels, unseen, _ = data()
    estimator = WITH_PROBABILITIES[name]().fit(rows, labels)

    made = edgefleet.convert(estimator, unseen, tmp_path / "model.onnx")

    said = ask(made, made.arrays)
    assert list(said) == ["label", "probabilities"]
    assert (said["label"] == estimator.predict(unseen)).all()
    np.testing.assert_allclose(said["probabilities"], estimator.predict_proba(unseen), atol=1e-5)
    assert made.labels == tuple(str(label) for label in np.unique(labels))


@pytest.mark.parametrize("name", WITH_SCORES)
def test_scores_of_two_classes_stand_in_the_columns_of_their_classes(
    name: str, tmp_path: Path
) -> None:
    rows, labels, unseen, _ = two_kinds()
    estimator = WITH_SCORES[name]().fit(rows, labels)

    made = edgefleet.convert(estimator, unseen, tmp_path / "model.onnx")

    said = ask(made, made.arrays)
    assert (said["label"] == estimator.predict(unseen)).all()
    np.testing.assert_allclose(
        said["scores"][:, -1], estimator.decision_function(unseen), atol=1e-4
    )


@pytest.mark.parametrize("name", WITH_SCORES)
def test_scores_of_three_classes_are_the_decision_functions(name: str, tmp_path: Path) -> None:
    rows, labels, unseen, _ = iris()
    estimator = WITH_SCORES[name]().fit(rows, labels)

    made = edgefleet.convert(estimator, unseen, tmp_path / "model.onnx")

    np.testing.assert_allclose(
        ask(made, made.arrays)["scores"], estimator.decision_function(unseen), atol=1e-4
    )


@pytest.mark.parametrize("name", REGRESSORS)
def test_a_regressor_keeps_its_predictions(name: str, tmp_path: Path) -> None:
    rows, values, unseen, _ = diabetes()
    estimator = REGRESSORS[name]().fit(rows, values)

    made = edgefleet.convert(estimator, unseen, tmp_path / "model.onnx")

    said = ask(made, made.arrays)
    assert list(said) == ["prediction"]
    np.testing.assert_allclose(said["prediction"][:, 0], estimator.predict(unseen), rtol=1e-5)
    assert made.labels == ()


def test_clusters_keep_their_labels_and_distances(tmp_path: Path) -> None:
    rows, _, unseen, _ = iris()
    estimator = KMeans(3, n_init=1, random_state=SEED).fit(rows)

    made = edgefleet.convert(estimator, unseen, tmp_path / "model.onnx")

    said = ask(made, made.arrays)
    assert (said["label"] == estimator.predict(unseen)).all()
    np.testing.assert_allclose(said["scores"], estimator.transform(unseen), atol=1e-3)


def test_outliers_are_outliers_on_the_device(tmp_path: Path) -> None:
    rows, _, unseen, _ = iris()
    estimator = IsolationForest(n_estimators=4, random_state=SEED).fit(rows)
    strange = np.concatenate([unseen, [[50.0, -50.0, 50.0, -50.0]]])

    made = edgefleet.convert(estimator, strange, tmp_path / "model.onnx")

    said = ask(made, made.arrays)
    assert said["label"].ravel()[-1] == -1
    assert (said["label"].ravel() == estimator.predict(strange)).all()


def test_class_names_are_labels(tmp_path: Path) -> None:
    rows, labels, unseen, _ = iris()
    names = np.array(["setosa", "versicolor", "virginica"])
    estimator = DecisionTreeClassifier(random_state=SEED).fit(rows, names[labels])

    made = edgefleet.convert(estimator, unseen, tmp_path / "model.onnx")

    assert made.labels == ("setosa", "versicolor", "virginica")
    assert list(ask(made, made.arrays)["label"]) == list(estimator.predict(unseen))
    assert made.interface.outputs[0].datatype == "BYTES"


def test_the_file_suits_the_runtime_and_any_number_of_rows(tmp_path: Path) -> None:
    rows, labels, unseen, _ = iris()
    made = edgefleet.convert(SVC().fit(rows, labels), unseen, tmp_path / "model.onnx")

    file = inspect(made)
    assert file.opset <= 17
    assert file.domains["ai.onnx.ml"] <= 3
    assert file.custom_domains == ()
    assert [(spec.name, spec.datatype, spec.shape) for spec in file.interface.inputs] == [
        ("X", "FP32", (-1, 4))
    ]
    assert len(ask(made, {"X": made.arrays["X"][:1]})["label"]) == 1


# Each number is another order of sets; by the second, a model's domains stand the other way around.
@pytest.mark.parametrize("seed", ["1", "33"])
def test_the_same_estimator_gives_the_same_bytes_in_any_process(tmp_path: Path, seed: str) -> None:
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from tests.optimization.test_classical import vote
        vote(Path(sys.argv[1]))
        """
    )
    there = tmp_path / "there.onnx"
    subprocess.run(
        [sys.executable, "-c", script, str(there)],
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": seed},
    )

    here = tmp_path / "here.onnx"
    vote(here)

    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (here, there)}
    assert len(digests) == 1


def vote(to: Path) -> None:
    rows, labels, unseen, _ = iris()
    parts = [
        ("a", HistGradientBoostingClassifier(max_iter=2)),
        ("b", scaled(LogisticRegression())),
    ]
    edgefleet.convert(VotingClassifier(parts, voting="soft").fit(rows, labels), unseen, to)


def test_what_has_nothing_to_quantize_is_told_from_a_network(digits: Any, tmp_path: Path) -> None:
    rows, labels, unseen, _ = iris()
    made = edgefleet.convert(SVC().fit(rows, labels), unseen, tmp_path / "model.onnx")

    assert is_classical(made.path)
    assert not is_classical(digits.path)


def test_a_converted_estimator_goes_into_optimize_as_its_file(tmp_path: Path) -> None:
    rows, labels, unseen, truth = iris()
    estimator = scaled(LogisticRegression()).fit(rows, labels)

    made = as_onnx_file(estimator, unseen, tmp_path)
    bundle = edgefleet.optimize(
        made,
        targets=["x86-cpu"],
        calibration=made.arrays,
        evaluate=lambda predict: float((predict(made.arrays)["label"] == truth).mean()),
        labels=made.labels,
        progress=False,
    )

    assert bundle.report.rows[0].accuracy == pytest.approx(estimator.score(unseen, truth))
