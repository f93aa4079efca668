"""What a device serves is what the original predicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import edgefleet
import edgefleet_runtime

if TYPE_CHECKING:
    from pathlib import Path


from sklearn.datasets import load_digits
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def test_a_device_answers_as_the_estimator(tmp_path: Path) -> None:
    rows, labels = load_digits(return_X_y=True)
    estimator = make_pipeline(
        StandardScaler(), GradientBoostingClassifier(n_estimators=3, max_depth=2, random_state=0)
    )
    estimator.fit(rows[:400], labels[:400])
    unseen = rows[400:500]

    made = edgefleet.convert(estimator, unseen, tmp_path / "digits.onnx")
    with edgefleet_runtime.Runtime({"digits": str(made.path)}) as runtime:
        said = runtime.infer("digits", made.arrays)

    assert (said["label"] == estimator.predict(unseen)).all()
    np.testing.assert_allclose(said["probabilities"], estimator.predict_proba(unseen), atol=1e-5)
