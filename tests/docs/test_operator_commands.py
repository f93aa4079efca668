"""What README and pages tell an operator to type exists: commands of `edgefleet` and their options.

In blocks and between the words, on pages of providers, too.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from edgefleet.cli.app import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
WRITTEN = re.compile(r"```(?:sh|text|yaml|ini)\n(.*?)```|`(edgefleet [^`]+)`", re.DOTALL)
TYPED = re.compile(r"(?:^|[\s$(])edgefleet((?:[ \t]+[^\s#&|;)]+)+)", re.MULTILINE)
NAME = re.compile(r"[a-z][a-z-]*")  # of a command; … and GROUP stand for something
PAGES = [
    ROOT / "README.md",
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if page.name != "cli.md"),
    *sorted((ROOT / "providers").glob("*/*.md")),
]


def typed(page: Path) -> Iterator[list[str]]:
    """The words behind each ``edgefleet`` on a page."""
    for block, inline in WRITTEN.findall(page.read_text(encoding="utf-8")):
        for rest in TYPED.findall((block or inline).replace("\\\n", " ")):
            yield rest.split()


def strange(words: list[str]) -> list[str]:
    """Words that are no command where one is due, and options that no command there takes."""
    command: click.Command = cli
    context = click.Context(cli)
    known, options, found = _options(cli), list[str](), list[str]()
    for before, word in zip(["", *words], words, strict=False):
        if word == "--":  # what follows is somebody else's command
            break
        if word.startswith("-"):
            options.append(word.partition("=")[0])
        elif isinstance(command, click.Group) and not before.startswith("-"):
            inner = command.get_command(context, word) if NAME.fullmatch(word) else None
            if inner is None:
                found += [word] if NAME.fullmatch(word) else []
                break
            command = inner
            known |= _options(inner)
    return [*found, *(option for option in options if option not in known)]


def _options(command: click.Command) -> set[str]:
    names = (name for each in command.params for name in (*each.opts, *each.secondary_opts))
    return {"-h", "--help", *names}


TELLING = [page for page in PAGES if any(typed(page))]


def test_what_does_not_exist_is_noticed() -> None:
    assert strange(["loop", "run", "loop.yaml", "--now"]) == []
    assert strange(["--profile", "a", "drift", "digits", "--since", "1w"]) == []
    assert strange(["loop", "walk"]) == ["walk"]
    assert strange(["drift", "digits", "--sense", "1w"]) == ["--sense"]


def test_pages_tell_commands() -> None:
    assert {page.stem for page in TELLING} >= {"README", "close-the-loop", "rules-and-alarms"}
    assert sum(1 for page in TELLING for _ in typed(page)) > 200


@pytest.mark.parametrize("page", TELLING, ids=[str(page.relative_to(ROOT)) for page in TELLING])
def test_commands_and_options_exist(page: Path) -> None:
    told = {" ".join(words): found for words in typed(page) if (found := strange(words))}
    assert not told
