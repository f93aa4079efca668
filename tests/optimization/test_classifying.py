"""`classification`: what outputs it reads, and what it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import edgefleet
from edgefleet.errors import InvalidInputError, InvalidModelError
from edgefleet.optimization.classifying import MAX_BYTES, MAX_SAMPLES, classification

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgefleet.optimization.evaluation import Predict

INPUTS = np.arange(5, dtype=np.float32)[:, np.newaxis]
LABELS = [0, 1, 2, 0, 1]
SEEN = [0, 1, 2, 1, 2]  # three of five are right
TEXTS = ("cat", "dog", "eel")


def scores(*, dtype: str = "float32", more: tuple[int, ...] = ()) -> NDArray[Any]:
    """The largest score is where `SEEN` says, and none is between 0 and 1."""
    return (np.eye(3)[SEEN] * 7 + 1).astype(dtype).reshape(5, 3, *more)


def giving(answer: Any) -> Predict:
    """A model that answers the samples it is asked of."""

    def predict(values: Any) -> Any:
        rows = np.asarray(values).astype(int).ravel()
        if isinstance(answer, dict):
            return {name: array[rows] for name, array in answer.items()}
        return answer[rows]

    return predict


@pytest.mark.parametrize(
    "answer",
    [
        np.array(SEEN),
        np.array(SEEN, np.uint8)[:, np.newaxis],
        scores(),
        scores(more=(1, 1)),
        scores(dtype="float16").reshape(5, 1, 3),
        scores(dtype="uint8"),
        {"label": np.array(SEEN), "probabilities": scores()},
        {"scores": scores(), "features": np.zeros((5, 3, 4))},
    ],
    ids=range(8),
)
def test_labels_and_scores_of_any_layout_are_read(answer: Any) -> None:
    found = classification(INPUTS, LABELS)(giving(answer))
    assert found.accuracy == pytest.approx(3 / 5)
    assert found.by_class == {"0": 0.5, "1": 0.5, "2": 1.0}


@pytest.mark.parametrize("labels", [LABELS, [TEXTS[label] for label in LABELS]])
@pytest.mark.parametrize(
    "answer",
    [
        scores(),
        np.array([TEXTS[label] for label in SEEN]),
        np.array([TEXTS[label].encode() for label in SEEN], object),
    ],
    ids=["scores", "texts", "bytes"],
)
def test_texts_are_compared_by_the_classes(labels: list[Any], answer: Any) -> None:
    found = classification(INPUTS, labels, classes=TEXTS)(giving(answer))
    assert found.by_class == {"cat": 0.5, "dog": 0.5, "eel": 1.0}


def test_classes_of_other_numbers_are_the_labels_of_scores() -> None:
    shifted = classification(INPUTS, [label + 5 for label in LABELS], classes=(5, 6, 7))
    assert shifted(giving(scores())).by_class == {"5": 0.5, "6": 0.5, "7": 1.0}


def test_an_output_is_chosen_by_its_name() -> None:
    two = {"first": scores(), "second": np.roll(scores(), 1, axis=1)}
    with pytest.raises(InvalidInputError, match=r"more than one .*first float32\[5, 3\], second"):
        classification(INPUTS, LABELS)(giving(two))
    assert classification(INPUTS, LABELS, output="first")(giving(two)).accuracy == 0.6
    with pytest.raises(InvalidInputError, match=r"no output tells .*first"):
        classification(INPUTS, LABELS, output="third")(giving(two))


@pytest.mark.parametrize(
    "answer, error, says",
    [
        (np.zeros(5), InvalidInputError, r"no output tells .*output float64\[5\]"),
        (np.zeros((5, 3, 8, 8)), InvalidInputError, "write your own evaluate"),
        (np.where(scores() > 2, np.nan, scores()), InvalidModelError, "NaN for 5 of 5 samples"),
        (np.array([TEXTS[label] for label in SEEN]), InvalidInputError, "gives texts"),
    ],
    ids=["one score", "a map", "nan", "texts"],
)
def test_outputs_that_tell_no_class_are_refused(
    answer: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        classification(INPUTS, LABELS)(giving(answer))


def test_an_output_that_lost_samples_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"5 samples: output int64\[3\]"):
        classification(INPUTS, LABELS)(lambda values: np.zeros(3, int))


def test_as_many_classes_as_scores_are_needed() -> None:
    with pytest.raises(InvalidInputError, match="3 scores, there are 2"):
        classification(INPUTS, [0, 1, 0, 0, 1], classes=TEXTS[:2])(giving(scores()))


@pytest.mark.parametrize(
    "inputs, labels, more, says",
    [
        (INPUTS, LABELS[:4], {}, "4 labels for .5. samples"),
        ({"a": INPUTS, "b": INPUTS[:3]}, LABELS, {}, r"5 labels for .3, 5."),
        (INPUTS, np.eye(3)[LABELS], {}, "not one-hot"),
        (INPUTS, [], {}, "one label a sample"),
        (INPUTS, [0.5, 1, 2, 0, 1], {}, "fractions"),
        (INPUTS, [np.nan, 1, 2, 0, 1], {}, "fractions or NaN"),
        ([[1], [1, 2]], LABELS, {}, "no array"),
        (np.array([object()] * 5), LABELS, {}, "no array of numbers or texts"),
        (INPUTS, [3] * 5, {"classes": TEXTS}, "not among the 3 classes"),
        (INPUTS, ["cat"] * 5, {"classes": (1, 2)}, "not among the 2 classes"),
    ],
    ids=range(10),
)
def test_bad_data_is_refused_at_once(inputs: Any, labels: Any, more: Any, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        classification(inputs, labels, **more)


def test_large_data_is_given_in_calls_of_bounded_size() -> None:
    calls: list[int] = []

    def predict(values: Any) -> Any:
        calls.append(values.nbytes)
        assert len(values) <= MAX_SAMPLES
        return np.zeros(len(values), int)

    small = np.zeros((2 * MAX_SAMPLES + 1, 1), np.uint8)
    assert classification(small, np.zeros(len(small)))(predict).accuracy == 1
    assert calls == [MAX_SAMPLES, MAX_SAMPLES, 1]
    calls.clear()
    large = np.broadcast_to(np.uint8(0), (5, MAX_BYTES // 2))
    classification(large, LABELS)(predict)
    assert calls == [MAX_BYTES, MAX_BYTES, MAX_BYTES // 2]


def test_several_inputs_are_given_by_name() -> None:
    def predict(values: Any) -> Any:
        assert sorted(values) == ["a", "b"]
        return values["b"][:, 0]

    inputs = {"a": INPUTS, "b": np.array(SEEN)[:, np.newaxis]}
    assert classification(inputs, LABELS)(predict).accuracy == 0.6


def test_the_digest_is_of_all_that_decides_the_figure() -> None:
    due = classification(INPUTS, LABELS).digest()
    assert classification(INPUTS.copy(), np.array(LABELS)).digest() == due
    others = [
        classification(INPUTS + 1, LABELS),
        classification(INPUTS.astype("float64"), LABELS),
        classification({"x": INPUTS}, LABELS),
        classification(INPUTS, LABELS[::-1]),
        classification(INPUTS, LABELS, output="label"),
        classification(INPUTS, LABELS, classes=TEXTS),
    ]
    assert len({due, *(other.digest() for other in others)}) == 7


def test_the_digest_follows_the_data() -> None:
    inputs = INPUTS.copy()
    judge = classification(inputs, LABELS)
    before = judge.digest()
    inputs += 1
    assert judge.digest() != before


def test_it_is_a_public_name() -> None:
    assert edgefleet.classification is classification
