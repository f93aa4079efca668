"""`HardwareTarget`: a kind of hardware as data. The table of those known is `protocol.hardware`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edgefleet.protocol.documents import Document

ANY = "any"
"""The target of a device that names none: the plainest variant that its engine opens."""

TargetName = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9](?:[a-z0-9.\-]{0,61}[a-z0-9])?\Z")]


_ARCHITECTURES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}


def architecture(machine: str) -> str:
    """What targets call an architecture, from any system's name for it."""
    return _ARCHITECTURES.get(machine.lower(), machine.lower())


class HardwareTarget(Document, frozen=True, kw_only=True):
    """A kind of hardware.

    Attributes:
        name: such as ``raspberry-pi-5``.
        about: one line for people.
        arch: ``x86_64`` or ``aarch64``.
        kin: targets, the nearest first, whose variants suit it too: of a family that it belongs to.
        precisions: precisions that run well, the best first; others are not chosen for it.
        formats: model formats that its engines open, the best first.
        providers: execution providers wanted, the best first, by ONNX Runtime's names.
        activations: how its engine wants the activations of an int8 model.
        memory_bytes: memory of the smallest board of that name; None when it varies.
        max_memory_bytes: memory of the largest; None for the same, or when it varies.
        opset_ceiling: newest ONNX opset its engine loads; None when unknown.
        os_image: the operating system that its vendor gives, or that is usual.
        python: of that system; empty when it varies or isn't known.
        engine_source: where its engine comes from.
        status: whether EdgeFleet was run there: ``tested`` on it; ``built``, its engine was run
            here, on other hardware or against a stand-in; ``untested``; ``impossible``.
        why: of the status, and what to know before the hardware is chosen.
        source: page that says most of it.
        sources: pages that say the rest.
    """

    name: TargetName
    about: str
    arch: Literal["x86_64", "aarch64", "any"]
    precisions: tuple[str, ...]
    kin: tuple[TargetName, ...] = ()
    formats: tuple[str, ...] = ("onnx",)
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    activations: Literal["any", "unsigned", "signed"] = "any"
    memory_bytes: int | None = None
    max_memory_bytes: int | None = None
    opset_ceiling: int | None = None
    os_image: str = ""
    python: str = ""
    engine_source: str = ""
    status: Literal["tested", "built", "untested", "impossible"] = "untested"
    why: str = ""
    source: str = ""
    sources: tuple[str, ...] = ()
