"""The options of Edge Manager's agent API, the same for every command that serves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgefleet.errors import InvalidInputError

if TYPE_CHECKING:
    import argparse

CAPTURE_MAX_BYTES = 1 << 30


class EdgeManagerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a server without a fleet offers to clients of Edge Manager's agent.

    Attributes:
        uds: path of its Unix socket.
        models: folder below which clients may load models; None to let them load none.
        captures: folder that captures are kept in; None to refuse them.
        capture_max_bytes: cap of that folder.
    """

    uds: Path
    models: Path | None = None
    captures: Path | None = None
    capture_max_bytes: int = CAPTURE_MAX_BYTES


def add_edge_manager(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Declare the socket's option; returns the group, for a command's own options."""
    options = parser.add_argument_group("clients of SageMaker Edge Manager's agent")
    options.add_argument(
        "--edge-manager-uds",
        type=Path,
        metavar="PATH",
        help="answer them on a Unix socket as well; needs the extra [grpc]",
    )
    return options


def add_edge_manager_folders(parser: argparse.ArgumentParser) -> None:
    """Declare the options, with those that a fleet decides elsewhere."""
    options = add_edge_manager(parser)
    options.add_argument(
        "--edge-manager-models",
        type=Path,
        metavar="DIR",
        help="let them load and unload models below this folder (default: none)",
    )
    options.add_argument(
        "--capture-dir",
        type=Path,
        metavar="DIR",
        help="keep in this folder what they capture (default: captures are refused)",
    )
    options.add_argument(
        "--capture-max-bytes",
        type=int,
        default=CAPTURE_MAX_BYTES,
        metavar="N",
        help="cap of that folder; captures over it fail (default: 1 GiB)",
    )


def edge_manager_config(arguments: argparse.Namespace) -> EdgeManagerConfig | None:
    """What was given; None without a socket.

    Raises:
        InvalidInputError: a folder is given, and no socket that needs it.
    """
    if arguments.edge_manager_uds is None:
        if arguments.edge_manager_models or arguments.capture_dir:
            raise InvalidInputError(
                "--edge-manager-models and --capture-dir are for clients of Edge Manager's agent",
                cure="give them a socket: --edge-manager-uds PATH",
            )
        return None
    if arguments.capture_max_bytes <= 0:
        raise InvalidInputError("--capture-max-bytes takes a number above 0", cure="see --help")
    return EdgeManagerConfig(
        uds=arguments.edge_manager_uds.absolute(),
        models=arguments.edge_manager_models,
        captures=arguments.capture_dir,
        capture_max_bytes=arguments.capture_max_bytes,
    )
