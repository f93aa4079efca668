"""``edgefleet runtime …``: make what devices install the runtime from, and bring it to them."""

from __future__ import annotations

from pathlib import Path

import click

from edgefleet.cli.options import common, help_without_command, json_option
from edgefleet.cli.output import print_json, say
from edgefleet.cli.runtime_upgrade import status, upgrade
from edgefleet.interfaces.amounts import size_text
from edgefleet.runtime_archive.target import EXTRAS, GLIBC, PLATFORMS, PYTHONS

_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.group(invoke_without_command=True)
@common
@click.pass_context
def runtime(ctx: click.Context) -> None:
    """Make the archive of the runtime, and bring it to devices."""
    help_without_command(ctx)


runtime.add_command(upgrade)
runtime.add_command(status)


@runtime.command()
@click.option(
    "--platform", type=click.Choice(PLATFORMS), required=True, help="What the devices are."
)
@click.option(
    "--extra",
    "extras",
    metavar="NAME",
    multiple=True,
    help=f"Of the runtime; any number of times. Without it: {', '.join(EXTRAS)}. 'none' for none.",
)
@click.option(
    "--with",
    "more",
    metavar="REQUIREMENT",
    multiple=True,
    help="More that pip can install, such as the wheel of onnxruntime for a board; any number of "
    "times.",
)
@click.option(
    "--python",
    "pythons",
    type=click.Choice(PYTHONS),
    multiple=True,
    default=("3.11",),
    show_default=True,
    help="What the devices have; any number of times.",
)
@click.option(
    "--glibc",
    metavar="VERSION",
    default=GLIBC,
    show_default=True,
    help="The oldest that the devices have.",
)
@click.option(
    "--wheels",
    metavar="DIR",
    type=_FOLDER,
    help="Take the wheels in this folder, pip's among them, and ask no index.",
)
@click.option(
    "--constraint",
    "constraints",
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Versions to keep to, as pip has them.",
)
@click.option(
    "--output", metavar="DIR", type=_FOLDER, default=Path(), help="Without it: this folder."
)
@json_option
@common
def build(
    *,
    platform: str,
    extras: tuple[str, ...],
    more: tuple[str, ...],
    pythons: tuple[str, ...],
    glibc: str,
    wheels: Path | None,
    constraints: Path | None,
    output: Path,
    as_json: bool,
) -> None:
    """Make the archive of the runtime for a platform.

    It holds wheels of all that the runtime needs, and installs without an index: unpack it, and
    `sh install.sh DIR`. The same wheels make the same bytes.
    """
    from edgefleet.runtime_archive.builder import build as make

    built = make(
        platform,
        extras=() if extras == ("none",) else extras or EXTRAS,
        more=more,
        pythons=pythons,
        glibc=glibc,
        wheels=wheels,
        constraints=constraints,
        output=output,
    )
    if as_json:
        print_json(built.facts())
        return
    about = built.manifest
    say(
        f"the runtime {about.runtime} for {about.platform}, Python {', '.join(about.pythons)}, "
        f"glibc {about.glibc} or newer: {len(about.wheels)} wheels, {size_text(built.size)}"
    )
    say(built.digest)
    click.echo(built.path)
