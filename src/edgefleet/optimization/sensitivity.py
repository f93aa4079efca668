"""Mixed precision: int8 but for the few nodes that lose the accuracy, found by asking the gate.

Tensors, weights and activations alike, are ranked by what 8 bits leave of them (`layers`). To leave
a tensor in floats, the nodes that write and read it must stay in floats: a group. The worst groups
are left one, two, four, … at a time until the gate passes; then by halving as few of them as it
takes; then each of those is tried without, for a tensor may lose much and matter little. Each step
is judged on the caller's whole evaluation data.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgefleet.optimization.layers import losses
from edgefleet.optimization.makers import FLOATS, NotMade, listed
from edgefleet.optimization.quantize import calibrated, make_static, prepared_beside, quantized
from edgefleet.optimization.recipes import RECIPES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefleet.optimization.artifact import Artifact
    from edgefleet.optimization.makers import Say, Source
    from edgefleet.optimization.recipes import Recipe

MAX_STEPS = 16  # candidates that a search may have judged


def make_mixed(recipe: Recipe, source: Source, to: Path, say: Say) -> Artifact:
    """The int8 model with the fewest nodes left in floats that passes the gate.

    Raises:
        NotMade: no such model was found within `MAX_STEPS`, or it can't be quantized at all.
    """
    if source.judge is None or source.samples is None:
        msg = "a search needs evaluate= and calibration="
        raise NotMade(msg)
    judge = source.judge
    static = _static_of(recipe)
    whole = source.tried.get(static.name) or _whole(static, source, to, say)
    prepared = prepared_beside(whole, source.file)
    say("looking for what lost most")
    found = losses(whole, prepared, source.samples)
    groups = list(dict.fromkeys(loss.nodes for loss in found if loss.error > 0))
    if not groups:
        msg = "no tensor of it loses anything in 8 bits: nothing to leave in floats"
        raise NotMade(msg)
    static = replace(static, name=recipe.name)
    ranges = calibrated(prepared, static, source, to, say)
    made: dict[tuple[int, ...], Artifact] = {}
    why: list[str] = []

    def attempt(chosen: tuple[int, ...]) -> bool | None:
        nodes = _nodes(groups, chosen)
        say(f"{len(nodes)} nodes in floats")
        folder = to / f"step-{len(why)}"
        folder.mkdir()
        try:
            without = replace(source, exclude=(*source.exclude, *nodes))
            tried = quantized(prepared, ranges, static, without, folder)
        except NotMade as nothing:
            why.insert(0, str(nothing))  # a verdict says more
            return None
        made[chosen] = tried
        verdict = judge(tried)
        why.append(verdict.reason)
        return verdict.passed

    chosen = fewest(len(groups), attempt, max_steps=MAX_STEPS)
    if chosen is None:
        msg = f"leaving the worst of {len(groups)} tensors in floats was not enough: {why[-1]}"
        raise NotMade(msg)
    kept = made[chosen]
    nodes = _nodes(groups, chosen)
    return replace(kept, notes={**kept.notes, FLOATS: f"in floats: {listed(nodes)}"})


def fewest(
    total: int, attempt: Callable[[tuple[int, ...]], bool | None], *, max_steps: int
) -> tuple[int, ...] | None:
    """The fewest of ``total`` ranked things that pass, as indices; None where none were found.

    Args:
        total: how many there are, the likeliest first.
        attempt: whether those of the given indices pass; None where they are so many that nothing
            would be left.
        max_steps: how often it may be asked.
    """
    kept: int | None = None
    low, high, ceiling, steps = 0, 1, total + 1, 0  # `low` are too few, `ceiling` too many
    while steps < max_steps and low < high < ceiling:
        steps += 1
        passed = attempt(tuple(range(high)))
        if passed is None:
            ceiling = high
        elif passed:
            kept = high
        else:
            low = high
        if kept is None and ceiling > total:
            high = min(high * 2, total)
        else:
            high = (low + (ceiling if kept is None else kept)) // 2
    if kept is None:
        return None
    chosen = tuple(range(kept))
    for index in range(kept - 2, -1, -1):  # the last one is needed: without it they failed
        if steps >= max_steps:
            break
        steps += 1
        fewer = tuple(other for other in chosen if other != index)
        if attempt(fewer):
            chosen = fewer
    return chosen


def _static_of(recipe: Recipe) -> Recipe:
    """The first rung of the ladder: its ranges hold every value, which floats in between allow."""
    return next(r for r in RECIPES if r.ladder == recipe.ladder and r.kind == "static")


def _whole(static: Recipe, source: Source, to: Path, say: Say) -> Artifact:
    folder = to / "whole"
    folder.mkdir()
    return make_static(static, source, folder, say)


def _nodes(groups: list[tuple[str, ...]], chosen: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for index in chosen for name in groups[index]))
