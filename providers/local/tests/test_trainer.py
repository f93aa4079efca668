from __future__ import annotations

import os
import signal
import textwrap
from pathlib import Path
from typing import Any

import pytest

from edgefleet.errors import (
    CancelledError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    TrainingFailedError,
    UnsupportedError,
)
from edgefleet.interfaces.training import Resources, RunState, TrainingJob
from edgefleet.interfaces.training_run import TrainingRun
from edgefleet.testing.waiting import eventually
from edgefleet_local import requirements
from edgefleet_local.journal import Journal
from edgefleet_local.trainer import LocalTrainer
from providers.local.tests.support import alive, cut_at_every_point, elsewhere

FAMILY = """
    import os, subprocess, sys, threading

    forever = [sys.executable, "-c", "import threading; threading.Event().wait()"]
    near = subprocess.Popen(forever)
    far = subprocess.Popen(forever, start_new_session=True)
    print("pids", os.getpid(), near.pid, far.pid, flush=True)
"""
WAIT = "\n    threading.Event().wait()\n"


@pytest.fixture
def trainer(home: Path) -> LocalTrainer:
    return LocalTrainer(home)


def _job(folder: Path, text: str, **more: Any) -> TrainingJob:
    script = folder / "train.py"
    script.write_text(textwrap.dedent(text), encoding="utf-8")
    return TrainingJob(script=script, **more)


def _pids(run: TrainingRun) -> list[int]:
    """The processes of `FAMILY`: the script, a child in its group, one that left it."""
    for line in run.logs(follow=True):
        if line.startswith("pids "):
            return [int(word) for word in line.split()[1:]]
    raise AssertionError("the script never began")


def _gone(pids: list[int]) -> bool:
    return not any(map(alive, pids))


def test_cancelling_ends_everything_the_script_started(
    trainer: LocalTrainer, tmp_path: Path
) -> None:
    run = trainer.submit(_job(tmp_path, FAMILY + WAIT))
    pids = _pids(run)
    run.cancel()
    assert run.status.state is RunState.CANCELLED
    assert _gone(pids)


def test_what_a_script_leaves_running_ends_with_it(trainer: LocalTrainer, tmp_path: Path) -> None:
    run = trainer.submit(_job(tmp_path, FAMILY)).wait()
    assert _gone(_pids(run))


def test_a_script_that_won_t_listen_is_ended_all_the_same(home: Path, tmp_path: Path) -> None:
    trainer = LocalTrainer(home, grace_s=0.2)
    deaf = "    import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    job = _job(tmp_path, deaf + FAMILY + WAIT, resources=Resources(max_runtime_s=0.5))
    run = trainer.submit(job)
    pids = _pids(run)
    with pytest.raises(TrainingFailedError, match="longer than max_runtime_s"):
        run.wait(timeout_s=90)
    assert _gone(pids)


def test_a_killed_child_is_told_from_a_running_one(trainer: LocalTrainer, tmp_path: Path) -> None:
    run = trainer.submit(_job(tmp_path, FAMILY + WAIT))
    pids = _pids(run)
    os.kill(int(run.status.evidence["pid"]), signal.SIGKILL)
    with pytest.raises(TrainingFailedError, match="process was killed"):
        run.wait(timeout_s=90)
    eventually(lambda: _gone(pids))


def test_killing_the_child_of_a_run_being_cancelled_counts_as_cancelled(
    trainer: LocalTrainer, home: Path, tmp_path: Path
) -> None:
    run = trainer.submit(_job(tmp_path, FAMILY + WAIT))
    _pids(run)
    (home / "training" / run.id / "cancel").touch()
    os.kill(int(run.status.evidence["pid"]), signal.SIGKILL)
    with pytest.raises(CancelledError):
        run.wait(timeout_s=90)


def test_outputs_appear_only_with_success(
    trainer: LocalTrainer, home: Path, tmp_path: Path
) -> None:
    half = """
        import os
        open(os.environ["EDGEFLEET_OUTPUT_DIR"] + "/model.onnx", "w").write("half")
        os.abort()
    """
    run = trainer.submit(_job(tmp_path, half))
    with pytest.raises(TrainingFailedError, match="killed by SIGABRT"):
        run.wait()
    assert not (home / "training" / run.id / "outputs").exists()
    with pytest.raises(TrainingFailedError, match="has no outputs"):
        _ = run.model


def _submit_and_leave(home: Path, folder: Path) -> str:
    text = "import os; print('parent', os.getppid()); os.read(os.open('go', os.O_RDONLY), 1)"
    return LocalTrainer(home).submit(_job(folder, text)).id


