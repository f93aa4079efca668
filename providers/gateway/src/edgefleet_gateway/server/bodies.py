"""Bodies of requests, never longer than they may be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet_gateway.server.problems import RefusedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request


def check_type(request: Request, media_type: str) -> None:
    """Refuse a body that says it is something else."""
    said = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if said != media_type:
        raise RefusedError(415, f"send {media_type} here")


def declared(request: Request, *, max_bytes: int) -> int | None:
    """Bytes that the body is said to have; None when it comes in chunks.

    Raises:
        RefusedError: it is longer than it may be.
    """
    length = request.headers.get("content-length")
    if length is None:
        return None
    if int(length) > max_bytes:  # the parser took nothing but digits
        raise _too_long(max_bytes)
    return int(length)


async def pieces(request: Request, *, max_bytes: int) -> AsyncIterator[bytes]:
    """The body as it comes.

    Raises:
        RefusedError: it is longer than it may be.
        ClientDisconnect: the rest doesn't come.
    """
    declared(request, max_bytes=max_bytes)
    came = 0
    async for piece in request.stream():
        came += len(piece)
        if came > max_bytes:
            raise _too_long(max_bytes)
        if piece:
            yield piece


async def whole(request: Request, *, max_bytes: int) -> bytes:
    """The whole body. Errors as in `pieces`."""
    return b"".join([piece async for piece in pieces(request, max_bytes=max_bytes)])


def _too_long(max_bytes: int) -> RefusedError:
    return RefusedError(413, f"at most {max_bytes} bytes may be sent here")
