"""Which candidates to make, and which target gets which: pure functions over values.

What is decided here is what `choose_variant` finds again on the device. A variant in reduced
precision is marked with the targets that it was proven for and nobody else's; the model as given
stays open to any device, so that hardware which nobody thought of finds something that runs.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgefleet.protocol.target import HardwareTarget

FORMAT = "onnx"
QUANTIZED = "int8"
"""The precision that is made here, beside the model's own."""

_ARCHITECTURES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True)
class Offer:
    """A candidate as the choice sees it.

    Attributes:
        precision: of its weights; also the variant's name.
        opset: of the file; None where none was made.
        refused: why no target may have it; empty when it passed.
        slower: measured here to be slower than the model as given.
    """

    precision: str
    opset: int | None
    refused: str = ""
    slower: str = ""


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a target gets, or None, and why."""

    target: str
    precision: str | None
    why: str


def architecture() -> str:
    """This machine's, as targets name it."""
    machine = platform.machine().lower()
    return _ARCHITECTURES.get(machine, machine)


def runs_here(target: HardwareTarget, arch: str) -> bool:
    """Whether a latency measured on this machine's CPU says something of that target."""
    return target.arch in {arch, "any"} and target.providers[:1] == ("CPUExecutionProvider",)


def wants_int8(targets: Sequence[HardwareTarget], given: Offer) -> bool:
    """Whether any target would get an int8 variant if there was one that passes.

    Args:
        targets: those asked for.
        given: the model as given.
    """
    offers = {given.precision: given, QUANTIZED: Offer(precision=QUANTIZED, opset=None)}
    found = assign(targets, offers, arch="")
    return any(assignment.precision == QUANTIZED for assignment in found)


def assign(
    targets: Sequence[HardwareTarget], offers: Mapping[str, Offer], *, arch: str
) -> tuple[Assignment, ...]:
    """What each target gets: the first of its precisions that is offered and not refused.

    Args:
        targets: those asked for.
        offers: candidates by precision.
        arch: this machine's: a speed measured here counts for targets like it.
    """
    return tuple(_assign(target, offers, arch) for target in targets)


def _assign(target: HardwareTarget, offers: Mapping[str, Offer], arch: str) -> Assignment:
    if FORMAT not in target.formats:
        formats = ", ".join(target.formats)
        return Assignment(
            target.name, None, f"its engine opens {formats}, which no tool here makes"
        )
    passed_over: list[str] = []
    for precision in target.precisions:
        reason = _refusal(target, offers.get(precision), arch)
        if reason is None:
            why = "; ".join(passed_over) or "the precision it runs best"
            return Assignment(target.name, precision, why)
        passed_over.append(f"{precision}: {reason}")
    return Assignment(target.name, None, "; ".join(passed_over))


def _refusal(target: HardwareTarget, offer: Offer | None, arch: str) -> str | None:
    if offer is None:
        return "not made by this version"
    if offer.refused:
        return offer.refused
    if offer.slower and runs_here(target, arch):
        return offer.slower
    ceiling = target.opset_ceiling
    if ceiling is not None and offer.opset is not None and offer.opset > ceiling:
        return f"opset {offer.opset} is newer than the {ceiling} that its engine loads"
    return None
