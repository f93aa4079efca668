"""Requests to a device as files of its own folder, which the runtime's file channel answers.

What must come over the device's channel goes this way; all else goes to its endpoint.
"""

from __future__ import annotations

import json
import time
import uuid
from typing import TYPE_CHECKING

from edgefleet.errors import UnavailableError
from edgefleet.interfaces.requests import reply_of, request_of
from edgefleet_local.files import read_small, replace_file

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet.interfaces.abilities import Reply

MAX_ANSWER = 32 << 20  # bytes
_POLL_S = 0.02


def ask(folder: Path, path: str, body: bytes | None, deadline: float) -> Reply:
    """A device's answer to a request in its folder.

    Args:
        folder: the device's own.
        path: of the request.
        body: None for a GET.
        deadline: until when to wait, by `time.monotonic`; then the request is withdrawn.

    Raises:
        UnavailableError: no answer came, or the device says that it can't.
        DocumentError: the answer makes no sense.
    """
    name = f"{uuid.uuid4().hex}.json"
    request, reply = folder / "requests" / name, folder / "replies" / name
    replace_file(request, json.dumps(request_of(path, {}, body)).encode())
    try:
        while (data := read_small(reply, MAX_ANSWER)) is None:
            if time.monotonic() >= deadline:
                begun = "" if request.exists() else "; it took the request, and may follow it yet"
                raise UnavailableError(
                    f"device {folder.name!r} doesn't answer{begun}", cure="look at its log"
                )
            time.sleep(_POLL_S)
    finally:
        request.unlink(missing_ok=True)
    reply.unlink(missing_ok=True)
    return reply_of(folder.name, data)
