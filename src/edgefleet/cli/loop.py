"""``edgefleet loop …``: keep a model good, one turn after another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgefleet.cli.errors import FAILURE, LOOP_WAITS
from edgefleet.cli.options import (
    common,
    help_without_command,
    json_option,
    number_option,
    open_fleet,
)
from edgefleet.cli.output import print_json, say

if TYPE_CHECKING:
    from edgefleet.loop.loop import Loop
    from edgefleet.loop.status import LoopStatus

_file = click.argument("file", metavar="LOOP.yaml", type=click.Path(path_type=Path))
_reason = click.option("--reason", default="", metavar="TEXT", help="Why, for people.")


@click.group(invoke_without_command=True)
@common
@click.pass_context
def loop(ctx: click.Context) -> None:
    """Keep a model good: drift, train, shadow, promote.

    LOOP.yaml says when a turn begins, what it trains on, what a candidate must prove, and how it
    reaches the devices:

    \b
    name: keep-digits
    model: digits
    groups: [line-3]
    trigger: {drift: {devices: 0.5}, schedule: "0 3 * * 1", labelled: 200}
    dataset: {since: 30d, labels: labels/digits.parquet, least: 100}
    train: {script: train.py, params: {epochs: 30}}
    optimize: {targets: [x86-cpu]}
    compare: {frozen: frozen.npz, max_loss: 0.02, min_gain: 0.05}
    approval: required
    shadow: {requests: 500, min_agreement: 0.9, min_gain: 0.0}
    limits: {every: 24h, budget: {training_hours: 20, days: 30}}

    Run it from cron, from CI or from a Kubernetes CronJob: each call goes on where the last one
    stopped, whatever ended that.
    """  # noqa: D301 - click looks for the backspace itself
    help_without_command(ctx)


@loop.command()
@_file
@click.option("--now", is_flag=True, help="Begin a turn whatever the triggers say.")
@click.option("--wait", is_flag=True, help="Wait for training, approval and shadow, too.")
@number_option(
    "--poll",
    "poll_s",
    unit="SECONDS",
    within=click.FloatRange(min=0.1),
    default=5.0,
    about="Between looks, with --wait.",
)
@json_option
@common
@click.pass_context
def run(
    ctx: click.Context, *, file: Path, now: bool, wait: bool, poll_s: float, as_json: bool
) -> None:
    """Begin a turn if a trigger holds, or go on with it.

    It goes as far as it can: to the end of the turn, or to something outside that must happen
    first: training, labels, approval, what the shadow still has to prove. Then it exits with 7,
    and the same command goes on later. It exits with 8 where another process is at it, with 0 where
    nothing is to be done or the turn ended by its rules, and with 1 where the turn failed.
    """
    with open_fleet() as fleet:
        status = _loop(file).run(fleet, now=now, wait=wait, poll_s=poll_s, say=say)
    _print(status, as_json=as_json)
    ctx.exit({"waiting": LOOP_WAITS, "failed": FAILURE}.get(status.state, 0))


@loop.command()
@_file
@json_option
@common
def status(*, file: Path, as_json: bool) -> None:
    """Show triggers, the turn on its way, and turns before.

    With the figures of each: samples, scores, what the shadow has shown. Changes nothing.
    """
    with open_fleet() as fleet:
        found = _loop(file).status(fleet)
    _print(found, as_json=as_json)


@loop.command()
@_file
@_reason
@json_option
@common
def approve(*, file: Path, reason: str, as_json: bool) -> None:
    """Let the candidate of the turn go to devices.

    The same as `edgefleet model approve` of its version. The next `edgefleet loop run` goes on.
    """
    with open_fleet() as fleet:
        version = _loop(file).approve(fleet, reason=reason)
    if as_json:
        print_json(version.facts())
        return
    click.echo(f"{version} is approved; next: edgefleet loop run {file}")


@loop.command()
@_file
@_reason
@json_option
@common
def discard(*, file: Path, reason: str, as_json: bool) -> None:
    """End the turn and take its candidate from the devices.

    Where another process is at it, that one does so at its next step.
    """
    from edgefleet.errors import LoopHeldError

    with open_fleet() as fleet:
        held = _loop(file)
        held.discard(fleet, reason=reason)
        try:
            found = held.run(fleet, say=say)
        except LoopHeldError as error:
            say(f"{error.message}: it ends the turn")
            found = held.status(fleet)
    _print(found, as_json=as_json)


def _loop(file: Path) -> Loop:
    from edgefleet.loop.loop import Loop

    return Loop.load(file)


def _print(status: LoopStatus, *, as_json: bool) -> None:
    if as_json:
        print_json(status.facts())
    else:
        click.echo(str(status))
