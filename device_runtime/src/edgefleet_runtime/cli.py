"""The command line of the device runtime: dispatch and errors. Logs go to standard error."""

from __future__ import annotations

import argparse
import logging
import sys
from typing import TYPE_CHECKING

from edgefleet.errors import EdgeFleetError
from edgefleet_runtime import __version__
from edgefleet_runtime.commands import bench, doctor, engines, once, run, serve

if TYPE_CHECKING:
    from collections.abc import Sequence

_log = logging.getLogger(__name__)

_ABOUT = """\
Runs the models that a fleet delivers to this device: fetches, verifies, self-tests and serves them,
and reports what it runs. Needs no network to go on serving. 'serve' needs no fleet at all.
"""
_EXAMPLES = """\
examples:
  edgefleet-runtime serve --model digits=digits.onnx --http 127.0.0.1:8000
  edgefleet-runtime run --root /var/lib/edgefleet --device cam-07 --channel file \\
      -o pointer=/mnt/fleet/line-3/pointer.json -o outbox=/mnt/fleet/devices/cam-07
  edgefleet-runtime bench digits.onnx
  edgefleet-runtime doctor
exit codes: 0 stopped in order; 1 could not run (standard error says why, and the cure); 2 usage;
'once' has more, see its --help
"""
_COMMANDS = (
    ("serve", serve, "serve model files, bundles or a Triton repository, without a fleet"),
    ("run", run, "serve what the fleet delivers, until stopped"),
    ("once", once, "look at the fleet once, do what it asks for, report and end"),
    ("bench", bench, "measure a model on this device, and tell what to set"),
    ("engines", engines, "list, export and import engines that were built from models"),
    ("doctor", doctor, "what works on this device, and what to do"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if arguments.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        code: int = arguments.command(arguments)
    except EdgeFleetError as error:
        if arguments.verbose:
            _log.exception("could not run")
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - this is the command line
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edgefleet-runtime",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"edgefleet-runtime {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="log every step")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, command, about in _COMMANDS:
        command.add(commands.add_parser(name, help=about, description=command.__doc__))
    return parser
