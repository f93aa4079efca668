"""The command line of the device runtime: parse, start, print. Logs go to standard error."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.errors import EdgeFleetError, InvalidInputError
from edgefleet_runtime import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_log = logging.getLogger(__name__)

_ABOUT = """\
Runs the models that a fleet delivers to this device: fetches, verifies, self-tests and serves them,
and reports what it runs. Needs no network to go on serving.
"""
_EXAMPLES = """\
examples:
  edgefleet-runtime run --root /var/lib/edgefleet --device cam-07 --channel file \\
      -o pointer=/mnt/fleet/line-3/pointer.json -o outbox=/mnt/fleet/devices/cam-07
  edgefleet-runtime doctor
exit codes: 0 stopped in order; 1 could not run (standard error says why, and the cure); 2 usage
"""


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
    _add_run(commands.add_parser("run", help="serve what the fleet delivers, until stopped"))
    doctor = commands.add_parser("doctor", help="what works on this device, and what to do")
    doctor.add_argument("--json", action="store_true", help="print the facts as JSON")
    doctor.set_defaults(command=_doctor)
    return parser


def _add_run(run: argparse.ArgumentParser) -> None:
    run.add_argument(
        "--root",
        type=Path,
        required=True,
        help="folder of this runtime's own, on a persistent disk: models, telemetry, state",
    )
    run.add_argument("--device", required=True, help="the device's name in its fleet")
    run.add_argument(
        "--channel", required=True, help="how pointers come; see doctor for those here"
    )
    run.add_argument(
        "-o",
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the channel; may be given several times",
    )
    run.add_argument("--fleet", metavar="UUID", help="take pointers of this fleet only")
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
        help="where to serve gRPC as well, or unix:PATH; needs the extra [grpc]",
    )
    run.add_argument(
        "--allow-remote",
        action="store_true",
        help="allow an address that other machines reach; nothing here tells callers apart",
    )
    run.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a fact about the device in place of the one detected, such as target=jetson-orin",
    )
    run.add_argument(
        "--store-max-bytes", type=int, help="cap of models on the disk (default 8 GiB)"
    )
    run.add_argument(
        "--spool-max-bytes", type=int, help="cap of unsent telemetry on the disk (default 512 MiB)"
    )
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
    from edgefleet_runtime.config import checked  # noqa: PLC0415 - --help needs none of these
    from edgefleet_runtime.node import Node  # noqa: PLC0415
    from edgefleet_runtime.serve.loop import run  # noqa: PLC0415

    host, port = _address(arguments.http)
    if host is None and arguments.uds is None:
        raise InvalidInputError(
            "there is nowhere to serve: no address and no Unix socket",
            cure="leave --http out, or give --uds PATH",
        )
    socket = arguments.grpc.removeprefix("unix:")
    over_socket = socket != arguments.grpc
    grpc_host, grpc_port = _address("none" if over_socket else arguments.grpc)
    given = {
        "grpc_uds": Path(socket).absolute() if over_socket else None,
        "fleet": arguments.fleet,
        "uds": arguments.uds,
        "store_max_bytes": arguments.store_max_bytes,
        "spool_max_bytes": arguments.spool_max_bytes,
        "healthy_after_s": arguments.healthy_after,
    }
    config = checked(
        {
            **{name: value for name, value in given.items() if value is not None},
            "root": arguments.root.absolute(),
            "device": arguments.device,
            "channel": arguments.channel,
            "channel_options": _pairs(arguments.option, "-o"),
            "labels": _pairs(arguments.label, "--label"),
            "host": host,
            "port": port,
            "grpc_host": grpc_host,
            "grpc_port": grpc_port,
            "allow_remote": arguments.allow_remote,
            "exit_with_parent": arguments.exit_with_parent,
        }
    )
    if not run(Node(config).run()):
        # A thread sits in a call that doesn't end: leave now, while the promised time lasts.
        logging.shutdown()
        os._exit(0)
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from edgefleet_runtime.doctor import facts, lines  # noqa: PLC0415

    found = facts()
    text = json.dumps(found, indent=2) if arguments.json else "\n".join(lines(found))
    print(text)  # noqa: T201
    return 0


def _address(text: str) -> tuple[str | None, int]:
    if text == "none":
        return None, 0
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit():
        raise InvalidInputError(
            f"not an address to serve on: {text!r}", cure="write HOST:PORT, such as 127.0.0.1:8080"
        )
    return host.strip("[]"), int(port)


def _pairs(items: Iterable[str], option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not (equals and key):
            raise InvalidInputError(f"not KEY=VALUE: {item!r}", cure=f"write {option} key=value")
        pairs[key] = value
    return pairs
