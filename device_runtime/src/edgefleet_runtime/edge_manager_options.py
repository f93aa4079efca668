"""The options of Edge Manager's agent API, the same for every command that serves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

CAPTURE_MAX_BYTES = 1 << 30


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
