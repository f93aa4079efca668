"""Operators' requests: they come as messages on the device's own topic, answers go to S3.

An answer is an object below the device's own prefix, because a message holds 128 KB only, and the
light nucleus can't leave a message behind for somebody who asks later.
"""

from __future__ import annotations

import logging
import queue
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from edgefleet.errors import EdgeFleetError
from edgefleet_runtime.channels.requests import Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet_runtime.channels.requests import Reply

_log = logging.getLogger(__name__)

WORKERS = 4  # requests that are answered at once
MAX_WAITING = 32  # beyond them; more are dropped, and their senders get no answer
FOLDER = "replies"


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A request on the wire: JSON, the body in base64.

    Attributes:
        id: names the answer.
    """

    id: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
    path: str
    headers: dict[str, str] = {}
    body: bytes | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An answer on the wire; ``error`` says why there is none."""

    status: int = 0
    headers: dict[str, str] = {}
    body: bytes = b""
    error: str = ""


class Invoker:
    """Answers requests, several at once.

    Args:
        ask: asks the runtime's server.
        upload: writes a file below the device's own prefix.
    """

    def __init__(
        self, ask: Callable[[Request], Reply], upload: Callable[[str, Path], None]
    ) -> None:
        self._ask, self._upload = ask, upload
        self._waiting: queue.Queue[bytes] = queue.Queue(MAX_WAITING)
        for number in range(WORKERS):
            threading.Thread(target=self._work, name=f"invoke-{number}", daemon=True).start()

    def received(self, payload: bytes) -> None:
        """Take a message in; returns at once."""
        try:
            self._waiting.put_nowait(payload)
        except queue.Full:
            _log.warning("dropped an operator's request: %d wait already", MAX_WAITING)

    def _work(self) -> None:
        while True:
            payload = self._waiting.get()
            try:
                message = msgspec.json.decode(payload, type=Message)
            except (msgspec.DecodeError, RecursionError) as error:
                _log.warning("dropped an operator's request that makes no sense: %s", error)
                continue
            try:
                self._answer(message)
            except (EdgeFleetError, OSError) as error:  # a full disk, too, must not end the thread
                _log.warning("an answer to an operator is lost: %s", error)

    def _answer(self, message: Message) -> None:
        try:
            reply = self._ask(Request(message.path, message.headers, message.body))
            answer = Answer(status=reply.status, headers=dict(reply.headers), body=reply.body)
        except EdgeFleetError as error:
            answer = Answer(error=error.message)
        with tempfile.NamedTemporaryFile() as file:
            file.write(msgspec.json.encode(answer))
            file.flush()
            self._upload(f"{FOLDER}/{message.id}.json", Path(file.name))
