"""The page about enrolment says what the commands do."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from edgefleet.cli.app import cli
from edgefleet.cli.device_list import read_list
from edgefleet.interfaces.inviting import LASTS, LONGEST
from edgefleet_gateway.settings import GatewaySettings

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "enroll-devices.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(sh|text)\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = re.findall(
    r"edgefleet (?!runtime)((?:device|gateway)[^\n;>`]*)",
    "\n".join(b for k, b in BLOCKS if k == "sh"),
)


@pytest.mark.parametrize("typed", COMMANDS)
def test_commands_and_options_exist(typed: str) -> None:
    words = shlex.split(typed)
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group):
        found = command.get_command(context, words.pop(0))
        assert found is not None
        command = found
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_the_page_tells_commands() -> None:
    assert len(COMMANDS) > 6


def test_the_list_is_one(tmp_path: Path) -> None:
    (source,) = [block for kind, block in BLOCKS if kind == "text"]
    (tmp_path / "devices.csv").write_text(source)
    lines = read_list(tmp_path / "devices.csv", None)
    assert [(one.name, one.group, one.labels, one.wrong) for one in lines] == [
        ("cam-01", "line-1", {"site": "north"}, ""),
        ("cam-02", "line-1", {"site": "north"}, ""),
        ("cam-03", "line-2", {"site": "south"}, ""),
    ]


def test_the_figures_are_those_of_the_code() -> None:
    settings = GatewaySettings()
    assert f"`device_days` ({settings.device_days})" in TEXT
    assert f"`renew_days` ({settings.renew_days})" in TEXT
    assert f"(`{settings.authority}`)" in TEXT
    assert f"{LONGEST.days} days at most" in TEXT
    assert LASTS.total_seconds() == 3600
    assert settings.look_s == 1
