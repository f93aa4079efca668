"""Facts as tables: HTML for a notebook, aligned text for a terminal. Rows are decided elsewhere."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def html_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    caption: str = "",
    shades: Mapping[str, str] | None = None,
) -> str:
    """A plain HTML table; every text is escaped.

    Args:
        columns: their heads.
        rows: their cells.
        caption: above it.
        shades: CSS colour behind each cell that reads just so.
    """
    left = "style='text-align:left'"
    head = "".join(f"<th {left}>{html.escape(column)}</th>" for column in columns)
    styles = {
        text: f"style='text-align:left;color:#222222;background:{shade}'"
        for text, shade in (shades or {}).items()
    }
    body = "".join(
        "<tr>"
        + "".join(
            f"<td {styles.get(text, left)}>{html.escape(text)}</td>" for text in map(str, row)
        )
        + "</tr>"
        for row in rows
    )
    title = f"<caption {left}>{html.escape(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def text_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str = ""
) -> str:
    """An aligned table in plain text, one line a row."""
    cells = [[str(column) for column in columns], *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*([caption] if caption else []), *lines])
