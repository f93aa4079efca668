"""``edgefleet gateway rotate-authority``: have another key sign from now on."""

# ruff: noqa: PLC0415 - the help needs none of what it takes

from __future__ import annotations

import click

from edgefleet.cli.options import common, json_option, profile, yes_option
from edgefleet.cli.output import may_go_on, print_json


@click.command("rotate-authority")
@click.option(
    "--distrust-old",
    is_flag=True,
    help="Believe the old key no more, because somebody else may have it. Every device has to be "
    "enrolled anew.",
)
@yes_option
@json_option
@common
def rotate(*, distrust_old: bool, yes: bool, as_json: bool) -> None:
    """Give the fleet's authority a new key.

    Run it where a gateway runs, as the user it runs as. The old authority stays believed, so no
    device notices: each learns of the new one when it renews its certificate. Gateways that run
    take it over by themselves; copy the authority's folder to those on other machines first thing.
    """
    from edgefleet.profile import load_profile
    from edgefleet.services import Services
    from edgefleet_gateway.authority import fleet_in, rotate_authority
    from edgefleet_gateway.records import Keys
    from edgefleet_gateway.roster import Roster
    from edgefleet_gateway.server.assembly import settings_in

    services = Services(load_profile(profile()))
    try:
        settings = settings_in(services.profile)
        state, keys = services.state, Keys(settings.prefix)
        folder, fleet = settings.authority_in(services.profile.base), fleet_in(state, keys)
        question = "Have every device enrolled anew?" if distrust_old else "Rotate the key?"
        may_go_on(question, yes=yes)
        authority = rotate_authority(
            folder, state=state, keys=keys, fleet=fleet, keep=not distrust_old
        )
        Roster(lambda: state, keys).ring("authority")
    finally:
        services.close()
    believed = authority.believed.count("BEGIN CERTIFICATE")
    if as_json:
        print_json({"folder": str(folder), "believed": believed, "pins": list(authority.pins)})
    elif distrust_old:
        click.echo(f"a new key in {folder} signs; enrol every device anew, with --replace")
    else:
        click.echo(f"a new key in {folder} signs; {believed} authorities are believed")
