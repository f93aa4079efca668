"""A figure of the goals' table: what was measured in each round, what is due, and how it is told.

A figure compares what came right after one another in the same round, so that what else the
machine does falls on both; told are the median of the rounds and their range.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

DIGITS = 3  # significant ones
HEAD = "| figure | against | ours | ratio or difference | goal | |\n|---|---|---|---|---|---|"


class Goal(NamedTuple):
    """A bound on a figure: ``at_most`` or ``at_least`` so much."""

    limit: float
    at_most: bool = True

    def holds(self, value: float) -> bool:
        """Whether a value is within it."""
        return value <= self.limit if self.at_most else value >= self.limit


class Figure(NamedTuple):
    """One line of the table.

    Attributes:
        name: what was measured.
        unit: of ``against`` and ``ours``.
        against: what ours is held against, one value a round.
        ours: one value a round, beside the other's of the same round.
        goal: on the median over the rounds of `compared`; None where the issue sets none.
        difference: compare by ``ours - against``; else by ``ours / against``.
        peers: what other servers had, by their names, in the same unit.
        note: what one must know to read the line.
    """

    name: str
    unit: str
    against: Sequence[float]
    ours: Sequence[float]
    goal: Goal | None = None
    difference: bool = False
    peers: Mapping[str, Sequence[float]] = {}
    note: str = ""

    @property
    def compared(self) -> list[float]:
        """Ours against the other, round by round."""
        pairs = zip(self.against, self.ours, strict=True)
        if self.difference:
            return [ours - other for other, ours in pairs]
        return [ours / other for other, ours in pairs]

    @property
    def median(self) -> float:
        """The figure itself."""
        return statistics.median(self.compared)

    @property
    def reached(self) -> bool | None:
        """Whether the goal is; None without one."""
        return None if self.goal is None else self.goal.holds(self.median)

    def told(self) -> str:
        """The line of a Markdown table."""
        seen = self.compared
        sign = "+" if self.difference else ""
        unit = f" {self.unit}" if self.difference else ""
        span = f"{short(self.median, sign)} ({short(min(seen), sign)} to {short(max(seen), sign)})"
        goal = "" if self.goal is None else ("≤ " if self.goal.at_most else "≥ ")
        goal += "" if self.goal is None else f"{short(self.goal.limit, sign)}{unit}"
        verdict = {True: "reached", False: "**missed**", None: ""}[self.reached]
        cells = (
            self.name,
            f"{short(statistics.median(self.against))} {self.unit}",
            f"{short(statistics.median(self.ours))} {self.unit}",
            f"{span}{unit}",
            goal,
            "; ".join(filter(None, (verdict, self.note))),
        )
        return f"| {' | '.join(cells)} |"

    def plain(self) -> dict[str, Any]:
        """All that was measured, for JSON."""
        return {
            "figure": self.name,
            "unit": self.unit,
            "against": [*self.against],
            "ours": [*self.ours],
            "peers": {name: [*values] for name, values in self.peers.items()},
            "by": "difference" if self.difference else "ratio",
            "median": self.median,
            "range": [min(self.compared), max(self.compared)],
            "goal": None if self.goal is None else self.goal._asdict(),
            "reached": self.reached,
            "note": self.note,
        }


def short(value: float, sign: str = "") -> str:
    """A number with its first digits, without exponents."""
    if abs(value) >= 10**DIGITS:
        return f"{value:{sign},.0f}"
    if abs(value) < 0.1:  # two places are enough for what is near nothing
        return f"{value:{sign}.2f}"
    return f"{value:{sign}#.{DIGITS}g}".rstrip(".")


def table(figures: Sequence[Figure]) -> str:
    """The goals' table in Markdown, and what peers had beneath it."""
    lines = [HEAD, *(figure.told() for figure in figures)]
    peers = sorted({name for figure in figures for name in figure.peers})
    if peers:
        lines += ["", f"| figure | ours | {' | '.join(peers)} |", "|---|---|" + "---|" * len(peers)]
        for figure in figures:
            if figure.peers:
                cells = [
                    f"{short(statistics.median(values))} {figure.unit}" if values else ""
                    for values in (figure.ours, *(figure.peers.get(name, ()) for name in peers))
                ]
                lines.append(f"| {figure.name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
