"""``edgefleet rollout``: one model version to many groups at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgefleet.cli.documents import dry_run_options, write_documents
from edgefleet.cli.options import cohort_option, common, json_option, open_fleet, yes_option
from edgefleet.cli.output import may_go_on, print_json
from edgefleet.cli.policy import policy_options
from edgefleet.errors import PolicyError

if TYPE_CHECKING:
    from edgefleet.interfaces.policy import RolloutPolicy


@click.command()
@click.argument("ref", metavar="NAME[:VERSION]")
@click.option(
    "--to",
    "groups",
    metavar="GROUP",
    required=True,
    multiple=True,
    help="GROUP or DEPLOYER/GROUP, or a pattern such as 'line-*'; may be repeated.",
)
@cohort_option
@policy_options
@dry_run_options
@yes_option
@json_option
@common
def rollout(
    *,
    ref: str,
    groups: tuple[str, ...],
    cohort_permille: int | None,
    policy: RolloutPolicy | None,
    dry_run: bool,
    output: Path | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Deploy a model version to many groups.

    Prints what would change, group by group, and returns when each group was given its pointer:
    what their devices make of it is told by `edgefleet status`. What it takes grows with the number
    of groups, not of devices. Called again, it goes on with the groups that still lack it.
    """
    with open_fleet() as fleet:
        found = fleet.plan_rollout(
            ref,
            to=groups,
            cohort_permille=cohort_permille,
            policy=policy,
            documents=output is not None,
        )
        facts = found.facts()
        click.echo(str(found), err=as_json)
        if output is not None:
            facts["documents"] = write_documents(output, found.documents, facts)
        if dry_run and as_json:
            print_json({"plan": facts})
        if found.problems:
            listed = "\n".join(f"  {problem}" for problem in found.problems[:8])
            raise PolicyError(
                f"{len(found.problems)} problems stand against it; nothing was sent\n{listed}",
                cure="put right what the problems name, then repeat",
            )
        if dry_run:
            return
        may_go_on(f"Roll out to {len(found.groups)} groups?", yes=yes)
        launch = fleet.roll_out(ref, to=groups, cohort_permille=cohort_permille, policy=policy)
    if as_json:
        print_json({"plan": facts, "launch": launch.facts()})
    else:
        click.echo(str(launch))
