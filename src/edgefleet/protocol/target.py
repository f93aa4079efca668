"""The choice of a variant for a kind of hardware: one pure function.

Targets decide what is made (`optimize`), what is refused (`push`, `plan`) and what a device fetches
(`choose_variant`), so device and SDK share this module. The table of targets is
`protocol.hardware`; plugins add theirs by a hook. A device knows the table only: one whose label
names a target that isn't in it takes what was made for that name, and else what `ANY` takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from edgefleet.errors import NotFoundError
from edgefleet.protocol.documents import KNOWN_FEATURES
from edgefleet.protocol.hardware import BUILTIN, ORT_IR_CEILING, ORT_OPSET_CEILING
from edgefleet.protocol.hardware_target import ANY, HardwareTarget

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from edgefleet.protocol.bundle import Variant

__all__ = [
    "ANY",
    "BUILTIN",
    "ORT_IR_CEILING",
    "ORT_OPSET_CEILING",
    "TARGET_LABEL",
    "Choice",
    "HardwareTarget",
    "Mismatch",
    "choose_variant",
    "find_target",
    "mismatches",
    "opset_mismatch",
    "rank_variants",
    "target_of",
]

TARGET_LABEL = "target"
"""The device label that names its hardware target."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """A variant and, in a phrase, why it was chosen."""

    variant: Variant
    why: str


class Mismatch(NamedTuple):
    """Why a target can't run a variant, and what to do about it."""

    reason: str
    cure: str


def find_target(name: str, targets: Iterable[HardwareTarget] = BUILTIN) -> HardwareTarget:
    """The target of that name.

    Raises:
        NotFoundError: none is known; the message lists those there are.
    """
    known = {target.name: target for target in targets}
    if name not in known:
        msg = f"no hardware target {name!r}"
        listed = ", ".join(known)
        raise NotFoundError(msg, cure=f"use one of {listed}, or add it by a plugin")
    return known[name]


def target_of(
    labels: Mapping[str, str], targets: Iterable[HardwareTarget] = BUILTIN
) -> HardwareTarget:
    """The target that a device's labels name; `ANY` when they name none.

    One that isn't known here is `ANY` under that name, so that what was made for it goes first.
    """
    known = {target.name: target for target in (BUILTIN[0], *targets)}
    name = labels.get(TARGET_LABEL, ANY)
    if name in known:
        return known[name]
    return msgspec.structs.replace(known[ANY], name=name, kin=(ANY,))


def choose_variant(
    variants: Iterable[Variant],
    target: HardwareTarget,
    *,
    formats: Collection[str] | None = None,
) -> Choice:
    """The variant that a device of this target should run: the first of `rank_variants`."""
    return rank_variants(variants, target, formats=formats)[0]


def rank_variants(
    variants: Iterable[Variant],
    target: HardwareTarget,
    *,
    formats: Collection[str] | None = None,
) -> tuple[Choice, ...]:
    """The variants that a device of this target may run, the best first; at least one.

    Left out are variants made for other targets only (kin's count as its own, and `ANY` takes
    them), that require a feature unknown here, in formats that no engine here opens, in precisions
    that the target doesn't list, or with a newer opset than its engine loads. What is left is
    ordered by: made for this very target, for its nearest kin, for the next, for none in
    particular; the target's order of precisions; its order of formats; fewer bytes; name.

    Args:
        variants: what the bundle offers.
        target: the device's hardware target.
        formats: formats that the device's engines really open; None to trust the target.

    Raises:
        NotFoundError: nothing fits; the message says why for each variant.
    """
    candidates: list[tuple[tuple[int, int, int, int, str], Variant]] = []
    refused: list[str] = []
    for variant in variants:
        reason = _refusal(variant, target, formats)
        if reason is not None:
            refused.append(f"{variant.name}: {reason}")
            continue
        rank = (
            _nearness(variant, target),
            _place(target.precisions, variant.precision),
            _place(target.formats, variant.format),
            variant.bytes,
            variant.name,
        )
        candidates.append((rank, variant))
    if not candidates:
        msg = f"no variant of the bundle fits target {target.name}: {'; '.join(refused)}"
        raise NotFoundError(msg, cure=f"optimize with targets=[…, {target.name!r}] and push again")
    ordered = [variant for _, variant in sorted(candidates, key=lambda candidate: candidate[0])]
    return tuple(
        Choice(variant=variant, why=_why(variant, target, len(ordered), place))
        for place, variant in enumerate(ordered, 1)
    )


def mismatches(variant: Variant, target: HardwareTarget) -> Iterator[Mismatch]:
    """Why a target can't run a variant, whoever it was made for, by the target's data alone."""
    if target.name in variant.targets and ANY in target.kin:
        return  # made for hardware that only its maker knows
    if variant.format not in target.formats:
        yield Mismatch(
            f"format {variant.format} is not opened there",
            f"its engines open {', '.join(target.formats)}",
        )
    if variant.precision not in target.precisions:
        yield Mismatch(
            f"precision {variant.precision} does not suit it",
            f"its precisions are {', '.join(target.precisions)}",
        )
    too_new = opset_mismatch(variant.opset, target)
    if too_new is not None:
        yield too_new


def opset_mismatch(opset: int | None, target: HardwareTarget) -> Mismatch | None:
    """Why a target's engine can't load a file of that opset; None where it can, or has none."""
    ceiling = target.opset_ceiling
    if ceiling is None or opset is None or opset <= ceiling:
        return None
    return Mismatch(
        f"opset {opset} is newer than the {ceiling} that its engine loads",
        f"export it with opset {ceiling} or lower, or convert it with "
        f"onnx.version_converter.convert_version(model, {ceiling})",
    )


def _names(target: HardwareTarget) -> tuple[str, ...]:
    """The target and its kin, the nearest first."""
    return (target.name, *target.kin)


def _nearness(variant: Variant, target: HardwareTarget) -> int:
    """How near to the target what it was made for is: 0 for the very target."""
    names = _names(target)
    return min(map(names.index, set(names) & set(variant.targets)), default=len(names))


def _place(order: tuple[str, ...], name: str) -> int:
    return order.index(name) if name in order else len(order)


def _why(variant: Variant, target: HardwareTarget, count: int, place: int) -> str:
    near = _nearness(variant, target)
    names = _names(target)
    if near == 0:
        made = f"made for {target.name}"
    elif near < len(names):
        made = f"made for {names[near]}, fits {target.name}"
    else:
        made = f"fits {target.name}"
    liked = "preferred" if place == 1 else f"number {place}"
    return f"{made}, {variant.precision} {liked} among {count}"


def _refusal(
    variant: Variant, target: HardwareTarget, formats: Collection[str] | None
) -> str | None:
    names = _names(target)
    if variant.targets and ANY not in names and not set(names) & set(variant.targets):
        return f"made for {', '.join(variant.targets)}"
    unknown = ", ".join(name for name in variant.requires if name not in KNOWN_FEATURES)
    if unknown:
        return f"requires features unknown here: {unknown}"
    mismatch = next(mismatches(variant, target), None)
    absent = formats is not None and variant.format not in formats
    if absent and (mismatch is None or variant.format in target.formats):
        return f"no engine for format {variant.format} is installed"
    return None if mismatch is None else mismatch.reason
