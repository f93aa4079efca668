"""``edgefleet policy``: what a group's devices record, look for, keep and send."""

from __future__ import annotations

from typing import Any

import click

from edgefleet.cli.options import common, help_without_command, json_option, open_fleet, yes_option
from edgefleet.cli.output import may_go_on, print_json
from edgefleet.cli.waiting import finish, waiting_options


@click.group(invoke_without_command=True)
@common
@click.pass_context
def policy(ctx: click.Context) -> None:
    """Check, show or set what a group's devices record."""
    help_without_command(ctx)


@policy.command()
@click.argument("file", metavar="FILE")
@click.option(
    "--model",
    "models",
    metavar="NAME[:VERSION]",
    multiple=True,
    help="A model of the release that it is for; may be repeated. Without any, models aren't "
    "checked.",
)
@json_option
@common
def check(*, file: str, models: tuple[str, ...], as_json: bool) -> None:
    r"""Say all that is wrong with a policy, with its place.

    FILE is TOML with the fields of a release's `telemetry`, such as:

    \b
      prediction_fraction = 0.1
      [[alarms]]
      name = "scratch"
      model = "digits"
      when = "score > 0.9 && top == 1"
      needs = 3
      within = 5

    Nothing is contacted and nothing is sent.
    """
    from edgefleet.errors import InvalidInputError
    from edgefleet.policy_files import read_policy
    from edgefleet.protocol.policy_problems import check_policy, problems_of

    found = read_policy(file)
    names = {reference.partition(":")[0] for reference in models} or None
    if as_json:
        problems = problems_of(found, names)
        print_json({"file": file, "problems": list(problems)})
        if problems:
            raise InvalidInputError(f"{file}: {len(problems)} problems", cure="mend what they name")
        return
    check_policy(found, names)
    rules = sum(map(len, (found.filters, found.windows, found.alarms, found.captures)))
    click.echo(f"{file}: fine, {rules} rules")


@policy.command()
@click.argument("group")
@json_option
@common
def show(*, group: str, as_json: bool) -> None:
    """Print the policy of a group's release, as `policy set` takes it."""
    from edgefleet.policy_files import written_policy
    from edgefleet.protocol.documents import to_builtins

    with open_fleet() as fleet:
        found = fleet.recording(group)
    if as_json:
        print_json(to_builtins(found))
    else:
        click.echo(written_policy(found), nl=False)


@policy.command("set")
@click.argument("file", metavar="FILE")
@click.option("--to", "group", metavar="GROUP", required=True, help="GROUP or DEPLOYER/GROUP.")
@waiting_options
@yes_option
@json_option
@common
def set_(*, file: str, group: str, yes: bool, **rest: Any) -> None:  # noqa: ANN401 - handed on
    """Give a group's devices the policy of a file; what they run stays."""
    with open_fleet() as fleet:
        may_go_on(f"Give {group} the policy of {file}?", yes=yes)
        finish(fleet.record(file, to=group), **rest)
