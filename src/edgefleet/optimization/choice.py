"""Which target gets which candidate: pure functions over values.

What is decided here is what `choose_variant` finds again on the device. A candidate that was made
is marked with the targets that it was proven for and nobody else's; the model as given stays open
to any device, so that hardware which nobody thought of finds something that runs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgefleet.optimization.artifact import ONNX
from edgefleet.optimization.elsewhere import EDGE_TPU, tools_for
from edgefleet.optimization.gate import SLOWER_RATIO
from edgefleet.protocol.target import opset_mismatch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgefleet.optimization.recipes import Activations
    from edgefleet.protocol.target import HardwareTarget


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A candidate as the choice sees it.

    Attributes:
        name: of the candidate and the variant.
        precision: of its weights.
        format: of its files.
        opset: of the file; None where none was made or the format has none.
        activations: how int8 activations are laid out.
        refused: why no target may have it; empty when it passed.
        slower: measured here to be slower than the model as given.
        p50_s: median latency measured here; None where it wasn't.
        leaner: whether it computes less than others of its precision, which somebody asked for.
    """

    name: str
    precision: str
    format: str = ONNX
    opset: int | None = None
    activations: Activations = "any"
    refused: str = ""
    slower: str = ""
    p50_s: float | None = None
    leaner: bool = False


@dataclass(frozen=True, slots=True)
class Assignment:
    """The candidate that a target gets, or None, and why."""

    target: str
    variant: str | None
    why: str


def runs_here(target: HardwareTarget, arch: str) -> bool:
    """Whether a latency measured on this machine's CPU says something of that target."""
    return target.arch in {arch, "any"} and target.providers[:1] == ("CPUExecutionProvider",)


def assign(
    targets: Sequence[HardwareTarget],
    offers: Sequence[Offer],
    *,
    arch: str,
    on_devices: Mapping[str, Sequence[Offer]] | None = None,
) -> tuple[Assignment, ...]:
    """What each target gets: the best that is offered and not refused.

    Best is the first of the target's precisions, then the first of its formats. Among several of
    those it is one that computes less, then the one of the activations that its engine likes, then
    the one offered first; on targets like this machine, one that is clearly faster goes before all.

    Args:
        targets: those asked for.
        offers: candidates in order of preference, the model as given first.
        arch: this machine's: a speed measured here counts for targets like it.
        on_devices: by target, the same offers with what a device of that target found.
    """
    found = on_devices or {}
    return tuple(
        _told(
            target,
            _assign(
                target,
                found.get(target.name, offers),
                where="there" if target.name in found else "here" * runs_here(target, arch),
            ),
        )
        for target in targets
    )


def _told(target: HardwareTarget, found: Assignment) -> Assignment:
    """With what must be made elsewhere for that target."""
    if found.variant is not None and EDGE_TPU not in target.providers:
        return found
    return replace(found, why="; ".join(filter(None, (found.why, tools_for(target)))))


def _assign(target: HardwareTarget, offers: Sequence[Offer], *, where: str) -> Assignment:
    passed_over: list[str] = []
    for precision in target.precisions:
        for form in target.formats:
            offered = [o for o in offers if (o.precision, o.format) == (precision, form)]
            reasons = {o.name: _refusal(target, o, timed=bool(where)) for o in offered}
            good = [o for o in offered if not reasons[o.name]]
            if good:
                best = _best(target, good, timed=bool(where))
                return Assignment(target.name, best.name, _why(passed_over, best, good, where))
            if offered:
                passed_over += [f"{o.name}: {reasons[o.name]}" for o in offered]
            elif form == target.formats[0] and not any(o.precision == precision for o in offers):
                passed_over.append(f"{precision}: no candidate was made")
    if not any(o.format in target.formats for o in offers):
        formats = ", ".join(target.formats)
        passed_over.insert(0, f"its engine opens {formats}, which no tool here made")
    return Assignment(target.name, None, "; ".join(passed_over))


def _best(target: HardwareTarget, good: list[Offer], *, timed: bool) -> Offer:
    liked = [o for o in good if o.activations in {target.activations, "any"}]
    first = liked[0] if liked and target.activations != "any" else good[0]
    first = next((o for o in good if o.leaner), first)
    known = [(o.p50_s, place) for place, o in enumerate(good) if o.p50_s is not None]
    if first.p50_s is None or not timed:
        return first
    fastest, place = min(known)
    return good[place] if fastest * SLOWER_RATIO < first.p50_s else first


def _why(passed_over: list[str], best: Offer, good: list[Offer], where: str) -> str:
    if passed_over:
        return "; ".join(passed_over)
    if best is not good[0] and best.p50_s is not None:
        return f"the precision it runs best, and faster {where} than {good[0].name}"
    return "the precision it runs best"


def _refusal(target: HardwareTarget, offer: Offer, *, timed: bool) -> str:
    if offer.refused:
        return offer.refused
    if offer.slower and timed:
        return offer.slower
    too_new = opset_mismatch(offer.opset, target)
    return "" if too_new is None else too_new.reason
