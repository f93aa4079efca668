"""A command group that imports a command when it is asked for, and prints its help from a table."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from edgefleet.errors import PluginImportError
from edgefleet.plugins.entries import entry_points

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.metadata import EntryPoint

COMMANDS = "edgefleet.commands"
"""Entry points of plugins that are click commands of this command line."""


class Entry(NamedTuple):
    """Where a command lives, and its line in the help; a test holds the line against the command.

    Attributes:
        home: ``module:attribute``.
        about: what ``edgefleet --help`` says of it.
    """

    home: str
    about: str


class LazyGroup(click.Group):
    """A group whose commands lie in modules of their own, and in plugins.

    Args:
        sections: title -> command name -> entry, in the order of the help.
        options: those of `click.Group`.
    """

    def __init__(self, sections: Mapping[str, Mapping[str, Entry]], **options: Any) -> None:  # noqa: ANN401 - click's own
        super().__init__(**options)
        self.sections = sections
        self.entries = {name: e for part in sections.values() for name, e in part.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.entries, *self._of_plugins()]

    def _of_plugins(self) -> dict[str, EntryPoint]:
        """By name, without importing any; none takes the place of one of ours."""
        found = sorted(entry_points(group=COMMANDS), key=lambda point: point.name)
        return {point.name: point for point in found if point.name not in self.entries}

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self.entries.get(cmd_name)
        if entry is None:
            point = self._of_plugins().get(cmd_name)
            return None if point is None else _brought(point)
        module, _, attribute = entry.home.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:  # click looks for what is near among what is imported
            near = get_close_matches(args[0], self.list_commands(ctx))
            if not near:
                raise
            msg = f"{error.message} Did you mean {' or '.join(map(repr, near))}?"
            raise click.UsageError(msg, ctx=error.ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.entries))
        for title, entries in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), e.about) for name, e in entries.items()])
        brought = [(name.ljust(width), self._about(ctx, name)) for name in self._of_plugins()]
        if brought:
            with formatter.section("Plugins"):
                formatter.write_dl(brought)

    def _about(self, ctx: click.Context, name: str) -> str:
        """A plugin's line in the help; one that can't be imported harms nobody else."""
        try:
            command = self.get_command(ctx, name)
        except PluginImportError as error:
            return f"(broken) {error.message}"
        return "" if command is None else command.get_short_help_str(limit=80)


def _brought(point: EntryPoint) -> click.Command:
    """The command of a plugin.

    Raises:
        PluginImportError: it fails to import, or is no command.
    """
    origin = point.value if point.dist is None else f"{point.dist.name} {point.dist.version}"
    try:
        command = point.load()
    except Exception as error:  # a plugin may fail in any way; it harms only who asked for it
        raise PluginImportError(
            f"command {point.name!r} ({origin}) fails to import: {type(error).__name__}: {error}",
            cure=f"reinstall or upgrade {origin.split()[0]}",
        ) from error
    if not isinstance(command, click.Command):
        raise PluginImportError(
            f"command {point.name!r} ({origin}) is no click command",
            cure=f"upgrade {origin.split()[0]}",
        )
    return command
