"""What a training job asks for and this machine can't give is refused before anything starts."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.errors import InvalidInputError, UnsupportedError

if TYPE_CHECKING:
    from edgefleet.interfaces.training import TrainingJob

_GIB = 1 << 30


def refuse_what_is_missing(job: TrainingJob) -> None:
    """Check a job's resources and requirements against this machine and this Python.

    Raises:
        UnsupportedError: something can't be given.
        InvalidInputError: a requirement can't be read.
    """
    wants = job.resources
    if wants.instance is not None:
        raise UnsupportedError(
            f"the local trainer has no machine types, {wants.instance!r} was asked for",
            cure="leave instance out, or train with a cloud's trainer",
        )
    there = gpus()
    if wants.gpus > there:
        raise UnsupportedError(
            f"this machine has {there} NVIDIA GPUs, {wants.gpus} were asked for",
            cure="ask for fewer, or train with a cloud's trainer",
        )
    memory = memory_gib()
    if wants.memory_gib is not None and wants.memory_gib > memory:
        raise UnsupportedError(
            f"this machine has {memory:.1f} GiB of memory, {wants.memory_gib:g} were asked for",
            cure="ask for less, or train with a cloud's trainer",
        )
    missing = [text for text in job.requirements if not is_met(text)]
    if missing:
        quoted = " ".join(f"'{text}'" for text in missing)
        raise UnsupportedError(
            f"the local trainer uses this Python, which lacks {', '.join(missing)}",
            cure=f"install it with: pip install {quoted}",
        )


def gpus() -> int:
    """NVIDIA GPUs that the driver shows."""
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def memory_gib() -> float:
    """Physical memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / _GIB


def is_met(requirement: str) -> bool:
    """Whether a pip requirement is satisfied by what is installed here."""
    # Only a job with requirements pays for it.
    from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415

    try:
        wanted = Requirement(requirement)
    except InvalidRequirement as error:
        raise InvalidInputError(
            f"not a pip requirement: {requirement[:200]!r}", cure="write such as 'scipy>=1.11'"
        ) from error
    if wanted.marker is not None and not wanted.marker.evaluate():
        return True
    try:
        there = version(wanted.name)
    except PackageNotFoundError:
        return False
    return wanted.specifier.contains(there, prereleases=True)
