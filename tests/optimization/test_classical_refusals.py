"""What can't be converted, or not as the original is: a clear error each, and no file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.tree import DecisionTreeClassifier

import edgefleet
from edgefleet.errors import InvalidInputError, InvalidModelError, MissingExtraError
from edgefleet.optimization.classical import as_onnx_file

ROWS, LABELS = load_iris(return_X_y=True)


class Doubling(TransformerMixin, BaseEstimator):  # type: ignore[misc] # sklearn has no types
    """A step that no library knows a converter of."""

    def fit(self, rows: Any, labels: Any = None) -> Doubling:
        self.seen_ = len(rows)
        return self

    def transform(self, rows: Any) -> Any:
        return rows * 2


def tree() -> Any:
    return DecisionTreeClassifier(random_state=0).fit(ROWS, LABELS)


def refused(estimator: Any, samples: Any, to: Path, **more: Any) -> str:
    with pytest.raises((InvalidInputError, InvalidModelError)) as caught:
        edgefleet.convert(estimator, samples, to / "model.onnx", **more)
    assert list(to.glob("**/*.onnx")) == []
    assert caught.value.cure
    return str(caught.value)


def test_an_estimator_that_is_not_fitted_is_refused(tmp_path: Path) -> None:
    assert "LogisticRegression is not fitted" in refused(LogisticRegression(), ROWS, tmp_path)


def test_a_pipeline_that_is_not_fitted_is_refused(tmp_path: Path) -> None:
    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    assert "Pipeline is not fitted" in refused(pipeline, ROWS, tmp_path)


def test_a_class_in_place_of_an_estimator_is_refused(tmp_path: Path) -> None:
    assert "DecisionTreeClassifier is no estimator" in refused(
        DecisionTreeClassifier, ROWS, tmp_path
    )


def test_a_step_of_ones_own_is_named_with_the_libraries_that_were_tried(tmp_path: Path) -> None:
    estimator = make_pipeline(Doubling(), DecisionTreeClassifier()).fit(ROWS, LABELS)
    said = refused(estimator, ROWS, tmp_path)
    assert "Doubling" in said
    assert "skl2onnx" in said


def test_a_function_as_a_step_is_named(tmp_path: Path) -> None:
    estimator = make_pipeline(FunctionTransformer(np.sqrt), DecisionTreeClassifier())
    said = refused(estimator.fit(ROWS, LABELS), ROWS, tmp_path)
    assert "FunctionTransformer" in said


def test_what_only_transforms_is_refused(tmp_path: Path) -> None:
    assert "StandardScaler predicts nothing" in refused(StandardScaler().fit(ROWS), ROWS, tmp_path)


def test_several_answers_at_once_are_refused(tmp_path: Path) -> None:
    both = np.stack([LABELS, LABELS > 1], axis=1)
    estimator = MultiOutputClassifier(DecisionTreeClassifier()).fit(ROWS, both)
    assert "several things at once" in refused(estimator, ROWS, tmp_path)


def test_rows_of_another_width_are_refused(tmp_path: Path) -> None:
    assert "3 features, the estimator was fitted on 4" in refused(tree(), ROWS[:, :3], tmp_path)


def test_a_sparse_matrix_is_refused(tmp_path: Path) -> None:
    assert "sparse" in refused(tree(), sparse.csr_matrix(ROWS), tmp_path)


def test_text_in_an_array_is_refused(tmp_path: Path) -> None:
    assert "DataFrame" in refused(tree(), np.array([["a", "b", "c", "d"]]), tmp_path)


def test_a_list_of_texts_is_refused(tmp_path: Path) -> None:
    assert "not of numbers" in refused(tree(), ["a whole sentence"], tmp_path)


def test_a_flat_array_is_refused(tmp_path: Path) -> None:
    assert "(150,)" in refused(tree(), ROWS[:, 0], tmp_path)


def test_no_rows_are_refused(tmp_path: Path) -> None:
    assert "some rows" in refused(tree(), ROWS[:0], tmp_path)


def test_rows_of_unequal_lengths_are_refused(tmp_path: Path) -> None:
    assert "no table" in refused(tree(), [[1.0, 2.0], [3.0]], tmp_path)


def test_missing_values_are_refused_where_the_estimator_takes_none(tmp_path: Path) -> None:
    estimator = LogisticRegression(max_iter=1000).fit(ROWS, LABELS)
    holes = ROWS.copy()
    holes[3, 1] = np.nan
    said = refused(estimator, holes, tmp_path)
    assert "NaN" in said
    assert "imputer" in said


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "no folder" in refused(tree(), ROWS, tmp_path / "nowhere")


def test_scores_beyond_the_tolerance_are_refused_with_their_number(tmp_path: Path) -> None:
    estimator = LogisticRegression(max_iter=1000).fit(ROWS, LABELS)
    said = refused(estimator, ROWS, tmp_path, tolerance=1e-12, precision="float32")
    assert "0 of 150 labels differ" in said
    assert "rows have scores further apart" in said


def test_neighbours_weighted_by_distance_are_refused_while_their_converter_is_off(
    tmp_path: Path,
) -> None:
    estimator = KNeighborsClassifier(weights="distance").fit(ROWS[::2], LABELS[::2])
    said = refused(estimator, ROWS[1::2], tmp_path)
    assert "of 75 labels differ" in said
    assert "also in float64" in said


def test_a_share_of_other_labels_is_allowed(tmp_path: Path) -> None:
    rows = np.tile([[1.0], [1.0 + 1e-9]], (20, 1))  # the same number in float32
    labels = np.tile([0, 1], 20)
    estimator = make_pipeline(StandardScaler(), DecisionTreeClassifier()).fit(rows, labels)
    assert "20 of 40 labels differ" in refused(estimator, rows, tmp_path, precision="float32")

    made = edgefleet.convert(
        estimator,
        rows,
        tmp_path / "model.onnx",
        precision="float32",
        max_labels=0.5,
        max_scores=1.0,
    )

    assert made.on_samples.labels == 20


def test_a_share_that_may_lie_apart_is_allowed(tmp_path: Path) -> None:
    estimator = LogisticRegression(max_iter=1000).fit(ROWS, LABELS)

    made = edgefleet.convert(
        estimator,
        ROWS,
        tmp_path / "model.onnx",
        tolerance=1e-12,
        max_scores=1.0,
        precision="float32",
    )

    assert made.on_samples.scores > 0
    assert made.on_samples.labels == 0


def test_float64_is_chosen_and_told_where_float32_flips_decisions(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows, values = load_diabetes(return_X_y=True)
    forest = RandomForestRegressor(8, random_state=0)
    estimator = make_pipeline(StandardScaler(), forest).fit(rows[::2], values[::2])

    refused(estimator, rows[1::2], tmp_path, precision="float32")
    made = edgefleet.convert(estimator, rows[1::2], tmp_path / "model.onnx")

    bundle = edgefleet.optimize(made, targets=["x86-cpu"], calibration=made.arrays, progress=False)
    assert [variant.precision for variant in bundle.variants] == ["fp32"]
    assert made.arithmetic == "float64"
    assert made.interface.inputs[0].datatype == "FP64"
    assert made.on_samples.none
    assert "float64" in caplog.text


def test_a_tree_decides_on_the_edge_as_the_original_does(tmp_path: Path) -> None:
    made = edgefleet.convert(tree(), ROWS, tmp_path / "model.onnx")

    assert made.on_edges is not None
    assert made.on_edges.rows > 50
    assert made.on_edges.none


def test_what_is_neither_path_nor_estimator_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="neither a path nor an estimator"):
        as_onnx_file(object(), ROWS, tmp_path)


def test_an_estimator_without_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="calibration=X"):
        as_onnx_file(LinearRegression().fit(ROWS, LABELS), None, tmp_path)


def test_a_missing_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skl2onnx", None)

    with pytest.raises(MissingExtraError, match=r"edgefleet\[classical\]"):
        edgefleet.convert(tree(), ROWS, tmp_path / "model.onnx")


def test_importing_edgefleet_brings_no_estimator_along() -> None:
    heavy = "import sys, edgefleet; print([m for m in ('sklearn', 'skl2onnx') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", heavy], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
