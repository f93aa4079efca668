"""The entry script as a container runs it, in a folder that stands for ``/opt/ml``."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

import pytest

from edgefleet_aws import container_entry, source


@pytest.fixture
def ml(tmp_path: Path) -> Path:
    """What SageMaker has laid out for a job without data and parameters."""
    channel = tmp_path / "ml" / "input" / "data" / "code"
    channel.mkdir(parents=True)
    shutil.copy(container_entry.__file__, channel / "entry.py")
    return tmp_path / "ml"


def _run(
    ml: Path,
    archive: bytes,
    *,
    python: str = sys.executable,
    requirements: tuple[str, ...] = (),
    **order: object,
) -> subprocess.CompletedProcess[str]:
    channel = ml / "input" / "data" / "code"
    order |= {"script": "train.py", "data": None, "requirements": list(requirements)}
    (channel / container_entry.ORDER).write_text(json.dumps(order))
    (channel / container_entry.SOURCE).write_bytes(archive)
    return subprocess.run(
        [python, str(channel / "entry.py")],
        env={"PATH": os.environ["PATH"], "PIP_NO_INDEX": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def _packed(folder: Path, script: str) -> bytes:
    folder.mkdir()
    (folder / "train.py").write_text(script)
    return source.pack(folder)


def _failure(ml: Path) -> str:
    return (ml / "output" / "failure").read_text()


def test_an_image_without_edgefleet_has_its_helper_all_the_same(ml: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "image", with_pip=False)
    script = "from edgefleet import training; (training.output_dir() / 'x').write_text('kept')"
    python = str(tmp_path / "image" / "bin" / "python")
    done = _run(ml, _packed(tmp_path / "code", script), python=python)
    assert (done.returncode, done.stderr) == (0, "")
    assert (ml / "model" / "x").read_text() == "kept"


def test_a_requirement_that_cannot_be_installed_is_the_reason(ml: Path, tmp_path: Path) -> None:
    archive = _packed(tmp_path / "code", "print('never')")
    done = _run(ml, archive, requirements=("no-such-thing-as-this>=1",))
    assert done.returncode == 1
    assert "pip could not install no-such-thing-as-this>=1" in _failure(ml)
    assert "never" not in done.stdout


def test_only_what_the_image_lacks_is_installed(ml: Path, tmp_path: Path) -> None:
    archive = _packed(tmp_path / "code", "print('went on')")
    done = _run(ml, archive, lacking={"json": "no-such-thing-as-this"})
    assert (done.returncode, done.stdout) == (0, "went on\n")
    assert _run(ml, archive, lacking={"no_such_module": "no-such-thing-as-this"}).returncode == 1
    assert "pip could not install no-such-thing-as-this" in _failure(ml)


def test_an_evaluating_script_finds_what_the_training_script_left(ml: Path, tmp_path: Path) -> None:
    trained = ml / "input" / "data" / "model" / "model.tar.gz"
    trained.parent.mkdir()
    with tarfile.open(trained, "w:gz") as archive:
        member = tarfile.TarInfo("sub/model.onnx")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"yes"))
    script = (
        "from edgefleet import training\n"
        "print((training.model_dir() / 'sub' / 'model.onnx').read_text())"
    )
    assert _run(ml, _packed(tmp_path / "code", script), model=True).stdout == "yes\n"


@pytest.mark.parametrize("name", ["../up", "/up", "a/../../up"])
def test_an_archive_that_reaches_outside_is_refused(name: str, ml: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo(name))
    assert _run(ml, packed.getvalue()).returncode == 1
    assert name in _failure(ml)
    assert list(ml.parent.rglob("up")) == []


def test_a_script_that_is_killed_ends_with_the_shells_status(ml: Path, tmp_path: Path) -> None:
    script = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert _run(ml, _packed(tmp_path / "code", script)).returncode == 137
    assert _failure(ml) == "the script ended with status 137"
