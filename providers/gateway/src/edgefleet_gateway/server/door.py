"""What every request passes: who asks and how often, what becomes of it, what is written down."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route

from edgefleet.errors import EdgeFleetError
from edgefleet_gateway.server.addresses import address_of, counted_as
from edgefleet_gateway.server.audit import Entry
from edgefleet_gateway.server.gateway import CALLER
from edgefleet_gateway.server.openapi import document
from edgefleet_gateway.server.peer import read_peer
from edgefleet_gateway.server.problems import RefusedError, answer_to, refusal_of
from edgefleet_gateway.server.routes import OPERATIONS, Operation, Who
from edgefleet_gateway.server.wire import connection_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from edgefleet_gateway.server.gateway import Gateway

_LOG = logging.getLogger(__name__)
_QUIET = frozenset({200, 204, 304})


def application(gateway: Gateway) -> Starlette:
    """The ASGI application of a gateway: every operation of the table, nothing else."""
    by_path: dict[str, dict[str, Operation]] = {}
    for operation in OPERATIONS:
        by_path.setdefault(operation.path, {})[operation.method] = operation
    routes = [
        Route(
            path.replace("{path}", "{path:path}"),
            partial(_of_method, gateway, operations),
            methods=list(operations),
        )
        for path, operations in by_path.items()
    ]
    gateway.described = document()
    app = Starlette(
        routes=routes,
        exception_handlers={HTTPException: partial(_unserved, gateway)},
    )
    app.router.redirect_slashes = False
    return app


async def _of_method(
    gateway: Gateway, operations: dict[str, Operation], request: Request
) -> Response:
    operation = operations.get(request.method)
    if operation is None:  # starlette adds HEAD to every GET
        raise HTTPException(405, headers={"Allow": ", ".join(operations)})
    return await answered(
        gateway,
        request,
        operation.name,
        partial(_answer, gateway, operation),
        polled=operation.polled,
    )


async def answered(
    gateway: Gateway,
    request: Request,
    name: str,
    answer: Callable[[Request], Awaitable[Response]],
    *,
    polled: bool = False,
) -> Response:
    """Answer a request, refuse it in words, count it and write it down."""
    began = gateway.clock()
    code = ""
    try:
        response = await answer(request)
    except (RefusedError, EdgeFleetError) as error:
        response, code = _refuse(gateway, request, name, error)
    except ClientDisconnect:
        response = Response(status_code=499)  # which nobody reads
    except Exception:  # noqa: BLE001 - a defect harms this request alone
        _LOG.exception("%s fails", name)
        response = answer_to(RefusedError(500, "this gateway failed"), last=True)
    took = gateway.clock() - began
    status = response.status_code
    gateway.figures.answers.labels(name, str(status)).inc()
    if "prefer" not in request.headers:
        gateway.figures.seconds.labels(name).observe(took)
    if not (polled and status in _QUIET):
        caller = request.scope.get(CALLER)
        gateway.audit.write(
            Entry(
                time=gateway.now(),
                operation=name,
                device=None if caller is None else caller.device,
                address=_address(request),
                method=request.method,
                path=request.url.path[:300],
                status=status,
                code=code,
                ms=took * 1000,
            )
        )
    return response


def _refuse(
    gateway: Gateway, request: Request, name: str, error: RefusedError | EdgeFleetError
) -> tuple[Response, str]:
    """The answer to a refused request, and the code of its problem.

    A function of its own: a caller that kept the error would keep its own frame with it, and the
    connection, until the garbage collector comes.
    """
    refused = error if isinstance(error, RefusedError) else refusal_of(error)
    problem = refused.problem
    if problem.status >= 500:
        _LOG.warning("%s: %s", name, error)
    gateway.figures.refused.labels(name, problem.code or str(problem.status)).inc()
    return answer_to(refused, last=_has_body(request)), problem.code


async def _answer(gateway: Gateway, operation: Operation, request: Request) -> Response:
    if operation.takes is None and _has_body(request):
        raise RefusedError(400, "nothing is taken here")
    if operation.who in (Who.DEVICE, Who.RENEWING):
        _check_device_rate(gateway, request)
        await gateway.identify(request, renewing=operation.who is Who.RENEWING)
    else:
        _check_rate(gateway.strangers.take(_counted(request), gateway.clock()))
        if operation.who is Who.OBSERVER and not may_observe(gateway, request):
            raise RefusedError(404, "nothing is served here")
    return await operation.answers(gateway, request)


def _check_device_rate(gateway: Gateway, request: Request) -> None:
    """By certificate, so that one that counts no longer takes nothing from the one that does."""
    der = connection_of(request).certificate
    peer = None if der is None else read_peer(der)
    if peer is None:
        _check_rate(gateway.strangers.take(_counted(request), gateway.clock()))
    else:
        _check_rate(gateway.devices.take(peer.serial, gateway.clock()))


def _check_rate(wait_s: float) -> None:
    if wait_s:
        raise RefusedError(429, "asked too often", headers={"Retry-After": f"{wait_s:.0f}"})


def may_observe(gateway: Gateway, request: Request) -> bool:
    """Whether a request comes from where figures may be read."""
    if request.client is None:
        return False
    address = address_of(request.client.host)
    return any(address in network for network in gateway.observers)


async def _unserved(gateway: Gateway, request: Request, error: Exception) -> Response:
    """What no operation of the table serves."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    status = error.status_code
    title = "this method isn't served here" if status == 405 else "nothing is served here"

    async def refuse(request: Request) -> Response:
        _check_rate(gateway.strangers.take(_counted(request), gateway.clock()))
        raise RefusedError(status, title, headers=error.headers)

    return await answered(gateway, request, "unserved", refuse)


def _has_body(request: Request) -> bool:
    length = request.headers.get("content-length", "0")
    return length != "0" or "transfer-encoding" in request.headers


def _address(request: Request) -> str:
    return "" if request.client is None else str(address_of(request.client.host))


def _counted(request: Request) -> str:
    return "" if request.client is None else counted_as(address_of(request.client.host))
