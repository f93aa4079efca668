"""Operators' requests: they come as messages on the device's own topic, answers go to S3.

An answer is an object below the device's own prefix, because a message holds 128 KB only, and the
light nucleus can't leave a message behind for somebody who asks later.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from edgefleet.errors import EdgeFleetError
from edgefleet.protocol.typed import UNREADABLE, decoder
from edgefleet_runtime.channels import requests

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet_runtime.channels.requests import Reply, Request

_log = logging.getLogger(__name__)

FOLDER = "replies"


class Message(requests.Message, frozen=True, kw_only=True):
    """A request on the wire.

    Attributes:
        id: names the answer.
    """

    id: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]


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
        self._workers = requests.Workers(self._work, "invoke")

    def close(self) -> None:
        """Answer no more."""
        self._workers.close()

    def received(self, payload: bytes) -> None:
        """Take a message in; returns at once. With too many, its sender gets no answer."""
        if not self._workers.put(payload):
            _log.warning("dropped an operator's request: too many wait already")

    def _work(self, payload: bytes) -> None:
        try:
            message = decoder(Message).decode(payload)
        except UNREADABLE as error:
            _log.warning("dropped an operator's request that makes no sense: %s", error)
            return
        try:
            self._answer(message)
        except (EdgeFleetError, OSError) as error:  # a full disk, too, must not end the thread
            _log.warning("an answer to an operator is lost: %s", error)

    def _answer(self, message: Message) -> None:
        answer = requests.answer_to(message, self._ask)
        with tempfile.NamedTemporaryFile() as file:
            file.write(msgspec.json.encode(answer))
            file.flush()
            self._upload(f"{FOLDER}/{message.id}.json", Path(file.name))
