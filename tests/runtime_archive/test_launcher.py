"""Which runtime is started: the one that serves, or one on trial, and not forever."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from edgefleet.runtime_archive import script

LAUNCHER = Path(str(script.__file__)).with_name("launcher.sh")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Two runtimes that say which they are, of which ``old`` serves."""
    for name in ("old", "new"):
        program = tmp_path / "versions" / name / "bin" / "edgefleet-runtime"
        program.parent.mkdir(parents=True)
        program.write_text(f'#!/bin/sh\necho {name} "${{EDGEFLEET_TRIAL-}}" "$@"\n')
        program.chmod(0o755)
    (tmp_path / "current").symlink_to("versions/old")
    return tmp_path


def start(home: Path, *arguments: str, expect: int = 0) -> str:
    done = subprocess.run(
        ["sh", str(LAUNCHER), *arguments],
        env={"PATH": "/usr/bin:/bin", "EDGEFLEET_RUNTIMES": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expect, done.stderr
    return (done.stdout or done.stderr).strip()


def test_what_serves_is_started_with_its_options(home: Path) -> None:
    assert start(home, "run", "--root", "/a b") == "old  run --root /a b"


def test_a_trial_is_started_so_often_and_then_what_served_before(home: Path) -> None:
    (home / "trial").write_text("new 2\n")
    assert start(home, "run") == "new new run"
    assert (home / "trial").read_text() == "new 1\n"
    assert start(home, "run") == "new new run"
    assert start(home, "run") == "old  run"
    assert not (home / "trial").exists()
    assert (home / "reverted").read_text() == "new 0\n"
    assert start(home, "run") == "old  run"


def test_only_a_start_that_serves_counts(home: Path) -> None:
    (home / "trial").write_text("new 1\n")
    assert start(home, "doctor") == "old  doctor"
    assert (home / "trial").read_text() == "new 1\n"


@pytest.mark.parametrize(
    "text",
    ["", "new", "new many\n", "new -1\n", "../versions/new 3\n", ".. 3\n", "gone 3\n", "new 100\n"],
)
def test_a_trial_that_makes_no_sense_is_none(home: Path, text: str) -> None:
    (home / "trial").write_text(text)
    assert start(home, "run") == "old  run"
    assert (home / "reverted").read_text() == text


def test_a_start_that_cant_be_counted_is_no_trial(home: Path) -> None:
    (home / "trial").write_text("new 2\n")
    (home / "trial.new").mkdir()  # as a full disk: nothing can be written there
    assert start(home, "run").endswith("old  run")
    assert (home / "trial").read_text() == "new 2\n"


def test_nothing_to_start_is_told_with_its_cure(home: Path) -> None:
    (home / "current").unlink()
    assert "run the install script again" in start(home, "run", expect=1)
