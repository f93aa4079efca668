"""The options that say where to serve, the same for every command that serves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgefleet.errors import InvalidInputError
from edgefleet_runtime.commands.common import address

if TYPE_CHECKING:
    import argparse


def add_listening(parser: argparse.ArgumentParser, *, http: str) -> None:
    """Declare ``--http``, whose default is given, ``--uds`` and ``--grpc``."""
    parser.add_argument(
        "--http",
        default=http,
        metavar="HOST:PORT",
        help="where to serve REST; port 0 takes a free one, which is told; 'none' for nowhere "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--uds", type=Path, metavar="PATH", help="serve REST on a Unix socket as well"
    )
    parser.add_argument(
        "--grpc",
        default="none",
        metavar="HOST:PORT",
        help="where to serve gRPC as well, or unix:PATH for a Unix socket; needs the extra [grpc] "
        "(default: %(default)s)",
    )


class Listening(NamedTuple):
    """Where to serve.

    Attributes:
        host: address for REST; None for none.
        port: 0 for one that is free.
        uds: path of a Unix socket for REST.
        grpc_host: address for gRPC; None for none.
        grpc_port: 0 for one that is free.
        grpc_uds: path of a Unix socket for gRPC.
    """

    host: str | None
    port: int
    uds: Path | None
    grpc_host: str | None
    grpc_port: int
    grpc_uds: Path | None


def listening(arguments: argparse.Namespace) -> Listening:
    """What was given.

    Raises:
        InvalidInputError: one is no address, or there is nowhere to serve.
    """
    host, port = address(arguments.http)
    if host is None and arguments.uds is None:
        raise InvalidInputError(
            "there is nowhere to serve: no address and no Unix socket",
            cure="leave --http out, or give --uds PATH",
        )
    socket = arguments.grpc.removeprefix("unix:")
    over_socket = socket != arguments.grpc
    grpc_host, grpc_port = address("none" if over_socket else arguments.grpc)
    grpc_uds = Path(socket).absolute() if over_socket else None
    return Listening(host, port, arguments.uds, grpc_host, grpc_port, grpc_uds)
