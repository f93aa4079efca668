"""What the demo says while it goes: each step as the Python line that a user would write."""

from __future__ import annotations

import textwrap

import click

_WIDTH = 92


class Narrator:
    """Prints a story.

    Args:
        to_stderr: leave standard output to the facts.
    """

    def __init__(self, *, to_stderr: bool) -> None:
        self._to_stderr = to_stderr

    def chapter(self, title: str) -> None:
        """A new part of the story."""
        self._print(f"\n{click.style(title, bold=True)}")

    def code(self, *lines: str) -> None:
        """Lines of Python that are run now."""
        for line in lines:
            self._print(f"{click.style('>>>', fg='cyan')} {line}")

    def note(self, text: str) -> None:
        """What came of it."""
        for line in textwrap.wrap(text, _WIDTH, break_on_hyphens=False):
            self._print(f"    {line}")

    def table(self, text: str) -> None:
        """Lines that are aligned already."""
        self._print(textwrap.indent(text, "    "))

    def _print(self, text: str) -> None:
        click.echo(text, err=self._to_stderr)
