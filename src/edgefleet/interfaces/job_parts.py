"""What a job is sent with, whoever runs it: its id, its files, its parameters as text.

`training_entry` reads the files where the vendor's service starts it; how they get there is each
trainer's own affair.
"""

from __future__ import annotations

import json
import re
import secrets
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgefleet.errors import LimitExceededError
from edgefleet.interfaces import training_entry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefleet.interfaces.training import Param, TrainingJob

_SHORT = 30  # characters of a name that an id begins with
_NO_OTHERS = re.compile(r"[^a-z0-9]+")


def new_id(name: str) -> str:
    """An id that nobody has: letters, digits and hyphens, 53 characters at most.

    Args:
        name: what it begins with, shortened.
    """
    short = _NO_OTHERS.sub("-", name.lower()[:_SHORT]).strip("-")
    return f"{short}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def order_of(script: Path, job: TrainingJob, inside: str | None) -> dict[str, Any]:
    """What the entry script is told of a job that runs one of the user's scripts.

    Args:
        script: the job's own, or another one that runs as the job does.
        job: with the requirements.
        inside: what the script is shown of its data; None where it has none.
    """
    return {"script": script.name, "data": inside, "requirements": list(job.requirements)}


def registering_order(script: Path, distribution: str, inside: str | None) -> dict[str, Any]:
    """What the entry script is told of a job that registers with a provider's registry.

    Args:
        script: the provider's own.
        distribution: the provider's, such as ``edgefleet-local``; installed, like what packages
            models, in the version that is installed here where the image lacks it.
        inside: what the script is shown of its data; None where it has none.
    """
    lacking = {
        distribution.replace("-", "_"): f"{distribution}=={version(distribution)}",
        "onnx": f"edgefleet[onnx]=={version('edgefleet')}",
    }
    return {"script": script.name, "data": inside, "requirements": [], "lacking": lacking}


def files_of(archive: bytes, order: Mapping[str, Any]) -> dict[str, bytes]:
    """A job's files by the names that they have beside each other.

    Args:
        archive: of `script_archive`.
        order: of `order_of` or `registering_order`.
    """
    return {
        training_entry.SOURCE: archive,
        training_entry.ORDER: json.dumps(order).encode(),
        training_entry.ENTRY: Path(training_entry.__file__).read_bytes(),
    }


def params_text(params: Mapping[str, Param], *, max_bytes: int) -> str:
    """Parameters as an environment variable carries them: one JSON object.

    Raises:
        LimitExceededError: they are longer than ``max_bytes``.
    """
    text = json.dumps(dict(params))
    if len(text.encode()) > max_bytes:
        raise LimitExceededError(
            f"the parameters take {len(text.encode())} bytes, {max_bytes} fit",
            cure="put them in a file of the data",
        )
    return text
