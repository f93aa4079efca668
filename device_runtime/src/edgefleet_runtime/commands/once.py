"""For devices that sleep: look at the fleet once, do what it asks for, report and end."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet_runtime.commands.common import duration
from edgefleet_runtime.commands.fleet import add_fleet, fleet_settings

if TYPE_CHECKING:
    import argparse

DONE, REJECTED, UNFINISHED, UNDELIVERED = 0, 3, 4, 5
_ABOUT = f"""\
Serves nothing; with --inbox it answers requests that gathered as files: MODEL/NAME.json or
MODEL.VERSION/NAME.json as they are posted, NAME.npy for the only input of a model. A file goes when
its event is safe on the disk; what can't be answered goes to DIR/unreadable. A release that passes
its self-test here counts as good, and serves from the disk when 'run' starts. Exit codes: {DONE}
what the fleet asks for is on this device, attested and reported; 1 could not run; 2 usage;
{REJECTED} the release asked for was rejected, or its pointer refused; {UNFINISHED} not finished in
time, or the channel could not tell what the fleet asks for, or files wait for a model that isn't
here, call again; {UNDELIVERED} done, but a report or telemetry could not be delivered and waits for
the next call.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.epilog = _ABOUT
    add_fleet(parser)
    parser.add_argument(
        "--timeout",
        type=duration,
        default=300.0,
        metavar="SECONDS",
        help="how long to work, and as long again to send what waits; what still runs then is "
        "broken off (default: %(default)g)",
    )
    parser.add_argument(
        "--inbox", type=Path, metavar="DIR", help="answer what has gathered in this folder"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(command=_run)


def _run(arguments: argparse.Namespace) -> int:
    from edgefleet_runtime.config import checked
    from edgefleet_runtime.node import Node

    # Nothing serves for a while here: the self-test and an orderly end are what can be had.
    config = checked({**fleet_settings(arguments), "host": "127.0.0.1", "healthy_after_s": 0.0})
    inbox = arguments.inbox and arguments.inbox.absolute()
    cycle = Node(config).once(arguments.timeout, inbox)
    report, gathered = cycle.report, cycle.gathered
    if arguments.json:
        print(json.dumps(json.loads(report.encoded()), indent=2))
    else:
        asked = "" if report.wanted else ", the fleet has asked for nothing yet"
        done = f"; {gathered.predicted} files answered" if inbox else ""
        print(f"{report.state}{asked}; runs {report.running or 'nothing'}{done}", flush=True)
    if gathered.unreadable:
        print(f"{gathered.unreadable} files could not be answered", file=sys.stderr)
    for error in report.errors:
        print(f"error: {error}", file=sys.stderr)
    if report.state == "rejected" or cycle.refused:
        return REJECTED
    if report.state in {"waiting", "working"} or gathered.left or not cycle.told:
        return UNFINISHED
    return DONE if cycle.delivered else UNDELIVERED
