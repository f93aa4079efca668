"""Finds the gRPC server, or says which extra it comes with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.errors import MissingExtraError

if TYPE_CHECKING:
    from edgefleet_runtime.serve.grpc.server import GrpcServer


def grpc_server_type() -> type[GrpcServer]:
    """The server's class.

    Raises:
        MissingExtraError: grpcio or protobuf is not installed.
    """
    try:
        from edgefleet_runtime.serve.grpc.server import GrpcServer  # noqa: PLC0415 - the extra
    except ImportError as error:
        raise MissingExtraError(
            f"serving over gRPC needs what isn't installed here: {error}",
            cure="pip install 'edgefleet-runtime[grpc]'",
        ) from error
    return GrpcServer
