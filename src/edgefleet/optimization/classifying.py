"""`classification`: the usual ``evaluate`` of a classifier, whose results may be kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgefleet.errors import InvalidInputError, InvalidModelError
from edgefleet.optimization.evaluation import Scores
from edgefleet.optimization.fingerprint import digest_of_value
from edgefleet.optimization.libraries import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edgefleet.optimization.evaluation import Predict

MAX_SAMPLES = 1024  # in one call of predict
MAX_BYTES = 64 << 20  # of inputs in one call of predict

CHOOSE = "name one: classification(…, output='…')"


class Classification:
    """An ``evaluate`` for classifiers; see `classification`."""

    def __init__(
        self,
        inputs: NDArray[Any] | Mapping[str, NDArray[Any]],
        labels: NDArray[Any] | Sequence[int | str],
        *,
        output: str | None = None,
        classes: Sequence[int | str] | None = None,
    ) -> None:
        require("numpy")
        import numpy as np

        self._bare = not isinstance(inputs, Mapping)
        given = inputs if isinstance(inputs, Mapping) else {"": inputs}
        self._inputs = {name: _array(array, f"inputs {name}") for name, array in given.items()}
        self._classes = None if classes is None else _labels(classes, "classes")
        self._output = output
        found = _labels(labels, "labels")
        if self._classes is not None and found.dtype.kind != self._classes.dtype.kind:
            found = _by_index(found, self._classes)
        self._labels = found
        counts = {len(array) for array in self._inputs.values()}
        if counts != {len(found)}:
            raise InvalidInputError(
                f"there are {len(found)} labels for {sorted(counts)} samples",
                cure="give every input as many samples along its first axis as there are labels",
            )
        one = sum(array[:1].nbytes for array in self._inputs.values())
        self._batch = int(np.clip(MAX_BYTES // max(1, one), 1, MAX_SAMPLES))

    def digest(self) -> str:
        """Digest of inputs, labels and how they are compared."""
        found = digest_of_value((self._bare, self._inputs, self._labels, self._classes))
        return f"classification {self._output!r} {found}"

    def __call__(self, predict: Predict) -> Scores:
        """Accuracy over all samples, and within each class.

        Raises:
            InvalidInputError: no output tells classes, or not clearly.
            InvalidModelError: an output holds NaN.
        """
        import numpy as np

        right = np.concatenate(
            [
                self._right(predict, start, start + self._batch)
                for start in range(0, len(self._labels), self._batch)
            ]
        )
        within = {
            str(label): float(right[self._labels == label].mean())
            for label in np.unique(self._labels)
        }
        return Scores(float(right.mean()), within)

    def _right(self, predict: Predict, start: int, stop: int) -> NDArray[Any]:
        """Which of the samples from ``start`` to ``stop`` the model gets right."""
        feed = {name: array[start:stop] for name, array in self._inputs.items()}
        due = self._labels[start:stop]
        answer = predict(feed[""] if self._bare else feed)
        outputs = answer if isinstance(answer, Mapping) else {self._output or "output": answer}
        name, values = _chosen(outputs, self._output, len(due))
        seen = values[:, 0] if values.shape[1] == 1 else self._best(name, values)
        if seen.dtype.kind != due.dtype.kind and "U" in (seen.dtype.kind + due.dtype.kind):
            raise InvalidInputError(
                f"output {name!r} gives {_kind(seen)}, the labels are {_kind(due)}",
                cure="give labels= as the model tells them, or classes= with the label of each "
                "score",
            )
        right: NDArray[Any] = seen == due
        return right

    def _best(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        import numpy as np

        if values.dtype.kind == "f" and np.isnan(values).any():
            raise InvalidModelError(
                f"output {name!r} holds NaN for {int(np.isnan(values).any(axis=1).sum())} of "
                f"{len(values)} samples",
                cure="its numbers leave the range of its precision: keep more of it in floats",
            )
        best: NDArray[Any] = values.argmax(axis=1)
        if self._classes is None:
            return best
        if len(self._classes) != values.shape[1]:
            raise InvalidInputError(
                f"output {name!r} has {values.shape[1]} scores, there are "
                f"{len(self._classes)} classes",
                cure="give classes= the label of each score, in order",
            )
        told: NDArray[Any] = self._classes[best]
        return told


def classification(
    inputs: NDArray[Any] | Mapping[str, NDArray[Any]],
    labels: NDArray[Any] | Sequence[int | str],
    *,
    output: str | None = None,
    classes: Sequence[int | str] | None = None,
) -> Classification:
    """An ``evaluate`` for classifiers: accuracy, and the accuracy within each class.

    The model may tell labels (whole numbers or texts, one a sample) or scores by class (the largest
    counts; ``[N, C]``, also with axes of length 1). It is called with at most 1024 samples at a
    time. The same data gives the same `Classification.digest`, so what `optimize` found is kept for
    the next call.

    Args:
        inputs: an array where the model has one input, else a mapping of input name to array,
            samples along the first axis.
        labels: what is right for each sample: whole numbers or texts.
        output: name of the output to look at; None for the one that tells labels, or else scores.
        classes: label of each score, by index; without it scores stand for 0, 1, 2, …. With texts
            here, ``labels`` may be indices too.

    Raises:
        InvalidInputError: the data is no array of numbers or texts, or lengths differ.
    """
    return Classification(inputs, labels, output=output, classes=classes)


def _array(value: object, what: str) -> NDArray[Any]:
    import numpy as np

    try:
        array = np.asarray(value)
    except ValueError as error:  # lists of unequal lengths
        raise InvalidInputError(f"{what.strip()} is no array: {error}") from error
    if array.dtype.kind == "O" and all(isinstance(item, str) for item in array.flat):
        return array
    if array.dtype.kind not in "biufSU" or not array.ndim:
        raise InvalidInputError(
            f"{what.strip()} is no array of numbers or texts", cure="convert it with numpy first"
        )
    return array


def _labels(value: object, what: str) -> NDArray[Any]:
    """One-dimensional labels as int64, or as texts."""
    import numpy as np

    array = _array(value, what)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or not len(array):
        raise InvalidInputError(
            f"{what} has shape {array.shape}", cure="give one label a sample, not one-hot"
        )
    if array.dtype.kind in "OSU":
        return _texts(array)
    if not np.array_equal(array, np.round(array)):
        raise InvalidInputError(f"{what} holds fractions or NaN", cure="give whole numbers")
    return array.astype(np.int64)


def _texts(array: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    items = [item.decode() if isinstance(item, bytes) else str(item) for item in array.tolist()]
    return np.array(items, dtype=np.str_)


def _by_index(labels: NDArray[Any], classes: NDArray[Any]) -> NDArray[Any]:
    if labels.dtype.kind == "U" or labels.min() < 0 or labels.max() >= len(classes):
        raise InvalidInputError(
            f"the labels are not among the {len(classes)} classes",
            cure="give labels as classes has them, or their indices",
        )
    found: NDArray[Any] = classes[labels]
    return found


def _chosen(outputs: Mapping[str, Any], wanted: str | None, count: int) -> tuple[str, NDArray[Any]]:
    """The output that tells classes: ``[N, 1]`` labels or ``[N, C]`` scores."""
    found = {name: _flat(value, count) for name, value in outputs.items()}
    if wanted is not None and len(outputs) > 1:
        found = {name: array for name, array in found.items() if name == wanted}
    usable = {name: array for name, array in found.items() if array is not None}
    told = {name: array for name, array in usable.items() if array.shape[1] == 1}
    chosen = told or usable
    if len(chosen) == 1:
        return next(iter(chosen.items()))
    shapes = ", ".join(f"{name} {_shape(value)}" for name, value in outputs.items())
    problem = "more than one output tells" if chosen else "no output tells"
    raise InvalidInputError(
        f"{problem} classes of {count} samples: {shapes}",
        cure=CHOOSE
        if chosen
        else "labels are one a sample, scores [N, C] with C of 2 or more; "
        "write your own evaluate for anything else",
    )


def _flat(value: object, count: int) -> NDArray[Any] | None:
    """An output as ``[N, C]``; None where it tells no classes."""
    import numpy as np

    array = np.asarray(value)
    if not array.ndim or len(array) != count or sum(n != 1 for n in array.shape[1:]) > 1:
        return None
    array = array.reshape(count, -1)
    if array.dtype.kind in "OSU":
        return _texts(array[:, 0])[:, np.newaxis] if array.shape[1] == 1 else None
    single = array.dtype.kind in "iub"
    return array if array.shape[1] > 1 or (single and array.shape[1] == 1) else None


def _shape(value: object) -> str:
    import numpy as np

    array = np.asarray(value)
    return f"{array.dtype}{[*array.shape]}"


def _kind(array: NDArray[Any]) -> str:
    return "texts" if array.dtype.kind == "U" else "numbers"
