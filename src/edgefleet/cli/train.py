"""``edgefleet train`` and ``edgefleet runs``: training scripts, run and looked at."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgefleet.cli.options import (
    common,
    json_option,
    json_scalars,
    number_option,
    open_fleet,
    script_options,
)
from edgefleet.cli.output import print_json, print_table, say, when
from edgefleet.protocol.files import check_new_folder

if TYPE_CHECKING:
    from edgefleet.interfaces.training_run import TrainingRun

_MORE_THAN_0 = click.FloatRange(0, min_open=True)


@click.command()
@click.argument("script", type=click.Path(path_type=Path, dir_okay=False))
@script_options("the script")
@click.option("--name", help="Prefix of the run's id; without it the script's name.")
@number_option("--count", within=click.IntRange(1), default=1, about="Machines.")
@number_option("--gpus", within=click.IntRange(0), default=0, about="GPUs a machine.")
@click.option("--memory-gib", type=_MORE_THAN_0, help="Memory a machine, in GiB.")
@click.option("--max-runtime-s", type=_MORE_THAN_0, help="End the run after so many seconds.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Copy what the script left to this folder, which must not exist yet.",
)
@click.option("--follow", "mode", flag_value="follow", help="Print its output meanwhile.")
@click.option("--wait", "mode", flag_value="wait", default=True, help="Wait for its end (default).")
@click.option("--detach", "mode", flag_value="detach", help="Print the run's id and return.")
@json_option
@common
def train(
    *,
    script: Path,
    data: str | None,
    params: tuple[tuple[str, str], ...],
    name: str | None,
    requirements: tuple[str, ...],
    instance: str | None,
    count: int,
    gpus: int,
    memory_gib: float | None,
    max_runtime_s: float | None,
    output: Path | None,
    mode: str,
    as_json: bool,
) -> None:
    """Run a training script.

    With the profile's trainer. SCRIPT is plain Python: its data, parameters and output folder reach
    it through the variables EDGEFLEET_DATA_DIR, EDGEFLEET_PARAMS and EDGEFLEET_OUTPUT_DIR; see also
    edgefleet.training. Ctrl-C cancels the run, unless it was detached.
    """
    from edgefleet.interfaces.training import Resources

    if output is not None and mode == "detach":
        raise click.UsageError("a detached run has no output yet: leave out --output or --detach")
    if output is not None and output.exists():
        raise click.UsageError(f"{output} exists already: name a folder that doesn't")
    if output is not None:
        check_new_folder(output)
    with open_fleet() as fleet:
        run = fleet.train(
            script,
            data=data,
            params=json_scalars(params),
            name=name,
            requirements=requirements,
            resources=Resources(
                instance=instance,
                count=count,
                gpus=gpus,
                memory_gib=memory_gib,
                max_runtime_s=max_runtime_s,
            ),
        )
        say(f"run {run.id}")
        if mode == "follow":
            _follow(run, to_stderr=as_json)
        if mode != "detach":
            run.wait()
        if output is not None:
            shutil.copytree(run.outputs, output)
        _print_run(run, as_json=as_json)


@click.command()
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option("--log", is_flag=True, help="Print what the run has printed.")
@click.option("--follow", is_flag=True, help="Print that, and go on until the run ends.")
@click.option("--cancel", is_flag=True, help="End the run and whatever it started.")
@json_option
@common
def runs(*, run_id: str | None, log: bool, follow: bool, cancel: bool, as_json: bool) -> None:
    """List training runs, or show one of them.

    With RUN: its state, metrics and outputs.
    """
    if run_id is None and (log or follow or cancel):
        raise click.UsageError("name a run")
    with open_fleet() as fleet:
        if run_id is None:
            _print_runs(fleet.trainer.list(), as_json=as_json)
            return
        run = fleet.trainer.get(run_id)
        if cancel:
            run.cancel()
        if follow:
            _copy_log(run, follow=True, to_stderr=as_json)
        elif log:
            _copy_log(run, follow=False, to_stderr=as_json)
            return
        _print_run(run, as_json=as_json)


def _follow(run: TrainingRun, *, to_stderr: bool) -> None:
    """Print a run's output until it ends; Ctrl-C cancels it."""
    try:
        _copy_log(run, follow=True, to_stderr=to_stderr)
    except KeyboardInterrupt:
        run.cancel()
        raise


def _copy_log(run: TrainingRun, *, follow: bool, to_stderr: bool) -> None:
    for line in run.logs(follow=follow):
        click.echo(line, err=to_stderr)


def _print_runs(found: tuple[Any, ...], *, as_json: bool) -> None:
    if as_json:
        print_json({"runs": [status.facts() for status in found]})
        return
    print_table(
        ("run", "state", "submitted (UTC)", "reason"),
        [(s.id, s.state.value, when(s.submitted), s.reason or "") for s in found],
        empty="no runs yet; start one with: edgefleet train SCRIPT",
    )


def _print_run(run: TrainingRun, *, as_json: bool) -> None:
    from edgefleet.interfaces.training import RunState

    status = run.status
    done = status.state is RunState.SUCCEEDED
    metrics = run.metrics
    outputs = sorted(str(p) for p in run.outputs.rglob("*") if p.is_file()) if done else []
    if as_json:
        print_json({**status.facts(), "metrics": metrics, "outputs": outputs})
        return
    click.echo(f"{status.id}: {status.state.value}")
    if status.reason:
        click.echo(f"  reason   {status.reason}")
    for name, value in metrics.items():
        click.echo(f"  metric   {name} {value:.6g}")
    for path in outputs:
        click.echo(f"  output   {path}")
