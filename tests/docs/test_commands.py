"""What the pages tell a reader to type exists: commands of the device runtime and their options."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgefleet_runtime.cli import main

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```(?:sh|ini)\n(.*?)```", re.DOTALL)
TYPED = re.compile(r"edgefleet-runtime (engines \w+|\w+)((?: +[^\s#&|]+)*)")
PAGES = sorted((ROOT / "docs").rglob("*.md"))


def typed(page: Path) -> list[tuple[str, tuple[str, ...]]]:
    """Commands and their options, in the order in which the page has them."""
    found = []
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        for command, rest in TYPED.findall(block.replace("\\\n", " ")):
            options = tuple(word for word in rest.split() if word.startswith("--"))
            found.append((command, options))
    return found


TELLING = [page for page in PAGES if typed(page)]


def test_pages_tell_commands() -> None:
    assert {page.stem for page in TELLING} >= {"systemd", "jetson", "raspberry-pi", "coral"}
    assert sum(len(options) for page in TELLING for _, options in typed(page)) > 30


@pytest.mark.parametrize("page", TELLING, ids=[page.stem for page in TELLING])
def test_commands_and_options_exist(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command, options in typed(page):
        with pytest.raises(SystemExit) as ended:
            main([*command.split(), "--help"])
        known = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
        assert ended.value.code == 0
        assert known >= set(options), f"{page.name}: {command}"
