"""Facts about this machine: what it is, as labels, and how it fares, as figures."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.protocol.hardware_target import architecture
from edgefleet.protocol.labels import MAX_REPORTED_CHARACTERS
from edgefleet.protocol.target import TARGET_LABEL

if TYPE_CHECKING:
    from collections.abc import Collection

_ROOT = Path("/")
_PAGE = 4096 if not hasattr(os, "sysconf") else os.sysconf("SC_PAGE_SIZE")

# Words in a board's device tree and the target they mean, the most special first.
# https://github.com/raspberrypi/linux and NVIDIA's L4T put the product's name there.
_BOARDS = (
    ("raspberry pi 5", "raspberry-pi-5"),
    ("raspberry pi compute module 5", "raspberry-pi-5"),
    ("raspberry pi 4", "raspberry-pi-4"),
    ("raspberry pi compute module 4", "raspberry-pi-4"),
    ("orin nano", "jetson-orin-nano"),
    ("orin nx", "jetson-orin-nx"),
    ("agx orin", "jetson-agx-orin"),
    ("orin", "jetson-orin"),
    ("xavier nx", "jetson-xavier-nx"),
    ("agx xavier", "jetson-agx-xavier"),
    ("jetson nano", "jetson-nano"),
    ("phanbell", "coral-dev-board"),
    ("rb3gen2", "qualcomm-rb3-gen2"),
)


def labels(*, providers: Collection[str] = (), root: Path = _ROOT) -> dict[str, str]:
    """What this machine is: ``arch``, ``os``, ``cpu``, ``memory``, ``board`` and ``target``.

    Args:
        providers: execution providers that the engines here list: whether a GPU is of use.
        root: where ``/proc`` and ``/etc`` lie.
    """
    arch = architecture(platform.machine())
    board = _board(root)
    found = {
        "arch": arch,
        "os": _os(root),
        "cpu": _cpu(root),
        "memory": _memory(root),
        "board": board,
        TARGET_LABEL: guess_target(arch, board, gpu=_has_nvidia(root), providers=providers),
    }
    return {name: value[:MAX_REPORTED_CHARACTERS] for name, value in found.items() if value}


def guess_target(arch: str, board: str, *, gpu: bool, providers: Collection[str]) -> str:
    """The hardware target that fits what is known of a machine; empty for none in particular."""
    for words, target in _BOARDS:
        if words in board.lower():
            return target
    if arch == "x86_64":
        return "nvidia-gpu" if gpu and "CUDAExecutionProvider" in providers else "x86-cpu"
    return ""


def rss_bytes(root: Path = _ROOT) -> int | None:
    """Memory that this process holds now."""
    try:
        with (root / "proc/self/statm").open("rb", buffering=0) as stream:
            return int(stream.read(256).split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return None


def peak_rss_bytes(root: Path = _ROOT) -> int | None:
    """The most memory that this process ever held; None where the system doesn't tell."""
    found = re.search(r"^VmHWM:\s*(\d+) kB", _read(root / "proc/self/status"), re.MULTILINE)
    return int(found[1]) << 10 if found else None


def disk_free_bytes(folder: Path) -> int | None:
    """Room left, for a process without special rights, on the disk that a folder lies on."""
    try:
        info = os.statvfs(folder)
    except OSError:
        return None
    return info.f_bavail * info.f_frsize


def _board(root: Path) -> str:
    return _read(root / "proc/device-tree/model").strip("\0 \n")


def _has_nvidia(root: Path) -> bool:
    return (root / "proc/driver/nvidia/version").exists()


def _os(root: Path) -> str:
    found = re.search(r'^PRETTY_NAME="?([^"\n]+)', _read(root / "etc/os-release"), re.MULTILINE)
    return found[1] if found else platform.system()


def _cpu(root: Path) -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", _read(root / "proc/cpuinfo"), re.MULTILINE)
    return found[1] if found else platform.processor()


def _memory(root: Path) -> str:
    found = re.search(r"^MemTotal:\s*(\d+) kB", _read(root / "proc/meminfo"), re.MULTILINE)
    return f"{round(int(found[1]) / (1 << 20), 1):g} GiB" if found else ""


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
