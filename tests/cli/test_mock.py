"""`edgefleet mock … -- COMMAND`: the command runs unchanged, and nothing is left when it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgefleet.testing.waiting import TIMEOUT_S
from edgefleet_local.processes import birth
from tests.cli.conftest import Run

EDGEFLEET = [sys.executable, "-m", "edgefleet.cli"]
TELL = """\
import json, os
print(json.dumps({"folder": os.getcwd(), **{k: v for k, v in os.environ.items() if "EDGE" in k}}))
raise SystemExit(7)
"""
SCRIPT = """\
import sys
import edgefleet as ef

with ef.connect() as fleet:
    model = fleet.push(sys.argv[1], "tiny", progress=False)
    status = fleet.deploy(model, to="line-3").wait(timeout_s=120, progress=False)
    print(status.attested, *(device.name for device in fleet.devices()))
"""
STAND_BY = """\
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
print(child.pid, flush=True)
child.wait()
"""


def mock(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*EDGEFLEET, "mock", "local", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT_S,
        check=False,
    )


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*EDGEFLEET, "mock", "local", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_the_commands_exit_code_folder_and_profile(tmp_path: Path) -> None:
    done = mock("--state", "kept", "--", sys.executable, "-c", TELL)
    assert done.returncode == 7
    told = json.loads(done.stdout)
    assert told["folder"] == str(tmp_path)
    assert told["EDGEFLEET_PROFILE"] == "mock"
    assert told["EDGEFLEET_CONFIG"] == str(tmp_path / "kept" / "edgefleet.toml")
    assert (tmp_path / "kept" / "edgefleet.toml").is_file()


def test_a_script_runs_unchanged_against_devices(
    onnx_file: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = (sys.executable, "script.py", str(onnx_file()))
    done = mock("--devices", "2", "--group", "line-3", "--log", "--", *command)
    assert done.stdout.split() == ["2", "dev-01", "dev-02"], done.stderr
    assert done.returncode == 0
    assert "deployer.publish line-3" in done.stderr
    assert not (tmp_path / ".edgefleet").exists()


def test_a_command_that_is_not_there_ends_as_a_shell_says_it() -> None:
    done = mock("--", "no-such-command")
    assert done.returncode == 127
    assert "error: no command 'no-such-command'" in done.stderr


def test_a_command_killed_by_a_signal_ends_as_a_shell_says_it() -> None:
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert mock("--", sys.executable, "-c", kill).returncode == 128 + signal.SIGKILL


def test_the_command_line_itself_is_found_without_a_path(tmp_path: Path) -> None:
    beside = Path(sys.executable).parent / "edgefleet"
    if not beside.exists():
        pytest.skip("edgefleet isn't installed beside this Python")
    before = os.environ["PATH"]
    os.environ["PATH"] = str(tmp_path)
    try:
        done = mock("--", "edgefleet", "status")
    finally:
        os.environ["PATH"] = before
    assert "no groups yet" in done.stdout


@pytest.mark.parametrize(
    "number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_a_signal_ends_the_command_with_what_it_started(number: signal.Signals, code: int) -> None:
    with started("--", sys.executable, "-c", STAND_BY) as process:
        child = int(first_line(process))
        process.send_signal(number)
        process.communicate(timeout=90)
        assert process.returncode == code
        assert birth(child) is None


def test_without_a_command_the_mocks_stay_up_and_say_how_they_are_reached() -> None:
    with started("--devices", "1") as process:
        lines = [first_line(process), first_line(process)]
        names = [line.partition("=")[0] for line in lines]
        assert names == ["export EDGEFLEET_CONFIG", "export EDGEFLEET_PROFILE"]
        config = Path(lines[0].partition("=")[2].strip())
        assert config.is_file()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=90)
        assert process.returncode == 143
        assert not config.parent.exists()


def test_an_unknown_mock_cloud_is_said(run: Run) -> None:
    said = run("mock", "nimbus", "--", "true", expect=3).stderr
    assert "no mock cloud 'nimbus' is installed" in said
    assert "name at least one provider" in run("mock", ",", "--", "true", expect=2).stderr
