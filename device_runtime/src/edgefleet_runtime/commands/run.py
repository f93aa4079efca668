"""``run``: serve what the fleet delivers to this device, until stopped."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.errors import InvalidInputError
from edgefleet_runtime.access_options import access_settings, add_access
from edgefleet_runtime.commands.common import address
from edgefleet_runtime.commands.fleet import add_fleet, fleet_settings
from edgefleet_runtime.edge_manager_options import add_edge_manager
from edgefleet_runtime.otlp.extra import add_otlp

if TYPE_CHECKING:
    import argparse


def add(run: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_fleet(run)
    run.add_argument(
        "--http",
        default="127.0.0.1:0",
        metavar="HOST:PORT",
        help="where to serve; port 0 takes a free one, which the report tells; 'none' for nowhere "
        "(default: %(default)s)",
    )
    run.add_argument("--uds", type=Path, metavar="PATH", help="serve on a Unix socket as well")
    run.add_argument(
        "--grpc",
        default="none",
        metavar="HOST:PORT",
        help="where on this machine to serve gRPC as well, or unix:PATH; needs the extra [grpc]",
    )
    add_access(run)
    add_edge_manager(run)
    add_otlp(run)
    run.add_argument(
        "--healthy-after",
        type=float,
        metavar="SECONDS",
        help="how long a release serves before a crash no longer counts against it (default 20)",
    )
    run.add_argument(
        "--exit-with-parent",
        action="store_true",
        help="stop when standard input ends, so that no runtime outlives what started it",
    )
    run.set_defaults(command=_run)


def _run(arguments: argparse.Namespace) -> int:
    from edgefleet_runtime.config import checked
    from edgefleet_runtime.node import Node
    from edgefleet_runtime.serve.loop import run

    host, port = address(arguments.http)
    if host is None and arguments.uds is None:
        raise InvalidInputError(
            "there is nowhere to serve: no address and no Unix socket",
            cure="leave --http out, or give --uds PATH",
        )
    socket = arguments.grpc.removeprefix("unix:")
    over_socket = socket != arguments.grpc
    grpc_host, grpc_port = address("none" if over_socket else arguments.grpc)
    given = {
        "uds": arguments.uds,
        "grpc_uds": Path(socket).absolute() if over_socket else None,
        "healthy_after_s": arguments.healthy_after,
        "edge_manager_uds": arguments.edge_manager_uds and arguments.edge_manager_uds.absolute(),
    }
    config = checked(
        {
            **fleet_settings(arguments),
            **{name: value for name, value in given.items() if value is not None},
            "host": host,
            "port": port,
            "grpc_host": grpc_host,
            "grpc_port": grpc_port,
            "access": access_settings(arguments),
            "otlp": arguments.otlp,
            "exit_with_parent": arguments.exit_with_parent,
        }
    )
    if not run(Node(config).run()):
        # A thread sits in a call that doesn't end: leave now, while the promised time lasts.
        logging.shutdown()
        os._exit(0)
    return 0
