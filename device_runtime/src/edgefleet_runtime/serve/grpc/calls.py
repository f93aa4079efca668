"""One gRPC call: bytes to a message, an error to its status.

Rules kept here:

- Bytes that are no message are the caller's fault: grpc's own parsing would blame the server.
- What failed inside is logged and told as "internal error".
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

from edgefleet.errors import EdgeFleetError, InvalidInputError
from edgefleet_runtime.serve.extensions.errors import INTERNAL, message_of, status_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


def parse(kind: type[Any], data: bytes) -> Any:  # noqa: ANN401 - any of the messages
    """The message.

    Raises:
        InvalidInputError: the bytes are none.
    """
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise InvalidInputError(f"malformed {kind.__name__}: {error}") from error


def serialized(message: Any) -> bytes:  # noqa: ANN401 - any of the messages
    """The bytes of an answer."""
    data: bytes = message.SerializeToString()
    return data


async def answered(
    call: Callable[[Any], Awaitable[_T]],
    kind: type[Any],
    data: bytes,
    context: Any,  # noqa: ANN401 - grpc has no types
) -> _T:
    """The call's answer, or its error's status."""
    try:
        return await call(parse(kind, data))
    except Exception as error:
        code, message = told(error)
        await context.abort(getattr(grpc.StatusCode, code), message)
        raise AssertionError("abort() raises") from error


def told(error: Exception) -> tuple[str, str]:
    """The status by gRPC's name, and what the client is told."""
    if not isinstance(error, EdgeFleetError):
        _log.error("a call failed", exc_info=error)
        return INTERNAL.grpc, "internal error"
    status = status_of(error)
    if status is INTERNAL:
        _log.warning("a call failed: %s", message_of(error))
    # A message may quote what a client sent, and a status travels as UTF-8.
    return status.grpc, message_of(error).encode(errors="replace").decode()
