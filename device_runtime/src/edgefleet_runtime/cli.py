"""The command line of the device runtime: dispatch and errors. Logs go to standard error."""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from edgefleet.errors import EdgeFleetError
from edgefleet_runtime import __version__
from edgefleet_runtime.allocator import share_heap

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
INTERRUPTED = 130  # as a shell tells of SIGINT
_COMMANDS = {
    "serve": "serve model files, bundles or a Triton repository, without a fleet",
    "run": "serve what the fleet delivers, until stopped",
    "enroll": "make this machine a device of a fleet, with a token",
    "once": "look at the fleet once, do what it asks for, report and end",
    "bench": "measure a model on this device, and tell what to set",
    "engines": "list, export and import engines that were built from models",
    "doctor": "what works on this device, and what to do",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    share_heap()  # before a library starts threads
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # not every terminal has an ellipsis
    given = sys.argv[1:] if argv is None else argv
    arguments = _parser(next((word for word in given if word in _COMMANDS), "")).parse_args(given)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if arguments.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        code: int = arguments.command(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Who read it has enough, as `head` has. Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except EdgeFleetError as error:
        if arguments.verbose:
            _log.exception("could not run")
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - this is the command line
        return 1
    return code


def _parser(chosen: str) -> argparse.ArgumentParser:
    """The parser of all commands, which knows the options of the chosen one."""
    parser = argparse.ArgumentParser(
        prog="edgefleet-runtime",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"edgefleet-runtime {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="log every step")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, about in _COMMANDS.items():
        parser_of_one = commands.add_parser(name, help=about)
        if name == chosen:
            command = import_module(f"edgefleet_runtime.commands.{name}")
            parser_of_one.description = command.__doc__
            command.add(parser_of_one)
    return parser
