"""``edgefleet plan`` and ``deploy``: a diff before anything is sent, then what devices attest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgefleet.cli.documents import dry_run_options, write_documents
from edgefleet.cli.options import cohort_option, common, json_option, open_fleet, yes_option
from edgefleet.cli.output import may_go_on, print_json
from edgefleet.cli.policy import policy_options
from edgefleet.cli.waiting import finish, waiting_options
from edgefleet.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.interfaces.policy import RolloutPolicy
    from edgefleet.protocol.release import Role
    from edgefleet.rollout.plan import Plan

_role_option: Callable[[Any], Any] = click.option(
    "--role",
    type=click.Choice(["active", "shadow"]),
    default="active",
    show_default=True,
    help="shadow: gets copies of the active model's requests; its answers are only compared.",
)


@click.command()
@click.argument("ref")
@click.option("--to", "group", metavar="GROUP", required=True, help="GROUP or DEPLOYER/GROUP.")
@cohort_option
@_role_option
@policy_options
@json_option
@common
@click.pass_context
def plan(
    ctx: click.Context,
    *,
    ref: str,
    group: str,
    cohort_permille: int | None,
    role: Role,
    policy: RolloutPolicy | None,
    as_json: bool,
) -> None:
    """Show what a deployment would do.

    Which device gets which variant, how many bytes, what changes. Sends nothing. Exits with 4 when
    something stands against it.
    """
    with open_fleet() as fleet:
        found = fleet.plan(ref, to=group, cohort_permille=cohort_permille, role=role, policy=policy)
    if as_json:
        print_json(found.facts())
    else:
        click.echo(str(found))
    if found.problems:
        from edgefleet.cli.errors import REFUSED

        ctx.exit(REFUSED)


@click.command()
@click.argument("ref", metavar="NAME[:VERSION]")
@click.option("--to", "group", metavar="GROUP", required=True, help="GROUP or DEPLOYER/GROUP.")
@cohort_option
@_role_option
@policy_options
@dry_run_options
@waiting_options
@yes_option
@json_option
@common
def deploy(
    *,
    ref: str,
    group: str,
    cohort_permille: int | None,
    role: Role,
    policy: RolloutPolicy | None,
    dry_run: bool,
    output: Path | None,
    wait: bool,
    min_attested: float,
    timeout_s: float,
    yes: bool,
    as_json: bool,
) -> None:
    """Deploy a model version to a group.

    Prints the plan first, and goes no further when something stands against it. The group's other
    models stay. Waits until the devices attest that they serve it; a device that rejects it keeps
    what it ran. The same again changes nothing.
    """
    with open_fleet() as fleet:
        found = fleet.plan(ref, to=group, cohort_permille=cohort_permille, role=role, policy=policy)
        facts = found.facts()
        click.echo(str(found), err=as_json)
        if output is not None:
            facts["documents"] = write_documents(output, found.documents, facts)
        if dry_run:
            if as_json:
                print_json({"plan": facts})
            _refuse(found)
            return
        _refuse(found)
        may_go_on(f"Deploy to {found.group}?", yes=yes)
        deployment = fleet.deploy(
            ref, to=group, cohort_permille=cohort_permille, role=role, policy=policy
        )
        finish(
            deployment,
            wait=wait,
            min_attested=min_attested,
            timeout_s=timeout_s,
            as_json=as_json,
            facts={"plan": facts},
        )


def _refuse(found: Plan) -> None:
    """Go no further where something stands against a plan.

    Raises:
        PolicyError: something does.
    """
    if not found.problems:
        return
    unfit = any(device.problem for device in found.devices)
    cure = (
        "make a variant for those devices: edgefleet optimize … --target T; push and deploy that"
        if unfit
        else "put right what the problems name, then deploy again"
    )
    count = len(found.problems)
    noun = "problem stands" if count == 1 else "problems stand"
    listed = "\n".join(f"  {problem}" for problem in found.problems)
    msg = f"{count} {noun} against this deployment; nothing was sent\n{listed}"
    raise PolicyError(msg, cure=cure)
