"""``edgefleet init``: a configuration file to start from, its provider's settings explained."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgefleet.cli.options import common, json_option, profile
from edgefleet.cli.output import print_json

if TYPE_CHECKING:
    from edgefleet.plugins.provider import ProviderSettings

_HEAD = """\
# Profiles of EdgeFleet: which provider serves which role, with which settings.
# Another profile is another table; choose one with --profile or EDGEFLEET_PROFILE.

[profiles.{name}]
provider = "{provider}"  # serves every role that isn't named on its own:
# registry = "{provider}"
# trainer = "{provider}"
# deployers = ["{provider}"]
# telemetry = "{provider}"
# state = "{provider}"
# require_approval = true  # only approved versions deploy
"""


@click.command()
@click.option("--provider", default="local", show_default=True, help="Provider to start with.")
@click.option("--force", is_flag=True, help="Overwrite the file that is there.")
@json_option
@common
def init(*, provider: str, force: bool, as_json: bool) -> None:
    """Write an edgefleet.toml to start from.

    The file goes into the current folder. Every setting of the provider is in it, with its default;
    what you must fill in is marked.
    """
    from edgefleet.errors import AlreadyExistsError
    from edgefleet.plugins import discovery
    from edgefleet.profile import DEFAULT, FILE_NAME

    path = Path.cwd() / FILE_NAME
    name = profile() or DEFAULT
    text = file_text(name, provider, discovery.provider(provider).settings_type)
    try:
        with path.open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        msg = f"{FILE_NAME} is here already"
        raise AlreadyExistsError(msg, cure="edit it, or overwrite it with --force") from error
    if as_json:
        print_json({"config": str(path), "profile": name, "provider": provider})
    else:
        click.echo(f"wrote {FILE_NAME}; check it with: edgefleet doctor")


def file_text(name: str, provider: str, settings_type: type[ProviderSettings]) -> str:
    """The text of a configuration file with one profile."""
    from edgefleet.cli.settings import settings_of

    key = name if name.replace("-", "").replace("_", "").isalnum() else json.dumps(name)
    lines = [_HEAD.format(name=key, provider=provider), f"[profiles.{key}.{provider}]"]
    for setting in settings_of(settings_type):
        lines += textwrap.wrap(
            setting.about, 100, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
        )
        value = "" if setting.default is None else f" = {_toml(setting.default)}"
        if setting.required:
            lines.append(f'{setting.name} = ""  # fill in: {setting.type}')
        else:
            lines.append(f"# {setting.name}{value or ' = …'}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:  # noqa: ANN401 - a default of any setting
    return json.dumps(value if isinstance(value, bool | int | float | list) else str(value))
