"""The same metric for active model and candidate, on the same data, on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgefleet.errors import InvalidModelError
from edgefleet.loop.record import Scores
from edgefleet.optimization.evaluation import evaluated
from edgefleet.optimization.functions import load_function
from edgefleet.optimization.sessions import SESSIONS, session_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefleet.loop.samples import Arrays
    from edgefleet.loop.spec import CompareSpec
    from edgefleet.optimization.evaluation import Evaluate
    from edgefleet.optimization.session import Session
    from edgefleet.protocol.layout import BundleLayout

ACCURACY = "accuracy"


def rating(spec: CompareSpec, data: Arrays) -> Evaluate:
    """An ``evaluate`` that rates a model on data by the loop's metric; see `edgefleet.optimize`.

    Raises:
        InvalidInputError: the metric names no function, or the data suit none.
    """
    inputs = data.inputs
    given: Any = next(iter(inputs.values())) if len(inputs) == 1 else dict(inputs)
    if spec.metric == ACCURACY:
        from edgefleet.optimization.classifying import classification  # noqa: PLC0415 - numpy

        return classification(given, data.labels, output=spec.output)
    metric: Callable[..., Any] = load_function(spec.metric)
    return lambda predict: metric(predict, dict(inputs), data.labels)


def open_bundle(bundle: BundleLayout, work: Path) -> Session:
    """The first variant of a bundle that runs here: the model as it was given to `optimize`.

    Raises:
        InvalidModelError: none does.
    """
    for variant in bundle.variants:
        if variant.format in SESSIONS:
            folder = work / variant.manifest.digest.rpartition(":")[2][:16]
            path = bundle.materialize(variant.name, folder)
            details = bundle.details(variant.name)
            return session_of(variant.format)(path, details.interface)
    formats = ", ".join(sorted({variant.format for variant in bundle.variants}))
    msg = f"nothing here runs {formats} files, so the model can't be compared"
    raise InvalidModelError(msg, cure="keep an ONNX variant in the bundle")


def scores(active: Session, candidate: Session, spec: CompareSpec, data: Arrays) -> Scores:
    """Both models by the metric.

    Raises:
        InvalidInputError: the metric fails on one of them.
    """
    evaluate = rating(spec, data)
    found = [
        evaluated(evaluate, session.predict, tuple(session.outputs), what).accuracy
        for session, what in ((active, "the active model"), (candidate, "the candidate"))
    ]
    return Scores(active=found[0], candidate=found[1], samples=len(data))
