"""Finds the server of Edge Manager's API, or says which extra it comes with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.errors import MissingExtraError

if TYPE_CHECKING:
    from edgefleet_runtime.serve.edgemanager.server import EdgeManagerServer


def edge_manager_server_type() -> type[EdgeManagerServer]:
    """The server's class.

    Raises:
        MissingExtraError: grpcio or protobuf is not installed.
    """
    try:
        from edgefleet_runtime.serve.edgemanager.server import (  # noqa: PLC0415 - the extra
            EdgeManagerServer,
        )
    except ImportError as error:
        raise MissingExtraError(
            f"Edge Manager's API needs what isn't installed here: {error}",
            cure="pip install 'edgefleet-runtime[grpc]'",
        ) from error
    return EdgeManagerServer
