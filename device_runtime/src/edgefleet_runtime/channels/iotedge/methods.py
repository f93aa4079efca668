"""Direct methods: what an operator may ask of the module through IoT Hub, and the answers.

- ``invoke``: one request, as `edgefleet_runtime.channels.requests` has it on the wire.
- ``status``, ``rollback``, ``capture``, ``trial``: the orders of `edgefleet.protocol.orders`, for
  whoever has IoT Hub's own tools at hand. The payload is the order's document, the answer is its
  answer.

An answer holds at most 128 KB:
https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-direct-methods
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from edgefleet.errors import EdgeFleetError
from edgefleet.protocol.orders import CAPTURE, ROLLBACK, STATUS, TRIAL
from edgefleet.protocol.typed import convert, decoder
from edgefleet_runtime.channels.requests import Answer, Message, Request, Workers, answer_to

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet_runtime.channels.requests import Reply

    Respond = Callable[[int, Any], None]

_log = logging.getLogger(__name__)

MAX_PAYLOAD = 128 << 10  # bytes
OK, BAD_REQUEST, NOT_FOUND, BUSY, UNAVAILABLE = 200, 400, 404, 429, 503
ORDERS = {"status": STATUS, "rollback": ROLLBACK, "capture": CAPTURE, "trial": TRIAL}


class Methods:
    """Answers direct methods, several at once."""

    def __init__(self) -> None:
        self._ask: Callable[[Request], Reply] | None = None
        self._workers: Workers[tuple[str, Any, Respond]] = Workers(self._work, "method")

    def serve(self, ask: Callable[[Request], Reply]) -> None:
        """Carry requests from now on.

        Args:
            ask: answers a request.
        """
        self._ask = ask

    def close(self) -> None:
        """Answer no more."""
        self._workers.close()

    def asked(self, name: str, payload: Any, respond: Respond) -> None:  # noqa: ANN401 - JSON
        """Take a method in; returns at once.

        Args:
            name: of the method.
            payload: its JSON.
            respond: called with status and payload of the answer, by another thread or this one.
        """
        if not self._workers.put((name, payload, respond)):
            _log.warning("refused an operator's request: too many wait already")
            self._respond(respond, BUSY, {"error": "too many requests wait on this device"})

    def _work(self, request: tuple[str, Any, Respond]) -> None:
        name, payload, respond = request
        ask = self._ask
        if name != "invoke" and name not in ORDERS:
            known = ", ".join(("invoke", *ORDERS))
            self._respond(respond, NOT_FOUND, {"error": f"no method {name[:60]!r}: {known}"})
        elif ask is None:
            self._respond(respond, UNAVAILABLE, {"error": "the runtime doesn't serve yet"})
        elif name == "invoke":
            self._respond(respond, *self._invoked(ask, payload))
        else:
            self._respond(respond, *_ordered(ask, ORDERS[name], payload))

    def _invoked(
        self,
        ask: Callable[[Request], Reply],
        payload: Any,  # noqa: ANN401 - JSON
    ) -> tuple[int, Any]:
        try:
            message = convert(payload, Message)
        except msgspec.ValidationError as error:
            return BAD_REQUEST, {"error": f"the request makes no sense: {error}"}
        answer = msgspec.to_builtins(answer_to(message, ask))
        size = len(msgspec.json.encode(answer))
        if size > MAX_PAYLOAD:
            said = f"the answer has {size} bytes, a direct method carries {MAX_PAYLOAD}"
            answer = msgspec.to_builtins(Answer(error=said))
        return OK, answer

    def _respond(self, respond: Respond, status: int, payload: Any) -> None:  # noqa: ANN401
        try:
            respond(status, payload)
        except EdgeFleetError as error:
            _log.warning("an answer to an operator is lost: %s", error.message)


def _ordered(
    ask: Callable[[Request], Reply],
    path: str,
    payload: Any,  # noqa: ANN401 - JSON
) -> tuple[int, Any]:
    body = msgspec.json.encode({} if payload is None else payload)
    try:
        reply = ask(Request(path, {}, body))
        return reply.status, decoder(Any).decode(reply.body)
    except EdgeFleetError as error:
        return UNAVAILABLE, {"error": error.message}
