"""``edgefleet remove``, ``promote``, ``cancel``, ``rollback``: to releases already known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgefleet.cli.options import common, json_option, open_fleet, yes_option
from edgefleet.cli.output import may_go_on
from edgefleet.cli.policy import policy_options
from edgefleet.cli.waiting import finish, waiting_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.deployment import Deployment
    from edgefleet.fleet import Fleet
    from edgefleet.interfaces.policy import RolloutPolicy


@click.command()
@click.argument("name")
@click.option("--to", "group", metavar="GROUP", required=True, help="GROUP or DEPLOYER/GROUP.")
@waiting_options
@yes_option
@json_option
@common
def remove(*, name: str, group: str, yes: bool, **rest: Any) -> None:  # noqa: ANN401 - handed on
    """Take a model out of a group's release.

    Its other models stay.
    """
    question = f"Take {name} out of {group}?"
    _step(lambda fleet: fleet.remove(name, to=group), question, yes=yes, **rest)


@click.command()
@click.argument("group")
@policy_options
@waiting_options
@yes_option
@json_option
@common
def promote(
    *,
    group: str,
    policy: RolloutPolicy | None,
    yes: bool,
    **rest: Any,  # noqa: ANN401 - handed on
) -> None:
    """Give a cohort's release to every device."""
    question = f"Give the candidate to all of {group}?"
    _step(lambda fleet: fleet.promote(group, policy=policy), question, yes=yes, **rest)


@click.command()
@click.argument("group")
@waiting_options
@yes_option
@json_option
@common
def cancel(*, group: str, yes: bool, **rest: Any) -> None:  # noqa: ANN401 - handed on
    """Take a cohort's release back.

    Without one: go back to the release before, as `edgefleet rollback` does.
    """
    question = f"Take back what {group} tries?"
    _step(lambda fleet: fleet.cancel(group), question, yes=yes, **rest)


@click.command()
@click.argument("group")
@waiting_options
@yes_option
@json_option
@common
def rollback(*, group: str, yes: bool, **rest: Any) -> None:  # noqa: ANN401 - handed on
    """Go back to a group's release before.

    By a new, higher pointer to that release; once more goes further back.
    """
    question = f"Roll {group} back?"
    _step(lambda fleet: fleet.rollback(group), question, yes=yes, **rest)


def _step(
    step: Callable[[Fleet], Deployment],
    question: str,
    *,
    yes: bool,
    wait: bool,
    min_attested: float,
    timeout_s: float,
    as_json: bool,
) -> None:
    with open_fleet() as fleet:
        may_go_on(question, yes=yes)
        finish(
            step(fleet),
            wait=wait,
            min_attested=min_attested,
            timeout_s=timeout_s,
            as_json=as_json,
        )
