"""A command group that imports a command when it is asked for, and prints its help from a table."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from collections.abc import Mapping


class Entry(NamedTuple):
    """Where a command lives, and its line in the help; a test holds the line against the command.

    Attributes:
        home: ``module:attribute``.
        about: what ``edgefleet --help`` says of it.
    """

    home: str
    about: str


class LazyGroup(click.Group):
    """A group whose commands lie in modules of their own.

    Args:
        sections: title -> command name -> entry, in the order of the help.
        options: those of `click.Group`.
    """

    def __init__(self, sections: Mapping[str, Mapping[str, Entry]], **options: Any) -> None:  # noqa: ANN401 - click's own
        super().__init__(**options)
        self.sections = sections
        self.entries = {name: e for part in sections.values() for name, e in part.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.entries]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self.entries.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.home.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.entries))
        for title, entries in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), e.about) for name, e in entries.items()])
