"""The table of commands, and how one is run: errors to exit codes, signals, the broken pipe."""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import click

import edgefleet
from edgefleet.cli.errors import BROKEN_PIPE, exit_codes_text, report
from edgefleet.cli.lazy import Entry, LazyGroup
from edgefleet.cli.options import common, help_without_command
from edgefleet.cli.output import say
from edgefleet.cli.signals import heeding_signals

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_HOME = "edgefleet.cli."

SECTIONS = {
    "Start": {
        "demo": Entry(_HOME + "demo.command:demo", "Show a model's whole way on this machine."),
        "init": Entry(_HOME + "init:init", "Write an edgefleet.toml to start from."),
        "doctor": Entry(_HOME + "doctor:doctor", "Check this machine and its profiles."),
        "providers": Entry(_HOME + "providers:providers", "List providers, or show one of them."),
        "install": Entry(_HOME + "install:install", "Prepare a provider's side, or take it down."),
    },
    "Models": {
        "train": Entry(_HOME + "train:train", "Run a training script."),
        "automate": Entry(
            _HOME + "automate:automate", "Train, evaluate, and register past a gate."
        ),
        "runs": Entry(_HOME + "train:runs", "List training runs, or show one of them."),
        "optimize": Entry(_HOME + "optimize:optimize", "Make a bundle for hardware targets."),
        "model": Entry(_HOME + "models:model", "Push, list, pull, approve models."),
        "loop": Entry(_HOME + "loop:loop", "Keep a model good: drift, train, shadow, promote."),
        "dataset": Entry(_HOME + "datasets:dataset", "Make, show, export and label datasets."),
        "targets": Entry(_HOME + "targets:targets", "List hardware targets, or show one of them."),
    },
    "Devices": {
        "devices": Entry(_HOME + "devices:devices", "List devices, or run the local ones."),
        "device": Entry(_HOME + "devices:device", "Enrol, revoke, retire, ask or order a device."),
        "group": Entry(_HOME + "groups:group", "Remove a group that has no devices."),
        "runtime": Entry(
            _HOME + "runtime:runtime", "Make the archive of the runtime, and bring it to devices."
        ),
        "access": Entry(
            _HOME + "access:access", "Show, renew or revoke what devices read and write with."
        ),
    },
    "Deliver": {
        "plan": Entry(_HOME + "deploy:plan", "Show what a deployment would do."),
        "deploy": Entry(_HOME + "deploy:deploy", "Deploy a model version to a group."),
        "rollout": Entry(_HOME + "rollout:rollout", "Deploy a model version to many groups."),
        "remove": Entry(_HOME + "steps:remove", "Take a model out of a group's release."),
        "promote": Entry(_HOME + "steps:promote", "Give a cohort's release to every device."),
        "cancel": Entry(_HOME + "steps:cancel", "Take a cohort's release back."),
        "policy": Entry(
            _HOME + "recording:policy", "Check, show or set what a group's devices record."
        ),
        "rollback": Entry(_HOME + "steps:rollback", "Go back to a group's release before."),
        "bundle": Entry(
            _HOME + "bundle:bundle",
            "Carry releases to devices by a stick, and back what they recorded.",
        ),
    },
    "Know": {
        "status": Entry(_HOME + "status:status", "Show what devices attest that they run."),
        "history": Entry(_HOME + "status:history", "Show what was done to a group."),
        "why": Entry(_HOME + "status:why", "Explain what one device runs, and why."),
        "events": Entry(_HOME + "events:events", "Read the events that devices recorded."),
        "drift": Entry(_HOME + "analysis:drift", "Show how far a model's data has moved."),
        "losses": Entry(_HOME + "analysis:losses", "Show what devices had to drop."),
        "cost": Entry(_HOME + "analysis:cost", "Show what telemetry and delivery cost a month."),
        "lineage": Entry(
            _HOME + "lineage:lineage", "Show where an answer came from, or what became of a sample."
        ),
    },
    "Tools": {
        "mock": Entry(_HOME + "mock:mock", "Run a command against mock clouds."),
        "completion": Entry(_HOME + "completion:completion", "Print a shell's completion script."),
    },
}


class App(LazyGroup):
    """The root command: prints errors with their cure and exits with the documented codes."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002 - click's signature
        windows_expand_args: bool = True,  # noqa: FBT001, FBT002 - click's signature
        **extra: Any,  # noqa: ANN401 - click's signature
    ) -> NoReturn:
        try:
            with heeding_signals(), _telling_warnings():
                result = super().main(
                    args,
                    prog_name or "edgefleet",
                    complete_var,
                    standalone_mode=False,
                    windows_expand_args=windows_expand_args,
                    **extra,
                )
            code = result if isinstance(result, int) else 0
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the outermost handler
            code = report(error)
        sys.exit(code)

    def invoke(self, ctx: click.Context) -> object:
        try:
            result: object = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            _forget_stdout()
            ctx.exit(BROKEN_PIPE)
        return result


@contextmanager
def _telling_warnings() -> Iterator[None]:
    """A warning is a line for people, without the place in the code that gave it."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}")
        yield


def _forget_stdout() -> None:
    """Keep the interpreter from complaining at exit that nobody reads its output."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return


def _show_version(ctx: click.Context, _option: click.Parameter, asked: bool) -> None:  # noqa: FBT001 - click's signature
    if asked and not ctx.resilient_parsing:
        click.echo(f"edgefleet {edgefleet.__version__}")
        ctx.exit()


def _epilog() -> str:
    return "\b\nExit codes:\n" + exit_codes_text()


@click.command(
    "edgefleet",
    cls=App,
    sections=SECTIONS,
    invoke_without_command=True,
    epilog=_epilog(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Print the version and exit.",
)
@common
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Train once, deliver through any cloud, serve the same on every device, know it happened."""
    help_without_command(ctx)


def main() -> NoReturn:
    """Run the command line and exit."""
    cli.main()
