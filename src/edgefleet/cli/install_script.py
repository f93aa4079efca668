"""``edgefleet device install-script``: print what brings the runtime to a plain Linux device."""

from __future__ import annotations

from pathlib import Path

import click

from edgefleet.cli.options import common

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("install-script")
@click.argument("archives", metavar="ARCHIVE...", nargs=-1, required=True, type=_FILE)
@click.option("--gateway", metavar="URL", default="", help="Where devices join and fetch from.")
@click.option(
    "--ca", metavar="FILE", type=_FILE, help="Authority that the gateway's certificate is by, PEM."
)
@common
def install_script(*, archives: tuple[Path, ...], gateway: str, ca: Path | None) -> None:
    """Print the script that installs the runtime on a device.

    For any POSIX shell. It takes the ARCHIVE of the device's platform, one of each, makes a user
    and a confined systemd service, and starts it. A gateway serves such a script by itself.
    """
    from edgefleet.runtime_archive.manifest import archives_in
    from edgefleet.runtime_archive.script import install_script as script

    version, found = archives_in(archives)
    text = script(
        version,
        found,
        gateway=gateway,
        authorities="" if ca is None else ca.read_text(encoding="utf-8"),
    )
    click.echo(text, nl=False)
