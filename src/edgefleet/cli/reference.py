"""The command line's reference as Markdown, written from the commands themselves.

``python -m edgefleet.cli.reference > docs/reference/cli.md``; a test holds that file against it.
"""

from __future__ import annotations

import inspect
import re
import sys
from typing import TYPE_CHECKING, Any

import click

from edgefleet.cli.app import cli
from edgefleet.cli.errors import EXIT_CODES
from edgefleet.cli.lazy import LazyGroup

if TYPE_CHECKING:
    from collections.abc import Iterator

_VALUES = {
    "integer": "N",
    "integer range": "N",
    "float": "X",
    "float range": "X",
    "directory": "DIR",
}
_SHARED = frozenset({"--profile", "--verbose", "--help"})

_HEAD = """\
# Command line

<!-- Made by `python -m edgefleet.cli.reference`; don't edit. -->

Every command takes `--profile NAME` (without it `EDGEFLEET_PROFILE`, or else the default profile),
`--verbose` and `--help`, before or behind it. Facts go to standard output, everything else to
standard error; with `--json` standard output holds JSON and nothing else.

## Exit codes

| code | meaning |
|---|---|
"""


def render() -> str:
    """The whole reference."""
    codes = "".join(f"| {code} | {meaning} |\n" for code, meaning in EXIT_CODES.items())
    parts = [_HEAD + codes + "\n`edgefleet mock … -- COMMAND` exits with COMMAND's own code.\n"]
    assert isinstance(cli, LazyGroup)  # noqa: S101 - for the type checker
    for title, entries in cli.sections.items():
        parts.append(f"## {title}\n")
        parts += [text for name in entries for text in _command(cli, name, "edgefleet")]
    brought = [name for name in cli.list_commands(click.Context(cli)) if name not in cli.entries]
    parts += ["## Commands of plugins\n"] if brought else []
    parts += [text for name in brought for text in _command(cli, name, "edgefleet")]
    return "\n".join(parts)


def _command(group: click.Group, name: str, above: str) -> Iterator[str]:
    context = click.Context(group, info_name=above)
    command = group.get_command(context, name)
    if command is None or command.hidden:
        return
    path = f"{above} {name}"
    pieces = " ".join(command.collect_usage_pieces(click.Context(command, info_name=path)))
    yield f"### {path}\n"
    yield f"```text\n{path} {pieces}\n```\n"
    yield f"{_paragraphs(command.help or '')}\n"
    rows = [row for param in command.params if (row := _option(param)) is not None]
    if rows:
        yield "| option | meaning |\n|---|---|\n" + "\n".join(rows) + "\n"
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            yield from _command(command, child, path)


def _paragraphs(text: str) -> str:
    """A command's help; what it marks as preformatted becomes a code block."""
    found = []
    for part in inspect.cleandoc(text).split("\n\n"):
        if part.startswith("\b\n"):
            found.append(f"```sh\n{part[2:]}\n```")
        else:
            found.append(part)
    return "\n\n".join(found)


def _option(param: click.Parameter) -> str | None:
    if not isinstance(param, click.Option) or _SHARED & {*param.opts}:
        return None
    names = ", ".join(f"`{name}`" for name in (*param.opts, *param.secondary_opts))
    takes = "" if param.is_flag else f" {param.metavar or _type_text(param.type)}"
    about = re.sub(r"\s+", " ", param.help or "")
    if param.required:
        about += " Required."
    if param.show_default and param.default is not None and not callable(param.default):
        default = param.default
        if param.secondary_opts:
            default = (param.opts if default else param.secondary_opts)[0]
        about += f" Default: `{default}`."
    return f"| {names}{takes} | {about} |".replace("<", "&lt;")


def _type_text(kind: click.ParamType[Any]) -> str:
    if isinstance(kind, click.Choice):
        return " or ".join(map(str, kind.choices))
    return _VALUES.get(kind.name, kind.name.upper())


if __name__ == "__main__":
    sys.stdout.write(render())
