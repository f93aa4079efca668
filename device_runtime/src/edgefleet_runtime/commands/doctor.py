"""What works on this device, and what to do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")
    parser.set_defaults(command=_run)


def _run(arguments: argparse.Namespace) -> int:
    from edgefleet_runtime.doctor import facts, lines

    found = facts()
    print(json.dumps(found, indent=2) if arguments.json else "\n".join(lines(found)))
    return 0
