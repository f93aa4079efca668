"""What a trainer must do: run a plain script as it is, tell how it goes, bring its outputs back."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgefleet.errors import (
    CancelledError,
    EdgeFleetError,
    InvalidInputError,
    NotFoundError,
    TrainingFailedError,
    WaitTimeoutError,
)
from edgefleet.interfaces.trainer import Trainer
from edgefleet.interfaces.training import Resources, RunState, TrainingJob
from edgefleet.testing.kit.gaps import Conformance

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.interfaces.training_run import TrainingRun

Params = dict[str, str | int | float | bool | None]
TIMEOUT_S = 120.0  # for a run that takes a fraction of a second where nothing is wrong
LINES = 100_000  # of 100 characters: 10 MB of output

PLAIN = """
    import json, os, pathlib

    data = pathlib.Path(os.environ["EDGEFLEET_DATA_DIR"])
    params = json.loads(os.environ["EDGEFLEET_PARAMS"])
    out = pathlib.Path(os.environ["EDGEFLEET_OUTPUT_DIR"])
    for step in range(params["epochs"]):
        metric = {"name": "loss", "value": 1 / (step + 1), "step": step}
        print("edgefleet-metric", json.dumps(metric))
    text = (data if data.is_file() else data / "a.txt").read_text()
    (out / "sub").mkdir()
    (out / "sub" / "seen.json").write_text(json.dumps({"text": text, "params": params}))
    (out / "model.onnx").write_bytes(b"a model")
"""

HELPED = """
    from edgefleet import training

    params = training.params(epochs=3, rate=0.5)
    training.log_metric("rate", params["rate"], step=params["epochs"])
    folder = training.data_dir()
    (training.output_dir() / "model.onnx").write_text(f"{params} {folder}")
"""

FOREVER = """
    import threading

    print("ready", flush=True)
    threading.Event().wait()
