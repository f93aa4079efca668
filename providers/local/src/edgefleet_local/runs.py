"""What trainer and training child agree on: the files of a run's folder.

Standard library only, so that a child starts in a moment.

====================  ==============================================================================
``job.json``          what to run; written once, before the child starts
``status.json``       how far it is; written by the child, and by whoever finds the child dead
``lock``              held by the child from its birth to its end, however it ends
``cancel``            exists once somebody asked to end the run
``log``               what the script printed, capped
``unfinished/``       the script's output folder while it runs
``outputs/``          the same folder after it succeeded
====================  ==============================================================================
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from edgefleet_local.files import replace_file

if TYPE_CHECKING:
    from pathlib import Path

JOB = "job.json"
STATUS = "status.json"
LOCK = "lock"
CANCEL = "cancel"
LOG = "log"
UNFINISHED = "unfinished"
OUTPUTS = "outputs"


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file; None when there is no such file."""
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return found


def write_status(folder: Path, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Change some fields of a run's status and return all of them."""
    status = {**(read_json(folder / STATUS) or {}), **changes}
    replace_file(folder / STATUS, json.dumps(status).encode())
    return status
