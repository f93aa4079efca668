"""What stands against a variant is found from data alone, before a device is asked."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given

from edgefleet.errors import InvalidInputError, NotFoundError
from edgefleet.protocol import target as t
from edgefleet.protocol.bundle import Variant
from edgefleet.protocol.target_problems import (
    Problem,
    check_targets,
    check_variants,
    target_problems,
    variant_problems,
)
from tests.protocol.test_target import BOARD, variant, variants

GIB = 1 << 30
TESTED = msgspec.structs.replace(
    BOARD, status="tested", memory_bytes=1 * GIB, max_memory_bytes=4 * GIB
)
IMPOSSIBLE = msgspec.structs.replace(BOARD, status="impossible", why="it has no Linux")


def only(problems: tuple[Problem, ...]) -> tuple[str, str]:
    (problem,) = problems
    return problem.level, problem.text


@pytest.mark.parametrize(
    "change, text, cure",
    [
        ({"opset": 22}, "opset 22 is newer than the 21", "convert_version(model, 21)"),
        ({"format": "openvino"}, "format openvino is not opened there", "open tflite, onnx"),
        ({"precision": "fp16"}, "precision fp16 does not suit it", "int8, fp32"),
        ({"bytes": 4 * GIB + 1}, "no board has more than 4 GiB", "make it smaller"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_can_never_run_is_refused_with_its_cure(
    change: dict[str, object], text: str, cure: str
) -> None:
    made = variant("x", targets=("board",), **change)
    level, said = only(target_problems(made, TESTED))
    assert level == "refuse"
    assert said.startswith("variant x on target board: ")
    assert text in said
    with pytest.raises(InvalidInputError, match="variant x on target board") as refusal:
        check_variants([made], [TESTED])
    assert cure in str(refusal.value.cure)


def test_impossible_target_is_refused_and_says_why() -> None:
    level, text = only(target_problems(variant("x"), IMPOSSIBLE))
    assert (level, text) == ("refuse", "nothing can serve target board: it has no Linux")
    with pytest.raises(InvalidInputError, match="it has no Linux") as refusal:
        check_targets([TESTED, IMPOSSIBLE])
    assert refusal.value.cure == "leave that target out"


@pytest.mark.parametrize("status", ["built", "untested"])
def test_target_that_nobody_tried_is_noted_and_nothing_else(status: str) -> None:
    target = msgspec.structs.replace(TESTED, status=status)
    assert only(check_targets([target])) == ("note", f"target board is {status}")
    assert only(target_problems(variant("x"), target)) == ("note", f"target board is {status}")


def test_nothing_stands_against_what_fits_a_tested_target() -> None:
    assert target_problems(variant("x", opset=21), TESTED) == ()


@pytest.mark.parametrize(
    "size, levels",
    [(GIB // 2, []), (GIB // 2 + 1, ["warn"]), (4 * GIB, ["warn"]), (4 * GIB + 1, ["refuse"])],
)
def test_memory_warns_from_half_of_the_smallest_board_and_refuses_beyond_the_largest(
    size: int, levels: list[str]
) -> None:
    found = target_problems(variant("x", bytes=size), TESTED)
    assert [problem.level for problem in found] == levels


def test_one_size_of_memory_is_both_the_smallest_and_the_largest() -> None:
    target = msgspec.structs.replace(TESTED, max_memory_bytes=None)
    assert only(target_problems(variant("x", bytes=GIB + 1), target))[0] == "refuse"


def test_memory_that_varies_stands_against_nothing() -> None:
    target = msgspec.structs.replace(TESTED, memory_bytes=None, max_memory_bytes=None)
    assert target_problems(variant("x", bytes=1 << 45), target) == ()


def test_unknown_target_is_warned_of() -> None:
    level, text = only(variant_problems(variant("x", targets=("toaster",)), [TESTED]))
    assert level == "warn"
    assert "variant x is made for target toaster, which is unknown here" in text


def test_variant_made_for_none_in_particular_has_no_problem() -> None:
    assert variant_problems(variant("x", precision="fp16", opset=99), [TESTED]) == ()


def test_warnings_and_notes_are_given_once_for_many_variants() -> None:
    untested = msgspec.structs.replace(TESTED, status="untested")
    two = [variant(name, targets=("board",)) for name in "ab"]
    assert [problem.level for problem in check_variants(two, [untested])] == ["note"]


def test_every_refusal_is_in_the_error() -> None:
    bad = [
        variant("a", targets=("board",), opset=22),
        variant("b", targets=("board",), precision="fp16"),
    ]
    with pytest.raises(InvalidInputError, match=r"variant a on .*; variant b on"):
        check_variants(bad, [TESTED])


def test_the_worst_comes_first() -> None:
    made = variant("x", opset=22, bytes=GIB)
    target = msgspec.structs.replace(TESTED, status="untested")
    levels = [problem.level for problem in target_problems(made, target)]
    assert levels == ["refuse", "warn", "note"]


@given(variants)
def test_what_is_chosen_for_a_target_is_never_refused_there(offered: list[Variant]) -> None:
    """If this fails, a plan would call a device's own choice a problem."""
    try:
        chosen = t.choose_variant(offered, TESTED).variant
    except NotFoundError:
        return
    assert not [p for p in target_problems(chosen, TESTED) if p.level == "refuse"]
