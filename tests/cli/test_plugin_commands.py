"""Commands that plugins bring: in the help, run like ours, and broken ones harm nobody else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from edgefleet.cli import lazy
from edgefleet.cli.app import cli

if TYPE_CHECKING:
    from pathlib import Path

SOUND = """
import click

@click.command()
def sound():
    "Say that it works."
    click.echo("it works")
"""


@pytest.fixture
def brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A distribution with a sound command, one that can't be imported and one that is none."""
    monkeypatch.syspath_prepend(str(tmp_path))
    tmp_path.joinpath("a_sound_command.py").write_text(SOUND)
    tmp_path.joinpath("a_broken_command.py").write_text("import a_library_that_is_missing\n")
    about = tmp_path / "brought-1.2.dist-info"
    about.mkdir()
    about.joinpath("METADATA").write_text("Name: brought\nVersion: 1.2\n")
    points = (
        f"[{lazy.COMMANDS}]",
        "sound = a_sound_command:sound",
        "broken = a_broken_command:broken",
        "askew = a_sound_command:click",
        "status = a_sound_command:sound",
    )
    about.joinpath("entry_points.txt").write_text("\n".join(points))
    return tmp_path


@pytest.mark.usefixtures("brought")
def test_a_plugin_s_command_runs_and_stands_in_the_help() -> None:
    assert CliRunner().invoke(cli, ["sound"]).stdout == "it works\n"
    assert "sound" in CliRunner().invoke(cli, ["--help"]).stdout
    assert "Say that it works." in CliRunner().invoke(cli, ["--help"]).stdout


@pytest.mark.usefixtures("brought")
@pytest.mark.parametrize(
    "name, said",
    [
        ("broken", "command 'broken' (brought 1.2) fails to import: ModuleNotFoundError"),
        ("askew", "command 'askew' (brought 1.2) is no click command"),
    ],
)
def test_a_broken_command_harms_only_who_asks_for_it(name: str, said: str) -> None:
    result = CliRunner().invoke(cli, [name])
    assert result.exit_code == 1
    assert said in result.stderr
    assert "upgrade brought" in result.stderr
    shown = CliRunner().invoke(cli, ["--help"])
    assert shown.exit_code == 0
    assert "(broken)" in shown.stdout
    assert CliRunner().invoke(cli, ["sound"]).exit_code == 0


@pytest.mark.usefixtures("brought")
def test_no_plugin_takes_the_place_of_a_command_of_ours() -> None:
    assert isinstance(cli, lazy.LazyGroup)
    command = cli.get_command(click.Context(cli), "status")
    assert command is not None
    assert command.callback is not None
    assert command.callback.__module__ == "edgefleet.cli.status"
