"""What the caller's ``evaluate`` says of a candidate, checked to be numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Number
from typing import TYPE_CHECKING, Any, SupportsFloat

from edgefleet.errors import EdgeFleetError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable

    Predict = Callable[[Any], Any]
    Evaluate = Callable[[Predict], "SupportsFloat | Scores"]
    """``evaluate(predict) -> accuracy``; see `optimize`."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Accuracy of one candidate, and of each class where that is known.

    Attributes:
        accuracy: higher is better.
        by_class: class -> accuracy within the class.
    """

    accuracy: float
    by_class: Mapping[str, float] = field(default_factory=dict)


def evaluated(evaluate: Evaluate, predict: Predict, outputs: tuple[str, ...], what: str) -> Scores:
    """What the caller's ``evaluate`` says of a model, checked to be finite numbers.

    Args:
        evaluate: the caller's.
        predict: runs the model.
        outputs: names of the model's outputs, for messages.
        what: the candidate, for messages.

    Raises:
        InvalidInputError: it raises, or gives anything else.
    """
    try:
        value: Any = evaluate(predict)
    except EdgeFleetError:
        raise
    except Exception as error:
        raise InvalidInputError(
            f"evaluate() failed on {what}: {type(error).__name__}: {error}",
            cure="predict(x) gives an array, or with several outputs a mapping of name to array; "
            f"the outputs are {', '.join(outputs)}",
        ) from error
    scores = value if isinstance(value, Scores) else Scores(value)
    accuracy = _number(scores.accuracy)
    classes = {str(name): _number(part) for name, part in scores.by_class.items()}
    if accuracy is None or None in classes.values():
        raise InvalidInputError(
            f"evaluate() gave {value!r:.100} for {what}, not a finite number",
            cure="return the accuracy as a float, higher is better, or edgefleet.Scores",
        )
    return Scores(accuracy, {name: part for name, part in classes.items() if part is not None})


def _number(value: Any) -> float | None:  # noqa: ANN401 - whatever the caller's function gave
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()  # numpy's and torch's scalars
    if isinstance(value, bool) or not isinstance(value, Number) or isinstance(value, complex):
        return None
    number = float(value)  # type: ignore[arg-type] # real numbers convert
    return number if math.isfinite(number) else None
