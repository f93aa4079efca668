"""Target: a kind of hardware as data, and the choice of a variant for it: one pure function.

Targets decide what is made (`optimize`), what is refused (`push`, `plan`) and what a device fetches
(`choose_variant`), so device and SDK share this module. Plugins add targets by a hook.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from edgefleet.errors import NotFoundError
from edgefleet.protocol.documents import KNOWN_FEATURES, Document

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from edgefleet.protocol.bundle import Variant

TARGET_LABEL = "target"
"""The device label that names its hardware target."""

ANY = "any"


class HardwareTarget(Document, frozen=True, kw_only=True):
    """A kind of hardware.

    Attributes:
        name: such as ``raspberry-pi-5``.
        about: one line for people.
        arch: ``x86_64`` or ``aarch64``.
        precisions: precisions that run well, the best first; others are not chosen for it.
        formats: model formats that its engines open, the best first.
        providers: execution providers wanted, the best first, by ONNX Runtime's names.
        memory_bytes: memory a model may count on; None when it varies.
        opset_ceiling: newest ONNX opset its engine loads; None when unknown.
        status: whether EdgeFleet was run there.
        source: where the figures come from.
    """

    name: Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9](?:[a-z0-9.\-]{0,61}[a-z0-9])?\Z")]
    about: str
    arch: Literal["x86_64", "aarch64", "any"]
    precisions: tuple[str, ...]
    formats: tuple[str, ...] = ("onnx",)
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    memory_bytes: int | None = None
    opset_ceiling: int | None = None
    status: Literal["tested", "built", "untested", "impossible"] = "untested"
    source: str = ""


ORT_OPSET_CEILING = 26
"""Newest opset of the default ONNX domain that onnxruntime 1.31 loads; it refuses 27 (seen)."""

ORT_IR_CEILING = 13
"""Newest ONNX file format that onnxruntime 1.31 loads; onnx 1.23 writes 14 unless told else."""

_ORT_EP = "https://onnxruntime.ai/docs/execution-providers/"

BUILTIN: tuple[HardwareTarget, ...] = (
    HardwareTarget(
        name=ANY,
        about="whatever has no target of its own: the plainest variant that its engine opens",
        arch="any",
        precisions=("fp32", "int8", "fp16"),
        opset_ceiling=ORT_OPSET_CEILING,
        status="tested",
        source=_ORT_EP,
    ),
    HardwareTarget(
        name="x86-cpu",
        about="x86-64 gateway or server without an accelerator",
        arch="x86_64",
        precisions=("int8", "fp32"),
        opset_ceiling=ORT_OPSET_CEILING,
        status="tested",
        source="https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html",
    ),
    HardwareTarget(
        name="raspberry-pi-4",
        about="Raspberry Pi 4 (Cortex-A72, no dot-product instructions)",
        arch="aarch64",
        precisions=("fp32", "int8"),
        memory_bytes=2 << 30,
        opset_ceiling=ORT_OPSET_CEILING,
        source="https://www.raspberrypi.com/products/raspberry-pi-4-model-b/specifications/",
    ),
    HardwareTarget(
        name="raspberry-pi-5",
        about="Raspberry Pi 5 (Cortex-A76, dot-product instructions)",
        arch="aarch64",
        precisions=("int8", "fp32"),
        memory_bytes=4 << 30,
        opset_ceiling=ORT_OPSET_CEILING,
        source="https://www.raspberrypi.com/products/raspberry-pi-5/",
    ),
    HardwareTarget(
        name="jetson-orin",
        about="NVIDIA Jetson Orin: TensorRT or CUDA",
        arch="aarch64",
        precisions=("fp16", "fp32"),
        providers=("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
        memory_bytes=8 << 30,
        opset_ceiling=ORT_OPSET_CEILING,
        source="https://developer.nvidia.com/embedded/jetson-modules",
    ),
    HardwareTarget(
        name="nvidia-gpu",
        about="x86-64 machine with an NVIDIA GPU",
        arch="x86_64",
        precisions=("fp16", "fp32"),
        providers=("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
        opset_ceiling=ORT_OPSET_CEILING,
        source=_ORT_EP + "CUDA-ExecutionProvider.html",
    ),
)


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """A variant and, in a phrase, why it was chosen."""

    variant: Variant
    why: str


def find_target(name: str, targets: Iterable[HardwareTarget] = BUILTIN) -> HardwareTarget:
    """The target of that name.

    Raises:
        NotFoundError: none is known; the message lists those there are.
    """
    known = {target.name: target for target in targets}
    if name not in known:
        msg = f"no hardware target {name!r}"
        raise NotFoundError(msg, cure=f"use one of {', '.join(known)}, or add it by a plugin")
    return known[name]


def target_of(
    labels: Mapping[str, str], targets: Iterable[HardwareTarget] = BUILTIN
) -> HardwareTarget:
    """The target that a device's labels name; `ANY` when they name none or one unknown here."""
    known = {target.name: target for target in (BUILTIN[0], *targets)}
    return known.get(labels.get(TARGET_LABEL, ANY), known[ANY])


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

    Left out are variants made for other targets only (but `ANY` takes them), that require a feature
    unknown here, in formats that no engine here opens, in precisions that the target doesn't list,
    or with a newer opset than its engine loads. What is left is ordered by: made for this very
    target; the target's order of precisions; its order of formats; fewer bytes; name.

    Args:
        variants: what the bundle offers.
        target: the device's hardware target.
        formats: formats that the device's engines really open; None to trust the target.

    Raises:
        NotFoundError: nothing fits; the message says why for each variant.
    """
    candidates: list[tuple[tuple[bool, int, int, int, str], Variant]] = []
    refused: list[str] = []
    for variant in variants:
        reason = _refusal(variant, target, formats)
        if reason is not None:
            refused.append(f"{variant.name}: {reason}")
            continue
        rank = (
            target.name not in variant.targets,
            target.precisions.index(variant.precision),
            target.formats.index(variant.format),
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


def _why(variant: Variant, target: HardwareTarget, count: int, place: int) -> str:
    made = "made for" if target.name in variant.targets else "fits"
    liked = "preferred" if place == 1 else f"number {place}"
    return f"{made} {target.name}, {variant.precision} {liked} among {count}"


def _refusal(
    variant: Variant, target: HardwareTarget, formats: Collection[str] | None
) -> str | None:
    unknown = ", ".join(name for name in variant.requires if name not in KNOWN_FEATURES)
    others = variant.targets and target.name not in (ANY, *variant.targets)
    ceiling = target.opset_ceiling
    rules = (
        (others, f"made for {', '.join(variant.targets)}"),
        (unknown, f"requires features unknown here: {unknown}"),
        (variant.format not in target.formats, f"format {variant.format} is not opened there"),
        (
            formats is not None and variant.format not in formats,
            f"no engine for format {variant.format} is installed",
        ),
        (
            variant.precision not in target.precisions,
            f"precision {variant.precision} does not suit it",
        ),
        (
            ceiling is not None and variant.opset is not None and variant.opset > ceiling,
            f"opset {variant.opset} is newer than {ceiling}",
        ),
    )
    return next((reason for refused, reason in rules if refused), None)
