"""Optional helper for training scripts: the same environment contract, a little nicer.

A script runs unchanged under every trainer, and alone, where the defaults below apply. Only the
standard library is imported.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

DATA_VARIABLE = "EDGEFLEET_DATA_DIR"
PARAMS_VARIABLE = "EDGEFLEET_PARAMS"
OUTPUT_VARIABLE = "EDGEFLEET_OUTPUT_DIR"
MODEL_VARIABLE = "EDGEFLEET_MODEL_DIR"
CHECKPOINT_VARIABLE = "EDGEFLEET_CHECKPOINT_DIR"


def data_dir() -> Path | None:
    """Folder or file with the input data; None when the job has none."""
    named = os.environ.get(DATA_VARIABLE)
    return Path(named) if named else None


def params(**defaults: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON scalars
    """The job's parameters over the script's defaults."""
    return {**defaults, **json.loads(os.environ.get(PARAMS_VARIABLE, "{}"))}


def output_dir() -> Path:
    """Folder whose content is kept; ``outputs`` in this folder when the script runs alone."""
    folder = Path(os.environ.get(OUTPUT_VARIABLE, "outputs"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def model_dir() -> Path:
    """For an evaluating script: the folder of what the training script left.

    ``outputs`` in this folder when the script runs alone.
    """
    return Path(os.environ.get(MODEL_VARIABLE, "outputs"))


def checkpoint_dir() -> Path | None:
    """Folder whose content is there again when the run was interrupted and starts anew.

    None where the trainer never interrupts a run.
    """
    named = os.environ.get(CHECKPOINT_VARIABLE)
    return Path(named) if named else None


def log_metric(name: str, value: float, *, step: int | None = None) -> None:
    """Record a figure: one line on standard output, which every trainer reads.

    Raises:
        ValueError: the value is NaN or infinite, which JSON can't carry.
    """
    if not math.isfinite(value):
        msg = f"metric {name!r} is {value}"
        raise ValueError(msg)
    record: dict[str, Any] = {"name": name, "value": float(value)}
    if step is not None:
        record["step"] = step
    sys.stdout.write(f"edgefleet-metric {json.dumps(record)}\n")
    sys.stdout.flush()
