"""How a device joins and stays: authorities, enrolment, renewal, runtimes, the install script."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from starlette.responses import Response

from edgefleet.protocol.documents import decode, encode
from edgefleet.protocol.gateway import MAX_DOCUMENT_BYTES, Enrolment, Identity, Renewal
from edgefleet.runtime_archive.script import install_script
from edgefleet_gateway.server.bodies import check_type, whole
from edgefleet_gateway.server.problems import RefusedError, reading

if TYPE_CHECKING:
    from starlette.requests import Request

    from edgefleet.protocol.documents import Document
    from edgefleet_gateway.joining import Joining
    from edgefleet_gateway.server.gateway import Gateway

    D = TypeVar("D", bound=Document)

_NO_STORE = {"Cache-Control": "no-store"}


async def authorities(gateway: Gateway, _request: Request) -> Response:
    """Certificates of the fleet's authority."""
    record = await gateway.mirror.authority()
    if record is None:
        raise RefusedError(404, "this fleet has no authority yet")
    return Response(record.certificates, media_type="application/x-pem-file", headers=_NO_STORE)


async def enroll(gateway: Gateway, request: Request) -> Response:
    """Make whoever has a token a device of the fleet."""
    joining = _joining(gateway)
    enrolment = await _document(request, Enrolment)
    identity = await gateway.mirror.call(lambda: joining.enroll(enrolment))
    gateway.mirror.forget(f"device/{identity.device}")
    return _identity(identity)


async def renew(gateway: Gateway, request: Request) -> Response:
    """Give a device its next certificate."""
    caller, joining = gateway.caller(request), _joining(gateway)
    renewal = await _document(request, Renewal)
    identity = await gateway.mirror.call(
        lambda: joining.renew(caller.device, caller.peer.serial, renewal)
    )
    gateway.mirror.forget(f"device/{identity.device}")
    return _identity(identity)


async def runtime(gateway: Gateway, request: Request) -> Response:
    """The runtime that a device should be."""
    offer = await gateway.mirror.runtime(gateway.caller(request).record.group)
    if offer is None:
        return Response(status_code=204, headers=_NO_STORE)
    headers = _NO_STORE | {"ETag": offer.etag}
    if request.headers.get("if-none-match") == offer.etag:
        return Response(status_code=304, headers=headers)
    return Response(offer.body, media_type="application/json", headers=headers)


async def install(gateway: Gateway, _request: Request) -> Response:
    """The script that installs a runtime and enrols the device."""
    offer, record = await gateway.mirror.first_runtime(), await gateway.mirror.authority()
    if offer is None:
        raise RefusedError(
            404,
            "this gateway has no runtime to install",
            detail="give it one: edgefleet gateway serve --runtime FILE, "
            "made by: edgefleet runtime build",
        )
    script = install_script(
        offer.runtime,
        offer.archives,
        gateway=gateway.settings.addresses[0],
        authorities="" if record is None else record.certificates + record.others,
    )
    return Response(script, media_type="text/x-shellscript", headers=_NO_STORE)


def _joining(gateway: Gateway) -> Joining:
    if gateway.backends.joining is None:
        raise RefusedError(501, "this gateway has no authority, so it signs nothing")
    return gateway.backends.joining


async def _document(request: Request, kind: type[D]) -> D:
    check_type(request, "application/json")
    body = await whole(request, max_bytes=MAX_DOCUMENT_BYTES)
    with reading():
        return decode(kind, body)


def _identity(identity: Identity) -> Response:
    return Response(encode(identity), media_type="application/json", headers=_NO_STORE)
