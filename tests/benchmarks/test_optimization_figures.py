from __future__ import annotations

from typing import Any

import pytest

from benchmarks.optimization.processors import AS_IT_IS, AVX2
from benchmarks.optimization.run import figures_of, rows_of


def row(candidate: str, p50_s: list[float], **changed: Any) -> dict[str, Any]:
    facts = {"bytes": 5_000_000, "accuracy": 0.87, "why": "", "p99_s": p50_s, "p50_s": p50_s}
    return {"candidate": candidate, **facts, **changed}


def found(model: str, chosen: str, *rows: dict[str, Any]) -> dict[str, Any]:
    given = row("fp32", [0.004, 0.004, 0.008])
    return {"model": model, "chosen": chosen, "rows": [given, *rows]}


def test_times_are_ratios_within_a_round() -> None:
    # The machine slowed down in the last round: both doubled, and nothing changed between them.
    int8 = row("int8", [0.002, 0.002, 0.004], bytes=1_350_000, why="chosen")
    lines = rows_of("here", found("squeezenet", "int8", int8))
    assert lines == [
        "| here | squeezenet | fp32 | 5.00 MB | 4 ms | 4 ms | 0.870 |  |",
        "| here | squeezenet | int8 | 0.270 | 0.500 | 0.500 | 0.870 | chosen |",
    ]


def test_what_lost_too_much_is_said_to_fail_the_gate() -> None:
    lines = rows_of("here", found("squeezenet", "fp32", row("plain", [1, 1, 1], accuracy=0.85)))
    assert lines[0].endswith("| chosen |")
    assert lines[1].endswith("| 0.850 | fails the gate |")


def test_what_could_not_be_made_is_told_with_its_reason() -> None:
    missing = {"candidate": "NNCF", "why": "RuntimeError: not installed"}
    lines = rows_of("here", found("squeezenet", "fp32", missing))
    assert lines[1] == "| here | squeezenet | NNCF | - | - | - | - | RuntimeError: not installed |"


@pytest.mark.parametrize("seconds,reached", [(0.0028, True), (0.0029, False)])
def test_the_time_of_what_was_chosen_is_held_to_its_goal(*, seconds: float, reached: bool) -> None:
    int8 = row("int8", [seconds, seconds, seconds * 2], bytes=1_350_000)
    time, size, accuracy = figures_of(AVX2, found("squeezenet", "int8", int8))
    assert time.reached is reached
    assert size.reached
    assert accuracy.reached


def test_time_has_a_goal_where_vnni_is_missing_and_size_everywhere() -> None:
    int8 = row("int8", [0.004, 0.004, 0.008], bytes=1_600_000, accuracy=0.855)
    time, size, accuracy = figures_of(AS_IT_IS, found("squeezenet", "int8", int8))
    assert time.reached is None
    assert size.reached is False
    assert accuracy.reached is False


@pytest.mark.parametrize("chosen,reached", [("fp32", True), ("int8", False)])
def test_where_int8_is_slower_the_model_as_given_is_due(*, chosen: str, reached: bool) -> None:
    int8 = row("int8", [0.01, 0.01, 0.02], bytes=1_350_000)
    (figure,) = figures_of(AVX2, found("shufflenet", chosen, int8))
    assert figure.reached is reached


def test_small_models_have_no_goals() -> None:
    assert figures_of(AVX2, found("digits-mlp", "fp32")) == []