def test_a_run_outlives_who_submitted_it(trainer: LocalTrainer, home: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    (run_id,) = elsewhere(_submit_and_leave, home, tmp_path)
    run = trainer.get(run_id)
    assert not run.status.state.ended
    (tmp_path / "go").write_bytes(b"!")
    run.wait(timeout_s=90)


def test_the_script_runs_in_its_own_folder(trainer: LocalTrainer, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("beside the script")
    run = trainer.submit(_job(tmp_path, "print(open('notes.txt').read())")).wait()
    assert list(run.logs()) == ["beside the script"]


def test_variables_of_another_run_are_not_inherited(
    trainer: LocalTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEFLEET_DATA_DIR", "/elsewhere")
    run = trainer.submit(_job(tmp_path, "import os; print('EDGEFLEET_DATA_DIR' in os.environ)"))
    assert list(run.wait().logs()) == ["False"]


def test_a_child_that_cannot_start_is_a_failed_run(
    trainer: LocalTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "path" / "edgefleet_local"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('broken installation')")
    monkeypatch.setenv("PYTHONPATH", str(broken.parent))
    run = trainer.submit(_job(tmp_path, "print('never')"))
    with pytest.raises(TrainingFailedError, match="broken installation"):
        run.wait(timeout_s=90)


def test_a_submission_that_fails_leaves_no_run(
    trainer: LocalTrainer, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "no-python"))
    with pytest.raises(FileNotFoundError):
        trainer.submit(_job(tmp_path, "print('never')"))
    assert trainer.list() == ()
    assert list((home / "training").iterdir()) == []


def _fresh(home: Path) -> None:
    (home / "code").mkdir(parents=True)


def _submit(home: Path) -> None:
    LocalTrainer(home).submit(_job(home / "code", "print('done')"))


def _no_run_or_one_that_ends(home: Path) -> None:
    trainer = LocalTrainer(home)
    for status in trainer.list():
        eventually(lambda: trainer.list()[0].state.ended)
        assert trainer.get(status.id).status.state in (RunState.SUCCEEDED, RunState.FAILED)
    assert len(trainer.list()) <= 1


def test_a_submitter_killed_anywhere_leaves_no_run_or_one_that_ends(home: Path) -> None:
    (points,) = elsewhere(cut_at_every_point, home, _fresh, _submit, _no_run_or_one_that_ends)
    assert points >= 10


def test_runs_are_listed_newest_first_and_journalled(
    trainer: LocalTrainer, home: Path, tmp_path: Path
) -> None:
    runs = [trainer.submit(_job(tmp_path, "", name=name)) for name in ("b", "a")]
    assert [status.id for status in trainer.list()] == [run.id for run in reversed(runs)]
    told = [line for line in Journal(home).lines() if "trainer.submit" in line]
    assert [line.split()[-1] for line in told] == [run.id for run in runs]
    for run in runs:
        run.wait()


def test_data_may_be_given_by_file_address(trainer: LocalTrainer, tmp_path: Path) -> None:
    folder = tmp_path / "ä data"
    folder.mkdir()
    text = "import os; print(os.path.isdir(os.environ['EDGEFLEET_DATA_DIR']))"
    run = trainer.submit(_job(tmp_path, text, data=folder.as_uri())).wait()
    assert list(run.logs()) == ["True"]


@pytest.mark.parametrize(
    "data, error",
    [
        ("s3://bucket/digits", UnsupportedError),
        ("file://elsewhere/digits", UnsupportedError),
        ("file:///no/such/folder", InvalidInputError),
        ("no/such/folder", InvalidInputError),
    ],
)
def test_data_that_cannot_be_read_are_refused(
    trainer: LocalTrainer, tmp_path: Path, data: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        trainer.submit(_job(tmp_path, "", data=data))
    assert trainer.list() == ()


def test_parameters_over_the_systems_limit_are_refused(
    trainer: LocalTrainer, tmp_path: Path
) -> None:
    with pytest.raises(LimitExceededError, match="put them in a file"):
        trainer.submit(_job(tmp_path, "", params={"text": "x" * 200_000}))


@pytest.mark.parametrize(
    "wants, told",
    [
        (Resources(instance="ml.g5.xlarge"), "no machine types"),
        (Resources(count=2), "one machine"),
        (Resources(gpus=3), "has 2 NVIDIA GPUs, 3"),
        (Resources(memory_gib=17), "has 16.0 GiB of memory, 17"),
    ],
)
def test_what_this_machine_lacks_is_refused(
    trainer: LocalTrainer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wants: Resources,
    told: str,
) -> None:
    monkeypatch.setattr(requirements, "gpus", lambda: 2)
    monkeypatch.setattr(requirements, "memory_gib", lambda: 16.0)
    with pytest.raises(UnsupportedError, match=told):
        trainer.submit(_job(tmp_path, "", resources=wants))


def test_requirements_must_be_installed_here(trainer: LocalTrainer, tmp_path: Path) -> None:
    met = ("pytest>=8", "pytest; python_version < '3'", "no-such-thing; python_version < '3'")
    trainer.submit(_job(tmp_path, "", requirements=met)).wait()
    with pytest.raises(UnsupportedError, match=r"pip install 'no-such-thing' 'pytest<1'"):
        trainer.submit(_job(tmp_path, "", requirements=("no-such-thing", "pytest<1", "pytest")))
    with pytest.raises(InvalidInputError, match="not a pip requirement"):
        trainer.submit(_job(tmp_path, "", requirements=("what is this",)))


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "../../etc"])
def test_what_is_no_run_is_not_found(trainer: LocalTrainer, name: str) -> None:
    with pytest.raises(NotFoundError):
        trainer.get(name)


def test_submitting_waits_for_nothing_that_the_script_does(
    trainer: LocalTrainer, tmp_path: Path
) -> None:
    run = trainer.submit(_job(tmp_path, "    import threading" + WAIT))
    assert not run.status.state.ended
    run.cancel()
