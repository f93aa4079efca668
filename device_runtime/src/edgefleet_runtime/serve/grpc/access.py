"""Who may call over gRPC: the same token and the same certificates as over REST.

Rules kept here:

- A caller without the token is refused before a message of its call is taken in.
- The token is looked for once, as one value of the metadata ``authorization``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from edgefleet_runtime.serve.access import tls_files, token_check, told

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from edgefleet_runtime.serve.access import Access, HasToken, Pem

HEALTH = frozenset(
    {
        "/inference.GRPCInferenceService/ServerLive",
        "/inference.GRPCInferenceService/ServerReady",
    }
)


class TokenInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Lets in only calls that bring the token."""

    def __init__(self, has_token: HasToken, *, open_health: bool) -> None:
        self._has_token = has_token
        self._open = HEALTH if open_health else frozenset[str]()

    async def intercept_service(
        self,
        continuation: Callable[[Any], Awaitable[Any]],
        handler_call_details: Any,  # noqa: ANN401 - grpc has no types
    ) -> Any:  # noqa: ANN401 - likewise
        """The handler of the call, or one that refuses it."""
        given = _authorization(handler_call_details.invocation_metadata)
        if self._has_token(given):
            return await continuation(handler_call_details)
        if handler_call_details.method in self._open:
            return _unread(await continuation(handler_call_details))
        return _refusing(told(given))


def token_interceptors(access: Access) -> tuple[TokenInterceptor, ...]:
    """What asks each call for the token; nothing where there is none.

    Raises:
        ConfigurationError: the token's file can't be used.
    """
    has_token = token_check(access)
    if has_token is None:
        return ()
    return (TokenInterceptor(has_token, open_health=access.open_health),)


def server_credentials(access: Access) -> grpc.ServerCredentials | None:
    """What encrypts connections and checks callers' certificates; None without a certificate.

    Each new connection goes by what the files are then, as over REST.

    Raises:
        ConfigurationError: a file can't be used, or the key is open to others.
    """
    newest = tls_files(access)
    if newest is None:
        return None
    used = newest()

    def renewed() -> Any:  # noqa: ANN401 - grpc has no types
        """Asked with each connection; None for no other certificate than before."""
        nonlocal used
        before, used = used, newest()
        return None if used is before else _configuration(used)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(used), renewed, require_client_authentication=used.client_ca is not None
    )


def _configuration(pem: Pem) -> Any:  # noqa: ANN401 - grpc has no types
    return grpc.ssl_server_certificate_configuration(
        [(pem.key, pem.chain)], root_certificates=pem.client_ca
    )


def _authorization(metadata: Any) -> bytes | None:  # noqa: ANN401 - grpc has no types
    values = [value for key, value in metadata or () if key == "authorization"]
    if not values:
        return None
    if len(values) > 1 or not isinstance(values[0], str):
        return b""
    return values[0].encode(errors="replace")


def _refusing(said: str) -> Any:  # noqa: ANN401 - grpc has no types
    async def refuse(_: object, context: Any) -> None:  # noqa: ANN401 - likewise
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, said)

    # As a stream: of a call of one message, grpc would read it before asking us.
    return grpc.stream_stream_rpc_method_handler(refuse)


def _unread(handler: Any) -> Any:  # noqa: ANN401 - grpc has no types
    """Answers a call that takes nothing, whatever its caller sends."""

    async def answer(_: object, context: Any) -> AsyncIterator[Any]:  # noqa: ANN401 - likewise
        yield await handler.unary_unary(b"", context)

    return grpc.stream_stream_rpc_method_handler(
        answer, response_serializer=handler.response_serializer
    )
