"""``edgefleet mock``: mock clouds around a command that runs unchanged, or up until Ctrl-C.

The command keeps the caller's folder, terminal and environment, with what names the mocks added.
Its exit code is ours.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from edgefleet.cli.errors import Terminated
from edgefleet.cli.options import common, number_option
from edgefleet.cli.output import say
from edgefleet.cli.signals import LOOK_S, stay

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GRACE_S = 5.0  # seconds for a command to end after a signal, before the next, harder one
_NOT_FOUND = 127  # as shells say it


@click.command()
@click.argument("clouds", metavar="P[,P…]")
@click.argument("command", metavar="[-- COMMAND…]", nargs=-1, type=click.UNPROCESSED)
@number_option(
    "--devices",
    within=click.IntRange(0),
    default=0,
    about="Devices dev-01, dev-02, … with a real runtime each.",
)
@click.option("--group", metavar="G", default="edge", show_default=True, help="Their group.")
@click.option(
    "--state",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep what the mocks hold here, to go on with it next time.",
)
@click.option("--log", is_flag=True, help="At the end, print what each mock cloud saw.")
@common
@click.pass_context
def mock(
    ctx: click.Context,
    *,
    clouds: str,
    command: tuple[str, ...],
    devices: int,
    group: str,
    state: Path | None,
    log: bool,
) -> None:
    """Run a command against mock clouds.

    \b
    edgefleet mock local --devices 2 --group line-3 -- python my_script.py

    COMMAND finds a profile whose roles all lie on the mocks (EDGEFLEET_CONFIG, EDGEFLEET_PROFILE),
    and what the vendor's own tools need to find them. Its exit code is given back. Without COMMAND
    the mocks stay up until Ctrl-C, and the variables are printed as lines for another terminal.
    """  # noqa: D301 - click looks for the backspace itself
    from edgefleet.testing.mock import mock as run_mocks

    names = [name for name in clouds.split(",") if name]
    if not names:
        raise click.UsageError("name at least one provider")
    folder = None if state is None else state.absolute()
    with run_mocks(*names, devices=devices, group=group, state=folder) as session:
        try:
            if not command:
                _stay_up(session.environment)
            code = run_command(command, {**os.environ, **session.environment})
        finally:
            if log:
                for cloud in session.clouds:
                    for line in cloud.seen():
                        say(f"{cloud.name}: {line}")
    ctx.exit(code)


def _stay_up(environment: Mapping[str, str]) -> NoReturn:
    for key, value in sorted(environment.items()):
        click.echo(f"export {key}={shlex.quote(value)}")
    sys.stdout.flush()
    say("the mocks are up; Ctrl-C stops them")
    stay()


def run_command(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command to its end and return its exit code as a shell would say it.

    When this process is interrupted or terminated, so is the command with what it started.
    """
    first, *rest = command
    # A command that isn't on the PATH may lie beside this interpreter, as `edgefleet` does.
    beside = str(Path(sys.executable).parent)
    program = shutil.which(first) or shutil.which(first, path=beside)
    if program is None:
        say(f"error: no command {first!r}\n  cure: check its name, or give its path")
        return _NOT_FOUND
    # On a terminal it must stay in our process group to be able to read from it; elsewhere it gets
    # one of its own, so that whatever it starts can be ended with it.
    own_group = not sys.stdin.isatty()
    process = subprocess.Popen(
        [program, *rest], env=dict(environment), process_group=0 if own_group else None
    )
    try:
        code = _ended(process)
    except KeyboardInterrupt as stop:
        terminated = isinstance(stop, Terminated)
        _end(process, signal.SIGTERM if terminated else signal.SIGINT, own_group=own_group)
        raise
    return code if code >= 0 else 128 - code


def _ended(process: subprocess.Popen[bytes]) -> int:
    """The exit code of a command, waited for so that every signal ends the wait."""
    while True:
        try:
            return process.wait(LOOK_S)
        except subprocess.TimeoutExpired:
            continue


def _end(
    process: subprocess.Popen[bytes], first_signal: signal.Signals, *, own_group: bool
) -> None:
    """End a command, by ever harder signals; a terminal has sent it the first one already."""
    signals = [first_signal, signal.SIGTERM, signal.SIGKILL]
    for number in signals:
        if own_group:
            _signal_group(process.pid, number)
        elif number is not signal.SIGINT:
            process.send_signal(number)
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            continue
        break
    if own_group:
        _signal_group(process.pid, signal.SIGKILL)  # whatever it left behind


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # macOS refuses for groups of ended processes
        return
