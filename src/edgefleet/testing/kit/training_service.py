"""What a trainer must do besides where scripts run elsewhere, in a service that fleets share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgefleet.errors import InvalidInputError, NotFoundError, TrainingFailedError
from edgefleet.interfaces.training import Resources, TrainingJob
from edgefleet.testing.kit.trainer import TIMEOUT_S, TrainerConformance

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefleet.interfaces.trainer import Trainer

SECRET = "OPERATORS_SECRET"  # noqa: S105 - the name of a variable


class TrainingServiceConformance(TrainerConformance):
    """Fixtures ``trainer``; ``other``, of another fleet in the same service; ``lose_answer``;
    ``missing_data``.
    """

    @pytest.fixture
    def other(self) -> Trainer:
        """A trainer of another fleet."""
        return self.lacks("other", "a trainer of another fleet in the same service")

    @pytest.fixture
    def lose_answer(self) -> Callable[[], None]:
        """Has the service take the next submission and its answer get lost."""
        return self.lacks(
            "lose_answer", "a callable: cuts the connection before the next submission's answer"
        )

    @pytest.fixture
    def missing_data(self) -> str:
        """An address of data in the service's own storage, where there are none."""
        return self.lacks(
            "missing_data", "an address that the trainer takes for data, where there are none"
        )

    def test_a_script_does_not_see_the_operators_environment(
        self, trainer: Trainer, script: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If this fails, keys in the operator's environment are sent to the service."""
        monkeypatch.setenv(SECRET, "x")
        path = script(f"import os; print({SECRET!r} in os.environ)")
        run = trainer.submit(TrainingJob(script=path)).wait(timeout_s=TIMEOUT_S)
        assert list(run.logs()) == ["False"]

    def test_a_run_that_never_begins_fails_with_its_reason_and_an_empty_log(
        self, trainer: Trainer, missing_data: str, script: Callable[[str], Path]
    ) -> None:
        """If this fails, a log that isn't there yet, or never will be, ends the wait for a run, or
        stands in place of why it failed.
        """
        within = Resources(max_runtime_s=3)  # for a service that waits for what is missing
        job = TrainingJob(script=script("print('begun')"), data=missing_data, resources=within)
        run = trainer.submit(job)
        assert list(run.logs(follow=True)) == []
        with pytest.raises(TrainingFailedError) as caught:
            run.wait(timeout_s=TIMEOUT_S)
        reason = run.status.reason
        assert reason
        assert caught.value.message == f"training run {run.id} failed: {reason}"
        assert run.metrics == {}

    def test_an_empty_folder_of_data_is_refused(
        self, trainer: Trainer, script: Callable[[str], Path], tmp_path: Path
    ) -> None:
        """If this fails, a run is paid for whose script finds no data."""
        (tmp_path / "empty").mkdir()
        job = TrainingJob(script=script("print('done')"), data=tmp_path / "empty")
        with pytest.raises(InvalidInputError, match="no file"):
            trainer.submit(job)
        assert trainer.list() == ()

    def test_runs_of_another_fleet_are_not_this_ones(
        self, trainer: Trainer, other: Trainer, script: Callable[[str], Path]
    ) -> None:
        """If this fails, fleets see and cancel each other's runs."""
        run = other.submit(TrainingJob(script=script("print('done')")))
        assert trainer.list() == ()
        with pytest.raises(NotFoundError):
            trainer.get(run.id)
        run.wait(timeout_s=TIMEOUT_S)

    def test_an_answer_that_was_lost_makes_no_second_run(
        self,
        trainer: Trainer,
        lose_answer: Callable[[], None],
        script: Callable[[str], Path],
    ) -> None:
        """If this fails, a submission that is repeated isn't known again, and is paid for twice."""
        lose_answer()
        run = trainer.submit(TrainingJob(script=script("print('done')")))
        assert [status.id for status in trainer.list()] == [run.id]
        run.wait(timeout_s=TIMEOUT_S)

    def test_outputs_that_were_forgotten_take_no_room_here(
        self, trainer: Trainer, script: Callable[[str], Path]
    ) -> None:
        """If this fails, a machine's disk fills up with copies of what runs left elsewhere."""
        run = trainer.submit(TrainingJob(script=script("print('done')")))
        copied = run.wait(timeout_s=TIMEOUT_S).outputs
        trainer.forget(run.id)
        assert not copied.exists()
