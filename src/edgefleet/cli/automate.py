"""``edgefleet automate``: train, evaluate and register, carried through by the trainer's vendor."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgefleet.cli.options import common, json_option, json_scalars, open_fleet, script_options
from edgefleet.cli.output import print_json, say

if TYPE_CHECKING:
    from edgefleet.interfaces.automation import AutomationRun, Gate

_GATE = re.compile(r"(?P<metric>.+?)(?P<sign>>=|<=)(?P<bound>[^<>=]+)")
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("script", type=_FILE)
@click.option("--evaluate", type=_FILE, required=True, help="The evaluating script.")
@click.option(
    "--gate",
    required=True,
    metavar="METRIC>=VALUE",
    help="What the model must reach to be registered: 'accuracy>=0.95' or 'loss<=0.1'.",
)
@click.option("--model", required=True, metavar="NAME", help="The name to register it under.")
@script_options("both scripts")
@click.option(
    "--wait/--detach", default=True, help="Wait for its end (default), or return at once."
)
@json_option
@common
def automate(
    *,
    script: Path,
    evaluate: Path,
    gate: str,
    model: str,
    data: str | None,
    params: tuple[tuple[str, str], ...],
    requirements: tuple[str, ...],
    instance: str | None,
    wait: bool,
    as_json: bool,
) -> None:
    """Train, evaluate, and register past a gate.

    The trainer's vendor carries it through, also while this machine is off. SCRIPT trains; the
    evaluating script finds what SCRIPT left in the folder that EDGEFLEET_MODEL_DIR names, and logs
    the gate's metric. The version is registered with its approval pending. Ctrl-C cancels it,
    unless it was detached. The same model again is a new execution.
    """
    from edgefleet.interfaces.training import Resources

    with open_fleet() as fleet:
        run = fleet.automate(
            script,
            evaluate=evaluate,
            gate=_gate(gate),
            model=model,
            data=data,
            params=json_scalars(params),
            requirements=requirements,
            resources=Resources(instance=instance),
        )
        say(f"automation {run.id}")
        if wait:
            run.wait()
        _print(run, ended=wait, as_json=as_json)


def _gate(text: str) -> Gate:
    from edgefleet.interfaces.automation import Gate

    found = _GATE.fullmatch(text)
    wrong = click.BadParameter(
        f"not a gate: {text!r}; write METRIC>=VALUE or METRIC<=VALUE", param_hint="--gate"
    )
    if found is None:
        raise wrong
    name = "at_least" if found["sign"] == ">=" else "at_most"
    try:
        bounds: dict[str, Any] = {name: float(found["bound"])}
        return Gate(metric=found["metric"].strip(), **bounds)
    except ValueError as error:
        raise wrong from error


def _print(run: AutomationRun, *, ended: bool, as_json: bool) -> None:
    status, version = run.status, run.version if ended else None
    if as_json:
        print_json({**status.facts(), "version": version})
        return
    click.echo(f"{status.id}: {status.state.value}")
    for step in status.steps:
        click.echo(f"  {step.name:<9} {step.state.value}")
    if version is not None:
        click.echo(f"  registered {version}; next: edgefleet model approve {version}")
    elif ended:
        click.echo("  the gate held the model back")
