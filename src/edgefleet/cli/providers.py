"""``edgefleet providers``: what is installed, and what one provider offers and asks for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgefleet.cli.options import common, json_option, profile
from edgefleet.cli.output import print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefleet.plugins.provider import Provider, Role


def _names(_ctx: click.Context, _option: click.Parameter, incomplete: str) -> list[str]:
    from edgefleet.plugins import discovery

    return [name for name in discovery.names() if name.startswith(incomplete)]


@click.command()
@click.argument("name", required=False, shell_complete=_names)
@json_option
@common
def providers(*, name: str | None, as_json: bool) -> None:
    """List providers, or show one of them.

    With NAME: the roles it serves, what it can do beyond them, and every setting that a profile may
    give it.
    """
    if name is None:
        _print_all(as_json=as_json)
        return
    facts = provider_facts(name)
    if as_json:
        print_json(facts)
        return
    click.echo(f"{name} ({facts['distribution'] or 'unknown distribution'})")
    click.echo(f"  mock cloud: {'yes' if facts['mock'] else 'no'}\n")
    print_table(
        ("role", "beyond what every provider can"),
        [
            (role, _abilities_text(can, facts["problems"].get(role)))
            for role, can in facts["roles"].items()
        ],
    )
    click.echo()
    print_table(
        ("setting", "type", "default", "about"),
        [
            (s["name"], s["type"], "required" if s["required"] else _text(s["default"]), s["about"])
            for s in facts["settings"]
        ],
        caption=f"[profiles.NAME.{name}]",
    )


def _print_all(*, as_json: bool) -> None:
    from edgefleet.plugins import discovery

    mocks = discovery.names(discovery.MOCKS)
    rows = [
        {
            "name": name,
            "distribution": discovery.distribution_of(name),
            "mock": name in mocks,
        }
        for name in discovery.names()
    ]
    if as_json:
        print_json({"providers": rows})
        return
    print_table(
        ("provider", "distribution", "mock cloud"),
        [(r["name"], r["distribution"] or "?", "yes" if r["mock"] else "no") for r in rows],
        empty="no provider is installed; start with: pip install 'edgefleet[local]'",
    )


def provider_facts(name: str) -> dict[str, Any]:
    """Everything that `edgefleet providers NAME` prints.

    Raises:
        ProviderNotFoundError: none of that name is installed.
        PluginImportError: it fails to import.
    """
    from edgefleet.cli.settings import settings_of
    from edgefleet.plugins import discovery

    provider = discovery.provider(name)
    problems: dict[str, str] = {}
    roles = {role.value: _abilities(provider, role, problems) for role in _ordered(provider)}
    return {
        "name": name,
        "distribution": discovery.distribution_of(name),
        "mock": name in discovery.names(discovery.MOCKS),
        "roles": roles,
        "problems": problems,
        "settings": [setting._asdict() for setting in settings_of(provider.settings_type)],
    }


def _ordered(provider: Provider) -> list[Role]:
    return [role for role in type(next(iter(provider.roles))) if role in provider.roles]


def _abilities(provider: Provider, role: Role, problems: dict[str, str]) -> list[str] | None:
    """What a service of that role can do beyond the role; None where that needs settings.

    Services are built, which contacts nobody: whether a thing can be done is a type. Why one can't
    be built, though there are settings, goes to ``problems``.
    """
    from pydantic import ValidationError

    from edgefleet.capabilities import abilities_of
    from edgefleet.errors import EdgeFleetError
    from edgefleet.plugins import discovery
    from edgefleet.plugins.provider import Context
    from edgefleet.profile import first_problem, load_profile

    try:
        loaded = load_profile(profile())
        table, base = loaded.settings.get(provider.name, {}), loaded.base
    except EdgeFleetError:  # a broken profile: `edgefleet doctor` tells
        table, base = {}, Path.cwd()
    try:
        settings = provider.settings_type.model_validate(table)
    except ValidationError as error:
        if table:
            problems[role.value] = f"[….{provider.name}]: {first_problem(error)}"
        return None
    context = Context(base=base, name=provider.name, state=lambda: None)
    try:
        service = discovery.service_of(provider, role, settings, context)
    except Exception as error:  # noqa: BLE001 - whatever a vendor's library raises
        problems[role.value] = error.message if isinstance(error, EdgeFleetError) else str(error)
        return None
    try:
        return list(abilities_of(service))
    finally:
        service.close()


def _abilities_text(abilities: Sequence[str] | None, problem: str | None) -> str:
    if abilities is None:
        return f"unknown: {problem or 'needs its settings in the profile'}"
    return ", ".join(abilities) or "-"


def _text(value: object) -> str:
    return "-" if value is None else str(value)
