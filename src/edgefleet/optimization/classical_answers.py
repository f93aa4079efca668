"""What an estimator and its ONNX model answer, brought into one form so that they can be compared.

Rules kept here:

- Probabilities where the estimator has them, else the scores that it decides by.
- Two classes always have two columns: a decision d is (-d, d).
- Distances to clusters get a minus: the highest is the nearest.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from edgefleet.errors import InvalidInputError, InvalidModelError
from edgefleet.optimization.classical_check import Answers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgefleet.optimization.classical_table import Table
    from edgefleet.optimization.samples import Feed


@dataclass(frozen=True, slots=True)
class Kind:
    """What an estimator is, and so what its model's outputs are.

    Attributes:
        task: ``classify``, ``cluster``, ``detect`` (outliers) or ``regress``.
        method: of the estimator, that gives its scores; empty where it has none.
        outputs: names of the model's outputs.
    """

    task: Literal["classify", "cluster", "detect", "regress"]
    method: str
    outputs: tuple[str, ...]

    @property
    def probabilities(self) -> bool:
        """Whether the scores are probabilities."""
        return self.method == "predict_proba"

    @property
    def mirrors(self) -> bool:
        """Whether two classes' scores may have come out in each other's column."""
        return self.task == "classify" and self.method == "decision_function"


def kind_of(estimator: Any) -> Kind:  # noqa: ANN401 - scikit-learn has no types
    """What an estimator is.

    Raises:
        InvalidModelError: it has no predictions that a model could give.
    """
    from sklearn.base import is_classifier, is_clusterer, is_outlier_detector, is_regressor

    if not hasattr(estimator, "predict"):
        raise InvalidModelError(
            f"{type(estimator).__name__} predicts nothing",
            cure="give the whole pipeline, with the estimator that it prepares data for",
        )
    if is_classifier(estimator):
        if hasattr(estimator, "predict_proba"):
            return Kind("classify", "predict_proba", ("label", "probabilities"))
        method = "decision_function" if hasattr(estimator, "decision_function") else ""
        return Kind("classify", method, ("label", "scores"))
    if is_outlier_detector(estimator):
        return Kind("detect", "decision_function", ("label", "scores"))
    if is_clusterer(estimator):
        method = "transform" if hasattr(estimator, "transform") else ""
        return Kind("cluster", method, ("label", "scores"))
    if is_regressor(estimator):
        return Kind("regress", "predict", ("prediction",))
    raise InvalidModelError(
        f"{type(estimator).__name__} neither classifies nor regresses nor clusters",
        cure="give a classifier, a regressor, a clusterer or an outlier detector",
    )


@dataclass(frozen=True, slots=True)
class Original:
    """The estimator, to be asked."""

    estimator: Any
    kind: Kind

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names by column of the scores."""
        if self.kind.task != "classify":
            return ()
        return tuple(str(name) for name in self.estimator.classes_)

    def __call__(self, table: Table) -> Answers:
        """Its answers to some rows.

        Raises:
            InvalidInputError: it fails on them.
            InvalidModelError: it predicts several things at once.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that an array hasn't, of threads
            try:
                predicted = self.estimator.predict(table.rows)
                method = self.kind.method
                scores = getattr(self.estimator, method)(table.rows) if method else None
            except Exception as error:  # estimators raise whatever comes
                first = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
                raise InvalidInputError(
                    f"the estimator itself fails on the samples: {first}",
                    cure="give rows as its predict takes them; where values are missing, put an "
                    "imputer into the pipeline",
                ) from error
        if isinstance(scores, list) or (self.kind.task != "regress" and predicted.ndim > 1):
            raise InvalidModelError(
                f"{type(self.estimator).__name__} predicts several things at once",
                cure="convert one estimator for each of them",
            )
        return _answers(self.kind, predicted, scores)


def model_answers(kind: Kind, outputs: Feed) -> Answers:
    """The answers of a model that was converted from that kind of estimator."""
    arrays = list(outputs.values())
    scores = arrays[1] if len(arrays) > 1 else arrays[0] if kind.task == "regress" else None
    return _answers(kind, arrays[0].reshape(len(arrays[0]), -1)[:, 0], scores)


def _answers(kind: Kind, predicted: NDArray[Any], scores: NDArray[Any] | None) -> Answers:
    import numpy as np

    labels = None if kind.task == "regress" else np.asarray(predicted)
    if not kind.method or scores is None:
        return Answers(labels, None)
    found = np.asarray(scores, dtype=np.float64).reshape(len(scores), -1)
    if kind.mirrors and found.shape[1] == 1:
        found = np.concatenate([-found, found], axis=1)
    return Answers(labels, -found if kind.task == "cluster" else found)
