"""Which samples go into a dataset: pure, and the same for the same samples in whatever order.

Rules kept here:

- Samples with the same inputs are one; the first capture stands for all of them.
- Where only labelled ones are asked for, everything else goes by these alone.
- A strategy puts samples in an order and says how many of them count; ``max`` takes from its head.
- Chance is the digest of a sample's inputs, so a sample keeps its place when others come.
- Balancing takes as many of each class, in the strategy's order within it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.policy import WorthPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from edgefleet.analysis.dataset_records import Choice
    from edgefleet.analysis.dataset_rows import Row

HARD_BELOW = WorthPolicy().hard_below
RARE_SHARE = 0.5  # of an even share: a class with less is rare


def distinct(rows: Iterable[Row]) -> list[Row]:
    """The first capture of each sample, oldest first, with how often it was captured.

    What the first one doesn't tell of the model's answer, a later one of the same version may.
    """
    found: dict[str, Row] = {}
    for row in sorted(rows, key=_age):
        held = found.get(row.sample)
        if held is None:
            found[row.sample] = row
            continue
        answer = {}
        if held.score is None and row.score is not None and row.version == held.version:
            answer = {"predicted": row.predicted, "score": row.score}
        found[row.sample] = msgspec.structs.replace(held, captured=held.captured + 1, **answer)
    return list(found.values())


def choose(
    rows: Sequence[Row], choice: Choice, *, drifted: Callable[[Row], bool] = lambda _: False
) -> list[Row]:
    """The samples that a choice takes, oldest first.

    Args:
        rows: `distinct` ones.
        choice: what is asked for.
        drifted: whether a sample's device had told, for that time, that its data has moved.
    """
    eligible = [row for row in rows if row.label] if choice.labelled else rows
    ordered = _ordered(eligible, choice, drifted)
    if choice.balance:
        ordered = _balanced(ordered, choice.max)
    elif choice.max is not None:
        ordered = ordered[: choice.max]
    return sorted(ordered, key=_age)


def _ordered(rows: Sequence[Row], choice: Choice, drifted: Callable[[Row], bool]) -> list[Row]:
    bounded = choice.max is not None
    match choice.strategy:
        case "all":
            return sorted(rows, key=_age, reverse=True)
        case "uniform":
            return sorted(rows, key=_chance)
        case "drifted":
            return sorted(filter(drifted, rows), key=_chance)
        case "hard-examples":
            told = [row for row in rows if row.score is not None]
            return sorted(
                (r for r in told if bounded or _sureness(r) < HARD_BELOW),
                key=lambda row: (_sureness(row), _chance(row)),
            )
        case "rare":
            counts = Counter(row.known_class for row in rows)
            least = RARE_SHARE * len(rows) / max(len(counts), 1)
            return sorted(
                (r for r in rows if bounded or counts[r.known_class] < least),
                key=lambda row: (counts[row.known_class], _chance(row)),
            )


def _balanced(ordered: Sequence[Row], most: int | None) -> list[Row]:
    """As many of each class as the smallest has; with a bound, one of each in turn up to it."""
    classes: dict[str, list[Row]] = {}
    for row in ordered:
        if row.known_class:
            classes.setdefault(row.known_class, []).append(row)
    smallest = min(map(len, classes.values()), default=0)
    if most is None:
        return [row for held in classes.values() for row in held[:smallest]]
    turns = (
        held[turn]
        for turn in range(max(map(len, classes.values()), default=0))
        for held in (classes[name] for name in sorted(classes))
        if turn < len(held)
    )
    return [row for row, _ in zip(turns, range(most), strict=False)]


def _sureness(row: Row) -> float:
    return 0.0 if row.score is None else row.score


def _age(row: Row) -> tuple[object, ...]:
    return (row.time, row.device, row.id)


def _chance(row: Row) -> str:
    """A number by chance that a sample always gets again."""
    return digest_of(f"order/{row.sample}".encode())
