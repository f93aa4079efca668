"""Answers the operator's orders, whichever channel carries them, and hands on all else.

What has a path of `edgefleet.protocol.orders` is followed here and never reaches the server, which
answers any process of the device; so nobody but the fleet's operator gives orders.
"""

from __future__ import annotations

from concurrent.futures import CancelledError as WithdrawnError
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from edgefleet.errors import (
    ConflictError,
    EdgeFleetError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from edgefleet.protocol.documents import VERSION, Document, decode, encode, parse
from edgefleet.protocol.orders import (
    CAPTURE,
    MAX_ORDER,
    PREFIX,
    ROLLBACK,
    STATUS,
    TRIAL,
    CaptureOrder,
    RollbackOrder,
    TrialOrder,
)
from edgefleet_runtime.channels.requests import Reply

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from edgefleet.protocol.orders import CaptureAnswer, RollbackAnswer, TrialAnswer
    from edgefleet_runtime.channels.requests import Request

T = TypeVar("T", bound=Document)

PATIENCE_S = 20.0  # an operator's tools give up after 30
_JSON = {"content-type": "application/json"}
_STATUS: dict[type[EdgeFleetError], HTTPStatus] = {
    NotFoundError: HTTPStatus.NOT_FOUND,
    ConflictError: HTTPStatus.CONFLICT,
    LimitExceededError: HTTPStatus.TOO_MANY_REQUESTS,
    InvalidInputError: HTTPStatus.BAD_REQUEST,
    UnsupportedError: HTTPStatus.NOT_IMPLEMENTED,
    UnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
}


class Hear(NamedTuple):
    """Who follows orders.

    Attributes:
        roll_back: as of `edgefleet_runtime.reconciler.driver.Driver`.
        capture: as of `edgefleet_runtime.spool.on_demand.OnDemand.take`.
        status: gives the newest report; empty before the first.
        try_out: as of `edgefleet_runtime.reconciler.driver.Driver`.
    """

    roll_back: Callable[[RollbackOrder], Future[RollbackAnswer]]
    capture: Callable[[CaptureOrder], CaptureAnswer]
    status: Callable[[], bytes]
    try_out: Callable[[TrialOrder], TrialAnswer]


def ordering(
    hear: Hear, ask: Callable[[Request], Reply], *, patience_s: float = PATIENCE_S
) -> Callable[[Request], Reply]:
    """A callable that answers every request of an operator.

    Args:
        hear: who follows orders.
        ask: asks the runtime's server, for all other paths.
        patience_s: how long a rollback may take to begin.
    """

    def answer(request: Request) -> Reply:
        if not request.path.startswith(PREFIX):
            return ask(request)
        try:
            return Reply(HTTPStatus.OK, _JSON, _followed(hear, request, patience_s))
        except EdgeFleetError as error:
            kinds = (status for kind, status in _STATUS.items() if isinstance(error, kind))
            status = next(kinds, HTTPStatus.INTERNAL_SERVER_ERROR)
            said = {"error": error.message, "cure": error.cure}
            return Reply(status, _JSON, msgspec.json.encode(said))

    return answer


def _followed(hear: Hear, request: Request, patience_s: float) -> bytes:
    if request.path == STATUS:
        report = hear.status()
        if not report:
            raise UnavailableError("there is no report yet", cure="ask again in a second")
        return report
    if request.path == ROLLBACK:
        return encode(_rolled_back(hear, _read(RollbackOrder, request), patience_s))
    if request.path == CAPTURE:
        return encode(hear.capture(_read(CaptureOrder, request)))
    if request.path == TRIAL:
        return encode(hear.try_out(_read(TrialOrder, request)))
    raise NotFoundError(
        f"no order {request.path[:60]!r}",
        cure=f"there are {ROLLBACK}, {CAPTURE}, {TRIAL} and {STATUS}",
    )


def _read(kind: type[T], request: Request) -> T:
    """An order's document; its header may be missing, as people write some by hand."""
    body = request.body or b"{}"
    if len(body) > MAX_ORDER:
        raise LimitExceededError(f"an order has at most {MAX_ORDER} bytes", cure="shorten it")
    header = {"version": VERSION, "requires": []}
    whole = header | parse(dict[str, Any], body, "order")
    return decode(kind, msgspec.json.encode(whole), max_bytes=2 * MAX_ORDER)


def _rolled_back(hear: Hear, order: RollbackOrder, patience_s: float) -> RollbackAnswer:
    answer = hear.roll_back(order)
    try:
        return answer.result(patience_s)
    except TimeoutError:
        withdrawn = answer.cancel()
        raise UnavailableError(
            "the device is busy loading a model, and nothing was rolled back"
            if withdrawn
            else "the rollback has begun and takes long",
            cure="repeat it in a minute: an order that was followed changes nothing again",
        ) from None
    except WithdrawnError:
        raise UnavailableError("the runtime is stopping", cure="repeat it") from None
