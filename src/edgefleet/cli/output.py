"""What goes where: facts on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime


def print_json(facts: Mapping[str, Any] | Sequence[Any]) -> None:
    """Facts as JSON, nothing else."""
    click.echo(json.dumps(facts, indent=2, ensure_ascii=False))


def print_json_line(facts: Mapping[str, Any]) -> None:
    """Facts as JSON on one line, for streams."""
    click.echo(json.dumps(facts, ensure_ascii=False))
    sys.stdout.flush()


def say(text: str) -> None:
    """A diagnostic, on standard error."""
    click.echo(text, err=True)


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    caption: str = "",
    empty: str = "none",
) -> None:
    """A table: drawn on a terminal, aligned plain text anywhere else."""
    if not rows:
        click.echo(f"{caption}: {empty}" if caption else empty)
    elif sys.stdout.isatty():
        _draw(columns, rows, caption)
    else:
        from edgefleet.interfaces.tables import text_table

        click.echo(text_table(columns, rows, caption=caption))


_COLOURS = {
    "attested": "green",
    "approved": "green",
    "ok": "green",
    "succeeded": "green",
    "pending": "yellow",
    "warning": "yellow",
    "running": "yellow",
    "failed": "red",
    "rejected": "red",
    "error": "red",
}


def _draw(columns: Sequence[str], rows: Sequence[Sequence[object]], caption: str) -> None:
    try:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError as error:
        from edgefleet.errors import MissingExtraError

        raise MissingExtraError(
            "tables need rich",
            cure="install it with: pip install 'edgefleet[cli]', or ask for --json",
        ) from error

    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False, title_justify="left")
    if caption:
        table.title = Text(caption, style="bold")
    for row in rows:
        table.add_row(*(Text(text, style=_COLOURS.get(text, "")) for text in map(str, row)))
    Console().print(table)


def when(moment: datetime | None) -> str:
    """A time for people, in UTC; ``never`` for none."""
    if moment is None:
        return "never"
    from datetime import UTC

    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def may_go_on(question: str, *, yes: bool) -> None:
    """Ask where a person can answer; scripts go on. After a no the command ends as a failure."""
    if yes or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    if not click.confirm(question, err=True):
        say("nothing was done")
        click.get_current_context().exit(1)
