"""``edgefleet doctor``: what is installed, what of it works, what to do about the rest."""

from __future__ import annotations

import sys

import click

from edgefleet.cli.options import common, json_option, profile
from edgefleet.cli.output import print_json, print_table


@click.command()
@json_option
@common
@click.pass_context
def doctor(ctx: click.Context, *, as_json: bool) -> None:
    """Check this machine and its profiles.

    Python, distributions, providers, profiles, accelerators (tried, not only listed), the profile's
    fleet, what you may do there, and its devices. Exits with 1 when something is broken.
    """
    from edgefleet.cli.checks import ERROR, check_all

    checks = []
    for check in check_all(profile()):
        checks.append(check)
        if not as_json and sys.stderr.isatty():
            click.echo(f"\r\x1b[K{check.area}: {check.name}", err=True, nl=False)
    if not as_json and sys.stderr.isatty():
        click.echo("\r\x1b[K", err=True, nl=False)
    broken = [check for check in checks if check.state == ERROR]
    if as_json:
        print_json({"ok": not broken, "checks": [check._asdict() for check in checks]})
    else:
        print_table(
            ("area", "what", "state", "found"),
            [(c.area, c.name, c.state, c.detail) for c in checks],
        )
        cures: dict[str, list[str]] = {}
        for check in checks:
            if check.cure:
                cures.setdefault(check.cure, []).append(check.name)
        click.echo("\nwhat to do:" if cures else "\nnothing to do")
        for cure, names in cures.items():  # one cause shows in many places, and is mended once
            click.echo(f"  {', '.join(dict.fromkeys(names))}: {cure}")
    if broken:
        ctx.exit(1)
