"""The page about a first evening with one plain Linux device: its commands, in their order.

A gateway runs by the page's command, on loopback; the machine that the printed line is pasted on is
played, because it has no systemd: its runtime enrols with the line's token and runs.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from edgefleet.cli.app import cli
from edgefleet.testing.cloud.ports import HeldPort
from edgefleet.testing.kit import models
from edgefleet.testing.mock import without_proxy
from edgefleet.testing.waiting import eventually
from edgefleet_gateway.cloud.machine import Machine, Told

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/how-to/plain-linux.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", TEXT, re.DOTALL)
LINES = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
TYPED = [line for line in LINES if line.startswith("edgefleet ")]
SERVE = "edgefleet gateway serve --root plant --public --runtime runtime/"


@pytest.mark.parametrize("typed", TYPED)
def test_commands_and_options_exist(typed: str) -> None:
    words = shlex.split(typed)[1:]
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group) and words:
        found = command.get_command(context, words.pop(0))
        assert found is not None
        command = found
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_what_is_installed_has_these_extras() -> None:
    [line] = [line for line in LINES if line.startswith("pip install")]
    where = {"edgefleet": ROOT, "edgefleet-gateway": ROOT / "providers" / "gateway"}
    for requirement in shlex.split(line)[2:]:
        name, _, extra = requirement.rstrip("]").partition("[")
        project = tomllib.loads((where[name] / "pyproject.toml").read_text(encoding="utf-8"))
        assert extra in project["project"]["optional-dependencies"]


class Evening:
    """The computer with its gateway, and the machine beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.machine = Machine(folder / "machines" / "cam-1", "cam-1")
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("EDGEFLEET_")},
            **without_proxy(),
            "HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder),
        }
        self._held = HeldPort()
        self.port = self._held.number
        self._log = (folder / "gateway.log").open("wb")
        words = [sys.executable, "-m", "edgefleet.cli", "gateway", "serve", "--root", "plant"]
        self._gateway = subprocess.Popen(
            [*words, "--port", str(self.port)],
            cwd=folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )

    def said(self) -> str:
        """What the gateway has told."""
        assert self._gateway.poll() is None
        return (self.folder / "gateway.log").read_text(encoding="utf-8")

    def type(self, line: str) -> str:
        """Do what a line of the page says, in the folder that it was told to go to."""
        return self.run([sys.executable, "-m", "edgefleet.cli", *shlex.split(line)[1:]])

    def run(self, words: list[str]) -> str:
        done = subprocess.run(
            words,
            cwd=self.folder / "plant",
            env=self._environment,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def paste(self, line: str) -> None:
        """Have the machine do what the line is for."""
        [token] = re.findall(r"printf %s '?([A-Za-z0-9_-]{20,})'?", line)
        [pins] = re.findall(r"--pinnedpubkey '?(sha256//[^' ]+)'?", line)
        self.machine.join(Told(f"https://localhost:{self.port}", pins, token), {})
        self.machine.start()

    def close(self) -> None:
        self.machine.shut_down()
        self._gateway.terminate()
        self._gateway.wait()
        self._log.close()
        self._held.close()


@pytest.fixture
def evening(tmp_path: Path) -> Iterator[Evening]:
    made = Evening(tmp_path)
    yield made
    made.close()


def test_the_evening_ends_with_a_device_that_serves(evening: Evening) -> None:
    assert any(line.startswith(SERVE) for line in LINES)
    eventually(lambda: "enrol the first device" in evening.said())
    models.write_model(evening.folder / "plant" / "model.onnx", 1)
    after = [line for _, block in BLOCKS if SERVE not in block for line in block.splitlines()]
    typed = [line for line in after[after.index("cd plant") :] if line.startswith("edgefleet ")]
    assert len(typed) == 8
    told = {}
    for line in typed:
        told[line] = evening.type(line)
        if "device enroll" in line:
            evening.paste(told[line])
    assert "cam-1" in told["edgefleet devices"]
    assert "1/1 attested" in told["edgefleet status kitchen"]
    assert "attested" in told["edgefleet why cam-1"]
    [(_, program)] = [block for block in BLOCKS if block[0] == "python"]
    assert "scores" in evening.run([sys.executable, "-c", program])
