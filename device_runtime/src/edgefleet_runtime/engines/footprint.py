"""What a model takes in memory, told from its files before it is opened."""

from __future__ import annotations

from pathlib import Path

FACTOR = 3.2
"""Bytes in memory a byte of a model's files. Measured with onnxruntime 1.31.1 on x86-64 and 90 to
160 MB of weights: 1.7 after the first run and 3.0 at the peak of loading with matrix products, 3.1
with convolutions, whose weights it keeps in a second order."""

_MEMORY = Path("/proc/meminfo")
_SPARE = 0.5  # of the memory that is free which something that nobody asked for may take


def estimate(file_bytes: int) -> int:
    """Bytes in memory of a model with files of so many bytes."""
    return round(file_bytes * FACTOR)


def has_room(entry: Path) -> bool:
    """Whether this machine has the memory to open a model file once more, unasked.

    Where the system doesn't tell how much is free, it has not.

    Args:
        entry: the file; those beside it whose names begin alike hold its weights.
    """
    beside = entry.parent.glob(f"{entry.stem}*")
    needed = estimate(sum(path.stat().st_size for path in beside if path.is_file()))
    spare = spare_bytes()
    return spare is not None and needed <= spare


def spare_bytes() -> int | None:
    """Bytes of this machine's memory that something which serves nobody may take.

    None where the system doesn't tell how much is free.
    """
    try:
        with _MEMORY.open(encoding="ascii") as lines:
            told = dict(line.split(":", 1) for line in lines)
        free = int(told["MemAvailable"].split()[0]) << 10
    except (OSError, ValueError, KeyError, IndexError):
        return None
    return int(free * _SPARE)
