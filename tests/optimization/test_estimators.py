"""Fitted estimators in `optimize`: converted, judged, packed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edgefleet.errors import InvalidInputError
from edgefleet.optimization import optimize

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_an_estimator_becomes_a_bundle_with_its_labels_and_says_that_nothing_can_be_narrowed(
    scratch: Path,
) -> None:
    rows, kinds = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[kinds]
    forest = RandomForestClassifier(5, random_state=0)
    pipeline = make_pipeline(StandardScaler(), forest).fit(rows, names)

    def accuracy(predict: Callable[[Any], Any]) -> float:
        return float((predict(rows.astype(np.float32))["label"] == names).mean())

    bundle = optimize(
        pipeline,
        targets=["x86-cpu", "jetson-orin"],
        calibration=rows,
        evaluate=accuracy,
    )
    assert [variant.name for variant in bundle.variants] == ["fp32"]
    assert bundle.details("fp32").labels == ("setosa", "versicolor", "virginica")
    assert bundle.report.row("fp32").accuracy == pipeline.score(rows, names) > 0.95
    for name in ("int8", "fp16"):
        assert "nothing to narrow" in bundle.report.row(name).why
    assert len(bundle.details("fp32").self_test) > 0
    del bundle
    assert list(scratch.iterdir()) == []


def test_an_estimator_without_samples_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="calibration=X"):
        optimize(StandardScaler(), targets=["any"])
