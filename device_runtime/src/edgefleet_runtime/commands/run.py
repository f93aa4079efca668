"""Serve what the fleet delivers to this device, until stopped."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from edgefleet_runtime.access_options import access_settings, add_access
from edgefleet_runtime.batching_options import add_batching, batching_settings, limit_settings
from edgefleet_runtime.collector import starting
from edgefleet_runtime.commands.fleet import add_fleet, fleet_settings
from edgefleet_runtime.commands.listening import add_listening, listening
from edgefleet_runtime.edge_manager_options import add_edge_manager
from edgefleet_runtime.otlp.extra import add_otlp

if TYPE_CHECKING:
    import argparse


def add(run: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_fleet(run)
    add_listening(run, http="127.0.0.1:0")
    add_access(run)
    add_batching(run)
    add_edge_manager(run)
    add_otlp(run)
    run.add_argument(
        "--healthy-after",
        type=float,
        metavar="SECONDS",
        help="how long a release serves before a crash no longer counts against it (default 20)",
    )
    run.add_argument(
        "--trial-bytes",
        type=int,
        metavar="N",
        help="most bytes of further variants to fetch, to time them; a release's own limit counts "
        "as well (default: that alone; give 0 on a metered link). Also the most that a trial may "
        "fetch which an operator orders (default: what the order says)",
    )
    run.add_argument(
        "--engine-cache-max-bytes",
        type=int,
        metavar="N",
        help="cap of engines built from models, in ROOT/engines (default 4 GiB)",
    )
    run.add_argument(
        "--exit-with-parent",
        action="store_true",
        help="stop when standard input ends, so that no runtime outlives what started it",
    )
    run.set_defaults(command=_run)


def _run(arguments: argparse.Namespace) -> int:
    with starting():
        return _run_node(arguments)


def _run_node(arguments: argparse.Namespace) -> int:
    from edgefleet_runtime.config import checked
    from edgefleet_runtime.node import Node
    from edgefleet_runtime.serve.descriptors import allow_files
    from edgefleet_runtime.serve.loop import run

    allow_files()
    given = {
        "healthy_after_s": arguments.healthy_after,
        "trial_bytes": arguments.trial_bytes,
        "engine_cache_max_bytes": arguments.engine_cache_max_bytes,
        "edge_manager_uds": arguments.edge_manager_uds and arguments.edge_manager_uds.absolute(),
    }
    config = checked(
        {
            **fleet_settings(arguments),
            **listening(arguments)._asdict(),
            **{name: value for name, value in given.items() if value is not None},
            "access": access_settings(arguments),
            "batching": batching_settings(arguments),
            "limits": limit_settings(arguments),
            "otlp": arguments.otlp,
            "exit_with_parent": arguments.exit_with_parent,
        }
    )
    node = Node(config)
    if not run(node.run()):
        # A thread sits in a call that doesn't end: leave now, while the promised time lasts.
        logging.shutdown()
        os._exit(node.exit_status)
    return node.exit_status