"""


class TrainerConformance(Conformance):
    """Fixture ``trainer``: one for each test."""

    @pytest.fixture
    def trainer(self) -> Trainer:
        """A trainer."""
        return self.lacks("trainer", "a trainer for each test")

    @pytest.fixture
    def script(self, tmp_path: Path) -> Callable[[str], Path]:
        """Writes a training script into a folder of its own."""

        def write(text: str) -> Path:
            path = tmp_path / "code" / "train.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(textwrap.dedent(text), encoding="utf-8")
            return path

        return write

    @pytest.fixture
    def data(self, tmp_path: Path) -> Path:
        """A folder with data."""
        folder = tmp_path / "data"
        folder.mkdir()
        (folder / "a.txt").write_text("hällo", encoding="utf-8")
        return folder

    # The contract with a script

    def test_a_plain_script_runs_unchanged(
        self, trainer: Trainer, script: Callable[[str], Path], data: Path
    ) -> None:
        """If this fails, one of the documented variables is missing where the script runs, or the
        output folder doesn't come back.
        """
        params: Params = {"epochs": 2, "rate": 0.1, "name": "ä b", "flag": True, "none": None}
        run = _run(trainer, script(PLAIN), data=data, params=params)
        seen = (run.outputs / "sub" / "seen.json").read_text(encoding="utf-8")
        assert run.model.read_bytes() == b"a model"
        assert '"epochs": 2' in seen
        assert "llo" in seen
        assert run.status.params == params

    def test_a_single_file_can_be_the_data(
        self, trainer: Trainer, script: Callable[[str], Path], data: Path
    ) -> None:
        """If this fails, only folders are sent along."""
        run = _run(trainer, script(PLAIN), data=data / "a.txt", params={"epochs": 0})
        assert run.model.is_file()

    def test_the_helper_reads_the_same_contract(
        self, trainer: Trainer, script: Callable[[str], Path]
    ) -> None:
        """If this fails, ``edgefleet.training`` isn't installed where the script runs."""
        run = _run(trainer, script(HELPED), params={"rate": 0.25})
        assert run.model.read_text() == "{'epochs': 3, 'rate': 0.25} None"
        assert run.metrics == {"rate": 0.25}

    def test_files_beside_the_script_come_along(
        self, trainer: Trainer, script: Callable[[str], Path]
    ) -> None:
        """If this fails, the script is sent alone, or its own folder isn't on its import path."""
        path = script("import helper_of_mine, pathlib, os; helper_of_mine.write(os.environ)")
        (path.parent / "helper_of_mine.py").write_text(
            "def write(e): open(e['EDGEFLEET_OUTPUT_DIR'] + '/model.onnx', 'w').write('ok')"
        )
        assert _run(trainer, path).model.read_text() == "ok"

    def test_metrics_are_read_from_what_the_script_prints(
        self, trainer: Trainer, script: Callable[[str], Path], data: Path
    ) -> None:
        """If this fails, standard output is cut, reordered, or decorated before it is read."""
        run = _run(trainer, script(PLAIN), data=data, params={"epochs": 4})
        history = run.metric_history("loss")
        assert [(m.step, m.value) for m in history] == [(0, 1), (1, 1 / 2), (2, 1 / 3), (3, 1 / 4)]
        assert run.metrics == {"loss": 1 / 4}

    def test_a_run_that_left_nothing_has_an_empty_folder(
        self, trainer: Trainer, script: Callable[[str], Path]
    ) -> None:
        """If this fails, a script that only prints counts as failed, or has no outputs."""
        assert list(_run(trainer, script("print('done')")).outputs.iterdir()) == []

    # How a run goes

    def test_a_run_can_be_found_again(
        self, trainer: Trainer, script: Callable[[str], Path], data: Path
    ) -> None:
        """If this fails, a notebook that was restarted has lost its runs."""
        runs = [
            _run(trainer, script(PLAIN), data=data, params={"epochs": n}, name=f"run-{n}")
            for n in range(2)
        ]
        assert len({run.id for run in runs}) == 2
        assert [run.id.startswith(f"run-{n}") for n, run in enumerate(runs)] == [True, True]
        assert [status.id for status in trainer.list()][:2] == [run.id for run in reversed(runs)]
        again = trainer.get(runs[0].id)
        assert again.status.state is RunState.SUCCEEDED
        assert again.outputs == runs[0].outputs

    def test_outputs_come_again_after_they_were_forgotten_here(
        self, trainer: Trainer, script: Callable[[str], Path], data: Path
    ) -> None:
        """If this fails, a machine's disk fills up with the outputs of runs, or one loses them."""
        run = _run(trainer, script(PLAIN), data=data, params={"epochs": 1})
        trainer.forget(run.id)  # nothing was brought here yet
        seen = run.outputs / "sub" / "seen.json"
        text = seen.read_text("utf-8")
        trainer.forget(run.id)
        assert (run.outputs / "sub" / "seen.json").read_text("utf-8") == text

    def test_runs_at_once_stay_apart(self, trainer: Trainer, script: Callable[[str], Path]) -> None:
        """If this fails, two runs share a folder, a log, or a name."""
        jobs = [_job(script(HELPED), params={"rate": rate}) for rate in (0.25, 0.75)]
        runs = [trainer.submit(job) for job in jobs]
        for run, rate in zip(runs, (0.25, 0.75), strict=True):
            run.wait(timeout_s=TIMEOUT_S)
            assert run.metrics == {"rate": rate}
            assert str(rate) in run.model.read_text()

    def test_a_crash_is_told_with_the_end_of_the_log(
        self, trainer: Trainer, script: Callable[[str], Path]
    ) -> None:
        """If this fails, standard error isn't logged, or a failed run counts as ended well."""
        run = trainer.submit(_job(script("print('before'); raise ValueError('no such lens')")))
        with pytest.raises(TrainingFailedError, match="ValueError: no such lens"):
            run.wait(timeout_s=TIMEOUT_S)
        assert run.status.state is RunState.FAILED
        assert run.status.reason
        assert "before" in list(run.logs())
        with pytest.raises(TrainingFailedError):
            _ = run.outputs

    def test_a_cancelled_run_ends(self, trainer: Trainer, script: Callable[[str], Path]) -> None:
        """If this fails, cancelling stops the waiting but not the work."""
        run = trainer.submit(_job(script(FOREVER)))
        assert next(iter(run.logs(follow=True))) == "ready"
        run.cancel()
        with pytest.raises(CancelledError):
            run.wait(timeout_s=TIMEOUT_S)
        run.cancel()
        assert run.status.state is RunState.CANCELLED

    def test_waiting_can_be_given_up_while_the_run_goes_on(
        self, trainer: Trainer, script: Callable[[str], Path]
    ) -> None:
        """If this fails, a timeout of the caller ends the run."""
        run = trainer.submit(_job(script(FOREVER)))
        try:
            with pytest.raises(WaitTimeoutError):
                run.wait(timeout_s=0)
            assert not run.status.state.ended
        finally:
            run.cancel()

    def test_a_run_over_its_time_is_ended(
        self, trainer: Trainer, script: Callable[[str], Path]
    ) -> None:
        """If this fails, ``max_runtime_s`` is ignored, and a script that hangs costs for ever.
        A trainer that can't keep it must refuse it.
        """
        try:
            run = trainer.submit(_job(script(FOREVER), resources=Resources(max_runtime_s=0.3)))
        except EdgeFleetError:
            return
        with pytest.raises(TrainingFailedError):
            run.wait(timeout_s=TIMEOUT_S)
        assert run.status.state is RunState.FAILED

    def test_a_log_is_followed_to_its_end(
        self, trainer: Trainer, script: Callable[[str], Path]
    ) -> None:
        """If this fails, following stops at a quiet moment, or goes on after the run has ended."""
        run = trainer.submit(_job(script("for n in range(50): print(n, flush=True)")))
        assert list(run.logs(follow=True))[:50] == [str(n) for n in range(50)]

    def test_ten_megabytes_of_output_are_kept_whole(
        self, trainer: Trainer, script: Callable[[str], Path]
    ) -> None:
        """If this fails, a full pipe hangs the script, or a long log is cut."""
        run = _run(trainer, script(f"for n in range({LINES}): print(f'{{n:099}}')"))
        count = last = 0
        for line in run.logs():
            count, last = count + 1, int(line)
        assert (count, last) == (LINES, LINES - 1)

    def test_output_that_is_no_text_harms_nobody(
        self, trainer: Trainer, script: Callable[[str], Path]
    ) -> None:
        """If this fails, the log is decoded strictly somewhere."""
        run = _run(trainer, script(r"import os; os.write(1, b'\xff\x00\xfe\nend\n')"))
        assert list(run.logs())[-1] == "end"

    # Refusals

    def test_missing_data_are_refused_before_anything_runs(
        self, trainer: Trainer, script: Callable[[str], Path], tmp_path: Path
    ) -> None:
        """If this fails, your trainer overrides a check that `Trainer` makes."""
        before = trainer.list()
        with pytest.raises(InvalidInputError):
            trainer.submit(_job(script(PLAIN), data=tmp_path / "missing"))
        assert trainer.list() == before

    @pytest.mark.parametrize(
        "resources",
        [Resources(instance="no.such-machine"), Resources(gpus=4096), Resources(count=100_000)],
        ids=["instance", "gpus", "count"],
    )
    def test_what_cannot_be_given_is_refused(
        self, trainer: Trainer, script: Callable[[str], Path], resources: Resources
    ) -> None:
        """If this fails, an option is ignored: the user pays for, or waits for, something else."""
        before = trainer.list()
        with pytest.raises(EdgeFleetError):
            trainer.submit(_job(script(HELPED), resources=resources))
        assert trainer.list() == before

    def test_an_unknown_run_is_not_found(self, trainer: Trainer) -> None:
        """If this fails, "not found" isn't mapped, or an id reaches a path unchecked."""
        for name in ("train-nothing", "../../etc"):
            with pytest.raises(NotFoundError):
                trainer.get(name)


def _job(
    script: Path,
    *,
    data: Path | None = None,
    params: Params | None = None,
    name: str = "train",
    resources: Resources | None = None,
) -> TrainingJob:
    return TrainingJob(
        script=script,
        data=data,
        params=params or {},
        name=name,
        resources=resources or Resources(),
    )


def _run(
    trainer: Trainer,
    script: Path,
    *,
    data: Path | None = None,
    params: Params | None = None,
    name: str = "train",
) -> TrainingRun:
    job = _job(script, data=data, params=params, name=name)
    return trainer.submit(job).wait(timeout_s=TIMEOUT_S)
