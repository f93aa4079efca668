"""What TensorRT's engines depend on, and the options by which it finds them.

An engine loaded for another model, TensorRT, driver or GPU than it was built for gave wrong answers
(https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html, caching). So an
engine is kept under a digest of all of these, and where one is unknown nothing is kept.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgefleet_runtime.engines.parts import Parts

if TYPE_CHECKING:
    from collections.abc import Mapping

TENSORRT = "TensorrtExecutionProvider"
BUILDER = "onnxruntime"
MAX_FILES = 256  # of one model; each is read


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine was built for, beside its model."""

    onnxruntime: str
    tensorrt: str
    driver: str
    gpus: tuple[str, ...]


def fingerprint(onnxruntime: str, *, root: Path = Path("/")) -> Fingerprint | None:
    """This machine's fingerprint; None when a part of it can't be told.

    Args:
        onnxruntime: its version.
        root: where ``/proc`` lies.
    """
    from importlib.metadata import distributions  # noqa: PLC0415 - slow, and only for TensorRT

    names = ("tensorrt-cu13", "tensorrt-cu12", "tensorrt")
    found = {d.name.lower(): d.version for d in distributions() if d.name}
    tensorrt = next((f"{name} {found[name]}" for name in names if name in found), "")
    driver = re.search(
        r"Kernel Module.*?\s(\d+\.[\d.]+)\s", _read(root / "proc/driver/nvidia/version")
    )
    cards = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    models = [re.search(r"^Model:\s*(.+)$", _read(card), re.MULTILINE) for card in cards]
    gpus = tuple(model[1].strip() for model in models if model)
    if not (tensorrt and driver and gpus and len(gpus) == len(cards)):
        return None
    return Fingerprint(onnxruntime=onnxruntime, tensorrt=tensorrt, driver=driver[1], gpus=gpus)


def parts_of(
    entry: Path, machine: Fingerprint, options: Mapping[str, str] | None = None
) -> Parts | None:
    """What TensorRT's engine for a model depends on.

    None where the model's folder holds more than `MAX_FILES`: it isn't the model's own.

    Args:
        entry: the model file, whose content counts. What lies beside it does, too.
        machine: what engines are built for.
        options: of the provider.
    """
    digest = hashlib.sha256()
    files = (path for path in entry.parent.rglob("*") if path.is_file())
    found = sorted(itertools.islice(files, MAX_FILES + 1))
    if len(found) > MAX_FILES:
        return None
    for path in found:
        with path.open("rb") as file:
            inner = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(entry.parent)}\0{inner}\n".encode())
    digest.update(entry.name.encode())
    return Parts(
        builder=BUILDER,
        provider=TENSORRT,
        model=digest.hexdigest(),
        options=dict(options or {}),
        machine=named(machine),
    )


def named(machine: Fingerprint) -> dict[str, str]:
    """A fingerprint's parts as text, by name."""
    return {
        "onnxruntime": machine.onnxruntime,
        "tensorrt": machine.tensorrt,
        "driver": machine.driver,
        "gpus": ", ".join(machine.gpus),
    }


def folder_options(folder: Path, options: Mapping[str, str] | None = None) -> dict[str, str]:
    """Options that let the TensorRT provider read its engine from a folder, or write it there."""
    return {
        **(options or {}),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
    }


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
