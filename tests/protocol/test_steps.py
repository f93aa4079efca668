"""The vocabulary of steps: read, written, refused."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.errors import DocumentError, InvalidInputError, UnknownFeatureError
from edgefleet.protocol import steps as s
from edgefleet.protocol.documents import KNOWN_FEATURES

EXAMPLES: dict[str, dict[str, Any]] = {
    "input": {"datatype": "UINT8", "shape": [-1, -1, 3], "tensor": "photo"},
    "cast": {"datatype": "FP32"},
    "rescale": {"scale": 0.5, "offset": -1.0},
    "normalize": {"mean": [0.5], "std": [0.25, 0.5, 1.0]},
    "transpose": {"axes": [2, 0, 1]},
    "reshape": {"shape": [1, -1]},
    "expand_dims": {"axis": -1},
    "squeeze": {"axis": 1},
    "resize": {"height": 224, "width": 224, "layout": "CHW", "mode": "nearest"},
    "clip": {"min": 0.0},
    "threshold": {"at": 0.5},
    "softmax": {"axis": 1},
    "argmax": {"keep": True},
    "top_k": {"k": 5, "into": "scores", "indices": "classes"},
    "label": {"labels": ["good", "dent"]},
}
PLAIN = [{"step": name, **fields} for name, fields in EXAMPLES.items()]


def test_every_step_is_read_and_written_back() -> None:
    assert tuple(EXAMPLES) == s.STEP_NAMES
    steps = s.read_steps(PLAIN, what="steps")
    assert [type(step) for step in steps] == list(get_args(s.Step))
    assert [s.step_name(step) for step in steps] == list(s.STEP_NAMES)
    assert s.read_steps(s.plain_steps(steps), what="steps") == steps


@pytest.mark.parametrize("plain", [{"step": "hologram"}, {}, {"step": None}, {"step": ["cast"]}])
def test_a_step_unknown_here_is_refused_by_its_number(plain: dict[str, Any]) -> None:
    with pytest.raises(UnknownFeatureError, match=r"step 2 of preprocessing is") as refusal:
        s.read_steps([PLAIN[1], plain], what="preprocessing")
    assert refusal.value.features
    assert "upgrade" in str(refusal.value)


@pytest.mark.parametrize("plain", PLAIN, ids=list(EXAMPLES))
def test_a_field_unknown_here_is_refused_and_never_skipped(plain: dict[str, Any]) -> None:
    with pytest.raises(DocumentError, match="unknown field `hologram`"):
        s.read_steps([{**plain, "hologram": 1}], what="steps")


@pytest.mark.parametrize(
    "plain,said",
    [
        ({"step": "normalize", "mean": [1, 2], "std": [1, 2, 3]}, "2 means and 3 stds"),
        ({"step": "normalize", "mean": [1], "std": [0]}, "std of 0"),
        ({"step": "normalize", "mean": [], "std": [1]}, "length >= 1"),
        ({"step": "transpose", "axes": [0, 2]}, r"axes \[0, 2\]"),
        ({"step": "reshape", "shape": [-1, -1]}, "more than one -1"),
        ({"step": "clip", "min": 2, "max": 1}, "min 2.* above max 1"),
        ({"step": "resize", "height": 0, "width": 1}, ">= 1"),
        ({"step": "resize", "height": 1 << 20, "width": 1}, "<= 16384"),
        ({"step": "top_k", "k": 0}, ">= 1"),
        ({"step": "cast", "datatype": "FP8"}, "Invalid enum value"),
        ({"step": "threshold"}, "missing required field `at`"),
    ],
)
def test_a_malformed_step_is_refused_with_its_reason(plain: dict[str, Any], said: str) -> None:
    with pytest.raises(DocumentError, match=rf"step 1 of steps .* malformed: .*{said}"):
        s.read_steps([plain], what="steps")


def test_steps_are_bounded() -> None:
    with pytest.raises(DocumentError, match="33 steps, 32 are allowed"):
        s.read_steps([{"step": "softmax"}] * 33, what="steps")


def test_what_no_reader_would_take_is_not_written() -> None:
    with pytest.raises(DocumentError, match="step 1 of steps"):
        s.plain_steps([s.TopK(k=0)])
    with pytest.raises(DocumentError, match="step 1 of steps"):
        s.plain_steps([s.Threshold(at=float("nan"))])
    with pytest.raises(InvalidInputError):
        s.Clip(min=2, max=1)


@given(
    st.dictionaries(
        st.sampled_from(["step", "axis", "k", "shape", "tensor", "datatype", "x"]),
        st.one_of(
            st.none(),
            st.integers(),
            st.text(),
            st.sampled_from(s.STEP_NAMES),
            st.lists(st.integers()),
        ),
    )
)
def test_any_object_at_all_is_a_step_or_a_document_error(plain: dict[str, Any]) -> None:
    try:
        (step,) = s.read_steps([plain], what="steps")
    except DocumentError:
        return
    assert s.read_steps(s.plain_steps([step]), what="steps") == (step,)
    assert msgspec.to_builtins(step)["step"] == plain["step"]


def test_who_knows_the_vocabulary_knows_the_feature() -> None:
    assert s.FEATURE in KNOWN_FEATURES
