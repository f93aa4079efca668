"""The archive's own installer: no index, no pip of the device's, all or nothing."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edgefleet.runtime_archive.builder import Built
from tests.runtime_archive.machine import OFFLINE as NO_INDEX
from tests.runtime_archive.machine import without_a_network

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="devices have Linux"),
]

OFFLINE = {
    "PATH": f"{Path(sys.executable).resolve().parent}:/usr/bin:/bin",
    **NO_INDEX,
    "https_proxy": "http://127.0.0.1:9",
}


@pytest.fixture
def unpacked(small: Built, tmp_path: Path) -> Path:
    folder = tmp_path / "unpacked"
    folder.mkdir()
    subprocess.run(["tar", "-xzf", small.path, "-C", folder], check=True)
    return folder


def install(
    unpacked: Path, to: Path, *, expect: int = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*without_a_network(), "sh", str(unpacked / "install.sh"), str(to)],
        env={**OFFLINE, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def version(folder: Path) -> str:
    done = subprocess.run(
        [str(folder / "bin" / "edgefleet-runtime"), "--version"],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def python_that(tmp_path: Path, script: str) -> str:
    """A PATH whose python3 is another."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "python3"
    program.write_text(f'#!/bin/sh\n{script}\nexec "{Path(sys.executable).resolve()}" "$@"\n')
    program.chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


def test_it_installs_without_an_index_and_once(unpacked: Path, tmp_path: Path) -> None:
    to = tmp_path / "a runtime"
    assert install(unpacked, to).stdout == "edgefleet-runtime 0.1.0\n"
    assert version(to) == "edgefleet-runtime 0.1.0"
    assert not list(to.glob("lib/*/site-packages/pip"))
    before = (to / "manifest.json").stat().st_mtime_ns
    assert install(unpacked, to).stdout == ""
    assert (to / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.skipif(shutil.which("flock") is None, reason="there is no flock here")
def test_two_at_once_take_turns(unpacked: Path, tmp_path: Path) -> None:
    """If they don't, one removes what the other is making, and both may call it whole."""
    to = tmp_path / "versions" / "one"
    to.parent.mkdir()
    other = os.open(to.parent, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    command = ["sh", str(unpacked / "install.sh"), str(to)]
    with subprocess.Popen(command, env=OFFLINE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        assert said == f"waiting for another installation in {to.parent}\n"
        to.mkdir()
        shutil.copy(unpacked / "manifest.json", to)  # which the other has done last
        os.close(other)
        assert process.wait(60) == 0
    assert [path.name for path in to.iterdir()] == ["manifest.json"]  # it was there already


@pytest.mark.parametrize("lacks", ["import venv", "-m venv"], ids=["no module", "a broken one"])
def test_a_python_that_makes_no_environments_does_as_well(
    unpacked: Path, tmp_path: Path, lacks: str
) -> None:
    path = python_that(tmp_path, f'case "$*" in *"{lacks}"*) exit 1 ;; esac')
    install(unpacked, tmp_path / "runtime", PATH=path)
    assert version(tmp_path / "runtime") == "edgefleet-runtime 0.1.0"
    assert (tmp_path / "runtime" / "site" / "edgefleet_runtime").is_dir()


def test_settings_of_the_devices_own_pip_count_for_nothing(unpacked: Path, tmp_path: Path) -> None:
    config = tmp_path / "pip.conf"
    config.write_text("[global]\nuser = true\ntarget = /nowhere\nrequire-virtualenv = true\n")
    install(unpacked, tmp_path / "runtime", PIP_CONFIG_FILE=str(config), PIP_TARGET="/nowhere")
    assert version(tmp_path / "runtime") == "edgefleet-runtime 0.1.0"


def test_a_changed_wheel_is_refused_and_leaves_nothing(unpacked: Path, tmp_path: Path) -> None:
    wheel = unpacked / "wheels" / "edgefleet-0.1.0-py3-none-any.whl"
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    said = install(unpacked, tmp_path / "runtime", expect=1).stderr
    assert "DO NOT MATCH THE HASHES" in said
    assert not (tmp_path / "runtime").exists()


def test_no_python_that_fits_is_told_of_each(unpacked: Path, tmp_path: Path) -> None:
    path = python_that(tmp_path, 'case "$*" in *device_check*) echo "too old"; exit 1 ;; esac')
    said = install(unpacked, tmp_path / "runtime", expect=1, EDGEFLEET_PYTHON="python3", PATH=path)
    assert "no Python here can run this runtime" in said.stderr
    assert f"{tmp_path}/bin/python3: too old" in said.stderr
    said = install(unpacked, tmp_path / "runtime", expect=1, EDGEFLEET_PYTHON="python-9")
    assert "there is none at all: install python3" in said.stderr
    assert not (tmp_path / "runtime").exists()


def test_a_folder_of_something_else_stays(unpacked: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter").write_text("mine")
    assert "holds something else" in install(unpacked, tmp_path / "home", expect=1).stderr
    assert (tmp_path / "home" / "letter").read_text() == "mine"


def test_what_was_interrupted_leaves_nothing_and_what_was_killed_is_done_again(
    unpacked: Path, tmp_path: Path
) -> None:
    to = tmp_path / "runtime"
    for number, left in ((signal.SIGTERM, False), (signal.SIGKILL, True)):
        hook = tmp_path / f"hook-{int(number)}"
        hook.mkdir()
        ends = f'case "$*" in *"-m venv"*) mkdir -p "{to}/bin"; kill -{int(number)} $PPID ;; esac'
        said = install(
            unpacked,
            to,
            expect=143 if number == signal.SIGTERM else -9,
            PATH=python_that(hook, ends),
        )
        assert said.stdout == ""
        assert to.exists() == left
    install(unpacked, to)
    assert version(to) == "edgefleet-runtime 0.1.0"


@pytest.mark.parametrize("step", ["cp", "sync", "mv", "rm"])
def test_killed_at_the_last_steps_it_is_done_again(
    unpacked: Path, tmp_path: Path, step: str
) -> None:
    path = python_that(tmp_path, "")
    hook = tmp_path / "bin" / step
    real = f'exec /bin/{step} "$@"'
    hook.write_text(f'#!/bin/sh\ncase "{step} $*" in "rm -rf "*) {real} ;; esac\nkill -9 $PPID\n')
    hook.chmod(0o755)
    install(unpacked, tmp_path / "runtime", expect=-9, PATH=path)
    hook.unlink()
    install(unpacked, tmp_path / "runtime")
    assert version(tmp_path / "runtime") == "edgefleet-runtime 0.1.0"
    assert (tmp_path / "runtime" / "manifest.json").is_file()


def test_it_is_readable_for_the_user_that_runs_it(unpacked: Path, tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        install(unpacked, tmp_path / "runtime")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "runtime").stat().st_mode) == 0o755


def test_a_linter_has_nothing_to_say(unpacked: Path) -> None:
    linter = Path(sys.executable).with_name("shellcheck")
    if not linter.exists():
        pytest.skip("shellcheck isn't installed")
    done = subprocess.run(
        [str(linter), str(unpacked / "install.sh")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
