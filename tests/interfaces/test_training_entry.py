"""The entry script as a vendor's container runs it."""

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

from edgefleet.interfaces import script_archive, training_entry


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the entry script in ``code`` for a job without data and parameters."""
    code = tmp_path / "job" / "code"
    code.mkdir(parents=True)
    shutil.copy(training_entry.__file__, code / training_entry.ENTRY)
    return tmp_path / "job"


def _run(
    place: Path,
    archive: bytes,
    *words: str,
    python: str = sys.executable,
    requirements: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
    **order: object,
) -> subprocess.CompletedProcess[str]:
    code = place / "code"
    order |= {"script": "train.py", "data": None, "requirements": list(requirements)}
    (code / training_entry.ORDER).write_text(json.dumps(order))
    (code / training_entry.SOURCE).write_bytes(archive)
    usual = ["--output", str(place / "kept"), "--work", str(place / "work")]
    usual += ["--failure", str(place / "failure")]
    return subprocess.run(
        [python, str(code / training_entry.ENTRY), *usual, *words],
        env={"PATH": os.environ["PATH"], "PIP_NO_INDEX": "1", **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )


def _packed(folder: Path, script: str) -> bytes:
    folder.mkdir()
    (folder / "train.py").write_text(script)
    return script_archive.pack(folder)


def _failure(place: Path) -> str:
    return (place / "failure").read_text()


def test_an_image_without_edgefleet_has_its_helper_all_the_same(
    place: Path, tmp_path: Path
) -> None:
    venv.create(tmp_path / "image", with_pip=False)
    script = "from edgefleet import training; (training.output_dir() / 'x').write_text('kept')"
    python = str(tmp_path / "image" / "bin" / "python")
    done = _run(place, _packed(tmp_path / "code", script), python=python)
    assert (done.returncode, done.stderr) == (0, "")
    assert (place / "kept" / "x").read_text() == "kept"


def test_a_requirement_that_cannot_be_installed_is_the_reason(place: Path, tmp_path: Path) -> None:
    archive = _packed(tmp_path / "code", "print('never')")
    done = _run(place, archive, requirements=("no-such-thing-as-this>=1",))
    assert done.returncode == 1
    assert "pip could not install no-such-thing-as-this>=1" in _failure(place)
    assert "never" not in done.stdout


def test_only_what_the_image_lacks_is_installed(place: Path, tmp_path: Path) -> None:
    archive = _packed(tmp_path / "code", "print('went on')")
    done = _run(place, archive, lacking={"json": "no-such-thing-as-this"})
    assert (done.returncode, done.stdout) == (0, "went on\n")
    assert _run(place, archive, lacking={"no_such_module": "no-such-thing-as-this"}).returncode == 1
    assert "pip could not install no-such-thing-as-this" in _failure(place)


def test_an_evaluating_script_finds_what_the_training_script_left(
    place: Path, tmp_path: Path
) -> None:
    trained = tmp_path / "model.tar.gz"
    with tarfile.open(trained, "w:gz") as archive:
        member = tarfile.TarInfo("sub/model.onnx")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"yes"))
    folder = tmp_path / "trained"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "model.onnx").write_bytes(b"yes")
    script = (
        "from edgefleet import training\n"
        "print((training.model_dir() / 'sub' / 'model.onnx').read_text())"
    )
    packed = _packed(tmp_path / "code", script)
    for one in (trained, folder):  # as an archive, or as a folder
        assert _run(place, packed, "--trained", str(one)).stdout == "yes\n"


def test_the_newest_metrics_are_kept_while_all_is_passed_on(place: Path, tmp_path: Path) -> None:
    script = (
        "from edgefleet import training\n"
        "for value in (1, 2): training.log_metric('loss', value)\n"
        "print('edgefleet-metric {broken')"
    )
    done = _run(place, _packed(tmp_path / "code", script), "--metrics", str(tmp_path))
    assert done.stdout.count("edgefleet-metric") == 3
    assert json.loads((tmp_path / training_entry.METRICS).read_text()) == {"loss": 2.0}


def test_only_the_first_of_several_processes_leaves_outputs(place: Path, tmp_path: Path) -> None:
    script = (
        "import os; from edgefleet import training\n"
        "(training.output_dir() / os.environ['RANK']).write_text('x')"
    )
    packed = _packed(tmp_path / "code", script)
    for rank in ("0", "1"):
        done = _run(place, packed, "--rank", "RANK", environment={"RANK": rank})
        assert done.returncode == 0
    assert [path.name for path in (place / "kept").iterdir()] == ["0"]


def test_only_the_first_of_several_processes_tells_metrics(place: Path, tmp_path: Path) -> None:
    script = (
        "import os; from edgefleet import training\n"
        "training.log_metric('loss', float(os.environ['RANK']))"
    )
    packed = _packed(tmp_path / "code", script)
    for rank in ("0", "1"):
        words = ("--rank", "RANK", "--metrics", str(tmp_path))
        done = _run(place, packed, *words, environment={"RANK": rank})
        assert done.stdout.count("edgefleet-metric") == 1
    assert json.loads((tmp_path / training_entry.METRICS).read_text()) == {"loss": 0.0}


def test_a_value_for_the_script_may_hold_an_equals_sign(place: Path, tmp_path: Path) -> None:
    packed = _packed(tmp_path / "code", "import os; print(os.environ['SM_X'])")
    assert _run(place, packed, "--set", "SM_X=a=b").stdout == "a=b\n"


@pytest.mark.parametrize("name", ["../up", "/up", "a/../../up"])
def test_an_archive_that_reaches_outside_is_refused(name: str, place: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo(name))
    assert _run(place, packed.getvalue()).returncode == 1
    assert name in _failure(place)
    assert list(place.parent.rglob("up")) == []


def test_a_script_that_is_killed_ends_with_the_shells_status(place: Path, tmp_path: Path) -> None:
    script = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert _run(place, _packed(tmp_path / "code", script)).returncode == 137
    assert _failure(place) == "the script ended with status 137"
