"""Make this machine a device of a fleet; the token is read from standard input."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.errors import InvalidInputError
from edgefleet_runtime.commands.common import pairs

if TYPE_CHECKING:
    import argparse

MAX_TOKEN_BYTES = 1024
_ABOUT = """\
The key is made on this machine and never leaves it. What is kept lies in ROOT/identity; then:
edgefleet-runtime run --root ROOT --channel pull -o identity=ROOT/identity --device NAME.
The same again changes nothing. Run it as the user that the runtime runs as.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.epilog = _ABOUT
    parser.add_argument(
        "--gateway", required=True, metavar="URL", help="of the fleet: https://HOST:PORT"
    )
    parser.add_argument(
        "--root", type=Path, required=True, metavar="DIR", help="folder of the runtime"
    )
    trust = parser.add_mutually_exclusive_group()
    trust.add_argument(
        "--pin",
        metavar="sha256//BASE64",
        help="public key that the gateway has; several with semicolons between",
    )
    trust.add_argument(
        "--ca",
        type=Path,
        metavar="FILE",
        help="certificate of the authority that the gateway's is by, PEM (default: the system's)",
    )
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a fact about the device; may be given several times",
    )
    parser.set_defaults(command=_run)


def _run(arguments: argparse.Namespace) -> int:
    from edgefleet_runtime.channels.pull.enrolling import Trust, enroll, pins_of
    from edgefleet_runtime.channels.pull.identity import FOLDER

    trust = Trust(pins_of(arguments.pin) if arguments.pin else (), arguments.ca)
    labels = pairs(arguments.label, "--label")
    folder = arguments.root.absolute() / FOLDER
    found = enroll(arguments.gateway, folder, _token(), trust=trust, labels=labels)
    kept = found.kept
    if found.clock is not None:
        print(f"warning: {found.clock}\n  cure: set it, such as with timedatectl", file=sys.stderr)
    how = "is already" if found.already else "is now"
    print(f"this machine {how} {kept.device}, in group {kept.group} of the fleet {kept.fleet}")
    print(f"its identity is in {folder}; the certificate lasts until {kept.ends:%Y-%m-%d}")
    return 0


def _token() -> str:
    """The token; nothing shows it."""
    if sys.stdin is None:
        raise InvalidInputError("there is no standard input, so no token", cure="pipe it in")
    if sys.stdin.isatty():
        return getpass.getpass("token: ").strip()
    try:
        return sys.stdin.read(MAX_TOKEN_BYTES).strip()
    except UnicodeDecodeError:
        raise InvalidInputError(  # from None, because the other error repeats what came
            "what came by standard input is no token, nor any text",
            cure="paste the whole of what `edgefleet device enroll NAME` printed",
        ) from None
