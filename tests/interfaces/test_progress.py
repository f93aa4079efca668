"""What shows progress: something where a person looks, nothing elsewhere."""

from __future__ import annotations

import builtins
import io
import sys
from contextlib import redirect_stderr
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from edgefleet.interfaces.progress import Bytes, Status, Steps, someone_looks

if TYPE_CHECKING:
    from collections.abc import Callable


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    return Terminal()


def test_steps_show_each_text_how_many_are_done_and_the_time_since(terminal: Terminal) -> None:
    with redirect_stderr(terminal), Steps("digits: reading", 3) as step:
        step.update("digits: 1/2 int8: calibrating [a]")
        step()
        step.update("digits: 2/2 fp16")
        step()
    shown = terminal.getvalue()
    for part in ("1/2 int8: calibrating [a]", "2/2 fp16", "1/3", "2/3", "0:00:0"):
        assert part in shown


@pytest.mark.parametrize(
    "show",
    [
        lambda on: Steps("steps", 2, enabled=on),
        lambda on: Bytes("bytes", 2, enabled=on),
        lambda on: Status("status", enabled=on),
    ],
    ids=["steps", "bytes", "status"],
)
def test_it_is_silent_when_it_is_told_to_be(
    terminal: Terminal, show: Callable[[bool], Steps | Status | Bytes]
) -> None:
    with redirect_stderr(terminal), show(False) as shown:
        if not isinstance(shown, Bytes):
            shown.update("another")
    assert terminal.getvalue() == ""


def test_it_is_silent_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))  # loaded, not running
    pipe = io.StringIO()
    with redirect_stderr(pipe), Steps("digits", 1) as step:
        step.update("digits: 1/1 int8")
        step()
    assert pipe.getvalue() == ""


def test_a_notebook_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    shell = type("ZMQInteractiveShell", (), {})
    monkeypatch.setattr(builtins, "get_ipython", shell, raising=False)
    with redirect_stderr(io.StringIO()):
        assert someone_looks()


def test_bytes_show_how_many_there_are(terminal: Terminal) -> None:
    with redirect_stderr(terminal), Bytes("packing", 2_000_000) as advance:
        advance(1_000_000)
    assert "2.0 MB" in terminal.getvalue()
