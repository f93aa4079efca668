"""Requests of operators that wait at the gateway: fetched, answered by several threads, sent back.

Rules kept here:

- A request is taken once, by its id, while this process runs.
- One that doesn't fit into what waits already, or whose answer is too long for the gateway, is
  answered with an error, so that nobody waits in vain.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from edgefleet.errors import EdgeFleetError, NotFoundError, UnavailableError
from edgefleet.protocol.documents import decode, encode
from edgefleet.protocol.gateway import ANSWERS, MAX_ANSWER_BYTES, REQUESTS, Requests
from edgefleet_runtime.channels.requests import Answer, Message, Workers, answer_to

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.protocol.gateway import WaitingRequest
    from edgefleet_runtime.channels.pull.gateways import Gateways
    from edgefleet_runtime.channels.requests import Reply, Request

_log = logging.getLogger(__name__)

MAX_REQUESTS_BYTES = 8 << 20  # bytes of all requests that are handed out at once
REMEMBERED = 4096  # ids of requests that were taken
TRIES = 3  # to send an answer
PAUSE_S = 2.0  # between them


class Operators:
    """Answers what operators ask.

    Args:
        gateways: that hold the requests.
        ask: asks the runtime.
        pause: waits so many seconds, or less when the channel closes.
    """

    def __init__(
        self,
        gateways: Gateways,
        ask: Callable[[Request], Reply],
        *,
        pause: Callable[[float], object],
    ) -> None:
        self._gateways, self._ask, self._pause = gateways, ask, pause
        self._taken: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()
        self._workers: Workers[WaitingRequest] = Workers(self._work, "pull-request")

    def close(self) -> None:
        """Answer no more."""
        self._workers.close()

    def fetch(self) -> int:
        """Take the requests that wait; returns how many weren't taken before.

        Raises:
            EdgeFleetError: the gateway doesn't give them.
        """
        answered = self._gateways.ask("GET", REQUESTS, max_bytes=MAX_REQUESTS_BYTES)
        if answered.status == 204 or not answered.body:
            return 0
        found = decode(Requests, answered.body, max_bytes=MAX_REQUESTS_BYTES)
        return sum(self._take(request) for request in found.waiting)

    def _take(self, request: WaitingRequest) -> bool:
        with self._lock:
            if request.id in self._taken:
                return False
            self._taken[request.id] = None
            if len(self._taken) > REMEMBERED:
                self._taken.popitem(last=False)
        if not self._workers.put(request):
            self._send(request.id, Answer(error="the device is busy with other requests"))
        return True

    def _work(self, request: WaitingRequest) -> None:
        try:
            answer = answer_to(
                Message(path=request.path, headers=request.headers, body=request.body), self._ask
            )
        except Exception as error:  # noqa: BLE001 - a worker serves those who come after, too
            _log.exception("an operator's request")
            answer = Answer(error=f"the device failed: {type(error).__name__}")
        self._send(request.id, answer)

    def _send(self, name: str, answer: Answer) -> None:
        body = encode(answer)
        if len(body) > MAX_ANSWER_BYTES:
            said = f"the answer has {len(body)} bytes, {MAX_ANSWER_BYTES} go through a gateway"
            body = encode(Answer(error=said))
        for left in range(TRIES - 1, -1, -1):
            try:
                self._gateways.ask(
                    "PUT",
                    f"{ANSWERS}/{name}",
                    body=body,
                    headers={"Content-Type": "application/json"},
                )
            except NotFoundError:
                return  # whoever asked has given up
            except EdgeFleetError as error:
                _log.info("an answer is not taken: %s", error.message)
                if not (left and isinstance(error, UnavailableError)):
                    return
                self._pause(PAUSE_S)
            else:
                return
