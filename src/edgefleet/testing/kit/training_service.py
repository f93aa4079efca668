"""What a trainer must do besides where scripts run elsewhere, in a service that fleets share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgefleet.errors import InvalidInputError, NotFoundError
from edgefleet.interfaces.training import TrainingJob
from edgefleet.testing.kit.trainer import TIMEOUT_S, TrainerConformance

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefleet.interfaces.trainer import Trainer

SECRET = "OPERATORS_SECRET"  # noqa: S105 - the name of a variable


class TrainingServiceConformance(TrainerConformance):
    """Fixtures ``trainer``; ``other``, of another fleet in the same service; ``lose_answer``."""

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

    def test_a_script_does_not_see_the_operators_environment(
        self, trainer: Trainer, script: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If this fails, keys in the operator's environment are sent to the service."""
        monkeypatch.setenv(SECRET, "x")
        path = script(f"import os; print({SECRET!r} in os.environ)")
        run = trainer.submit(TrainingJob(script=path)).wait(timeout_s=TIMEOUT_S)
        assert list(run.logs()) == ["False"]

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
