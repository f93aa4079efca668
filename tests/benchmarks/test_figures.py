from __future__ import annotations

import pytest

from benchmarks.serving.figures import Figure, Goal, short, table


def test_ratios_are_of_the_same_round_and_the_median_is_of_them() -> None:
    # The machine slowed down in the last round: both doubled, and nothing changed between them.
    figure = Figure("p50", "µs", [10, 10, 20], [11, 12, 22], Goal(1.15))
    assert figure.compared == pytest.approx([1.1, 1.2, 1.1])
    assert figure.median == pytest.approx(1.1)
    assert figure.reached


@pytest.mark.parametrize(
    "goal,due",
    [(Goal(2.0), [True]), (Goal(1.9), [False]), (Goal(2.0, at_most=False), [True]), (None, [None])],
)
def test_a_goal_bounds_from_above_or_below(goal: Goal | None, due: list[bool | None]) -> None:
    assert [Figure("x", "s", [1.0], [2.0], goal).reached] == due


def test_a_difference_tells_its_unit_and_sign() -> None:
    figure = Figure("memory", "MB", [50, 50], [54, 56], Goal(12), difference=True, note="beside")
    assert figure.told() == (
        "| memory | 50.0 MB | 55.0 MB | +5.00 (+4.00 to +6.00) MB | ≤ +12.0 MB | reached; beside |"
    )


def test_rounds_that_lack_a_side_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        _ = Figure("x", "s", [1.0, 2.0], [1.0]).compared


@pytest.mark.parametrize(
    "value,said", [(122521.4, "122,521"), (7.994, "7.99"), (0.0512, "0.05"), (0.576, "0.576")]
)
def test_numbers_are_told_by_their_first_digits(value: float, said: str) -> None:
    assert short(value) == said


def test_peers_stand_in_a_table_of_their_own() -> None:
    figures = [
        Figure("a", "/s", [1.0], [2.0], peers={"kserve": [3.0], "mlserver": []}),
        Figure("b", "/s", [1.0], [2.0]),
    ]
    lines = table(figures).splitlines()
    assert lines[-1] == "| a | 2.00 /s | 3.00 /s |  |"
    assert sum(line.startswith("| b ") for line in lines) == 1
