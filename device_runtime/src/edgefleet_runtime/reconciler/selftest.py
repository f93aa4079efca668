"""The self-test: recorded inputs must give on this device what they gave where the bundle was made.

An element passes as `edgefleet.protocol.bundle.Tolerance` says. NaN passes for NaN and an infinity
for the same one. Of integers only the absolute tolerance counts: a class index is not "nearly"
right for being large. BOOL and BYTES must be equal.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from edgefleet.errors import EdgeFleetError
from edgefleet.protocol.report import SelfTest
from edgefleet.protocol.tensors import from_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from edgefleet.protocol.bundle import Details, Tensor, Tolerance, Vector
    from edgefleet_runtime.engines.base import LoadedModel


def self_test(model: LoadedModel, details: Details) -> tuple[SelfTest, str | None]:
    """Run every recorded vector, until one fails.

    Returns:
        The outcome, and in a sentence what was wrong with the case that failed.
    """
    worst = 0.0
    for number, vector in enumerate(details.self_test, 1):
        difference, wrong = _run(model, vector, details.tolerance)
        worst = max(worst, difference)
        if wrong is not None:
            figure = worst if math.isfinite(worst) else None
            outcome = SelfTest(passed=False, cases=number, max_error=figure)
            return outcome, f"self-test case {number} failed: {wrong}"
    return SelfTest(passed=True, cases=len(details.self_test), max_error=worst), None


def recorded_inputs(details: Details) -> list[dict[str, NDArray[Any]]]:
    """The inputs of every recorded vector."""
    return [_arrays(vector.inputs) for vector in details.self_test]


def warm_up(model: LoadedModel, details: Details) -> None:
    """Run the model once, so that the first request doesn't pay for what engines put off."""
    for vector in details.self_test[:1]:
        model.infer(_arrays(vector.inputs))


def _run(model: LoadedModel, vector: Vector, tolerance: Tolerance) -> tuple[float, str | None]:
    """The largest difference of one case, and what is wrong if anything is."""
    worst = 0.0
    try:
        recorded = _arrays(vector.outputs)
        seen = model.infer(_arrays(vector.inputs), list(recorded))
    except EdgeFleetError as error:
        return worst, error.message
    for name, due in recorded.items():
        got = seen[name]
        if got.shape != due.shape:
            return worst, f"output {name!r} has shape {got.shape}, recorded was {due.shape}"
        apart, passed = _compare(got, due, tolerance)
        worst = max(worst, apart)
        if not passed.all():
            wrong = int(passed.size - passed.sum())
            return worst, (
                f"{wrong} of {due.size} elements of output {name!r} are out of tolerance, "
                f"largest difference {worst:.6g}"
            )
    return worst, None


def _arrays(tensors: Iterable[Tensor]) -> dict[str, NDArray[Any]]:
    """Recorded tensors by name; raises `InvalidInputError` when one doesn't fill its shape."""
    return {t.name: from_bytes(t.data, t.datatype, t.shape, name=t.name) for t in tensors}


def _compare(
    got: NDArray[Any], due: NDArray[Any], tolerance: Tolerance
) -> tuple[float, NDArray[np.bool_]]:
    """The largest absolute difference (infinite where NaN stands for a number), and what passes."""
    if due.dtype.kind in "Ob" or got.dtype.kind in "Ob":
        return 0.0, np.asarray(_plain(got) == _plain(due), dtype=np.bool_)
    equal = (got == due) | ((got != got) & (due != due))  # noqa: PLR0124 - NaN differs from itself
    relative = 0.0 if due.dtype.kind in "iu" else tolerance.relative
    wide, reference = got.astype(np.float64), due.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.where(equal, 0.0, np.abs(wide - reference))
        allowed = tolerance.absolute + relative * np.abs(reference)
        # By the formula, an infinity recorded would allow any difference: only itself will do.
        passed = equal | (np.isfinite(reference) & (apart <= allowed))
    worst = float(apart.max(initial=0.0))
    return (math.inf if math.isnan(worst) else worst), passed


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    """Strings as bytes, whichever of the two an engine gives."""
    if array.dtype.kind != "O":
        return array
    plain = np.empty(array.size, dtype=object)
    plain[:] = [item.encode() if isinstance(item, str) else item for item in array.ravel()]
    return plain.reshape(array.shape)
