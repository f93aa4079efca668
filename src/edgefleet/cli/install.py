"""``edgefleet install``: what a provider needs on its own side, prepared or taken down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgefleet.cli.documents import dry_run_options, write_documents
from edgefleet.cli.options import common, json_option, open_fleet, yes_option
from edgefleet.cli.output import may_go_on, print_json, print_table

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet.fleet import Fleet
    from edgefleet.interfaces.abilities import CanInstall


@click.command()
@click.option("--provider", metavar="P", help="Only this deployer of the profile; without it all.")
@click.option("--group", metavar="G", help="Only for this group; without it for all.")
@dry_run_options
@click.option("--teardown", is_flag=True, help="Take away what install made, and nothing else.")
@click.option(
    "--data",
    is_flag=True,
    help="With --teardown: delete the fleet's models, state and recordings, too.",
)
@yes_option
@json_option
@common
def install(
    *,
    provider: str | None,
    group: str | None,
    dry_run: bool,
    output: Path | None,
    teardown: bool,
    data: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Prepare a provider's side, or take it down.

    Buckets, roles, the runtime's component, the base deployment: whatever the provider needs before
    the first deployment. The same again changes nothing. Deployers that need none of it are passed
    over, unless --provider names one.
    """
    if teardown and (dry_run or group is not None):
        raise click.UsageError("--teardown goes with neither --dry-run nor --group")
    if data and not teardown:
        raise click.UsageError("--data goes with --teardown")
    with open_fleet() as fleet:
        found = _installable(fleet, provider)
        if dry_run:
            _dry_run(found, group, output, as_json=as_json)
            return
        names = ", ".join(found)
        if teardown and found:
            more = " and delete all models, state and recordings" if data else ""
            may_go_on(f"Take down what was installed for {names}{more}?", yes=yes)
        for deployer in found.values():
            if teardown:
                deployer.uninstall(data=data)
            else:
                deployer.install(group=group)
    done = "taken down" if teardown else "installed"
    if as_json:
        print_json({"deployers": [*found], "group": group, "done": done})
    else:
        click.echo(f"{names}: {done}" if found else "nothing to do: no deployer needs it")


def _installable(fleet: Fleet, provider: str | None) -> dict[str, CanInstall]:
    """The deployers meant, by name.

    Raises:
        NotFoundError: the profile has no such deployer.
        UnsupportedError: there is nothing to install on the one named.
    """
    from edgefleet.capabilities import require
    from edgefleet.errors import NotFoundError
    from edgefleet.interfaces.abilities import CanInstall

    deployers = fleet.deployers
    if provider is not None:
        if provider not in deployers:
            msg = f"profile {fleet.profile.name!r} has no deployer {provider!r}"
            raise NotFoundError(msg, cure=f"deployers there are: {', '.join(deployers)}")
        return {provider: require(deployers[provider], CanInstall)}
    return {name: d for name, d in deployers.items() if isinstance(d, CanInstall)}


def _dry_run(
    found: dict[str, CanInstall], group: str | None, output: Path | None, *, as_json: bool
) -> None:

    documents = [d for one in found.values() for d in one.install_documents(group=group)]
    facts: dict[str, Any] = {"operation": "install", "deployers": [*found], "group": group}
    listed = [{"path": d.path, "action": d.action.value} for d in documents]
    if output is not None:
        listed = write_documents(output, documents, facts)
    if as_json:
        print_json({**facts, "documents": listed})
    else:
        rows = [(d["action"], d["path"]) for d in listed]
        print_table(("action", "document"), rows, empty="nothing to put in place")
