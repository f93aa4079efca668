"""Trainer: runs a user's plain Python script somewhere and brings its outputs back.

The contract with a script is the same everywhere (``edgefleet.training`` is an optional helper for
it):

=========================  ===================================================================
``EDGEFLEET_DATA_DIR``     folder (or file) with the input data; unset when there is none
``EDGEFLEET_PARAMS``       parameters as one JSON object
``EDGEFLEET_OUTPUT_DIR``   folder whose content is kept; a model goes to ``model.onnx`` there
=========================  ===================================================================

A trainer that may interrupt a run and start it anew, such as one on spare capacity, also sets
``EDGEFLEET_CHECKPOINT_DIR``: a folder whose content is there again.

A metric is a line on standard output: ``edgefleet-metric {"name": "loss", "value": 0.1, "step":
3}``.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, final

from edgefleet.errors import (
    InvalidInputError,
    NotFoundError,
    TrainingFailedError,
    UnsupportedError,
)
from edgefleet.interfaces.abilities import CanTrainDistributed
from edgefleet.interfaces.service import Service
from edgefleet.interfaces.training import RunState
from edgefleet.interfaces.training_run import TrainingRun
from edgefleet.protocol.names import check_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet.interfaces.training import RunStatus, TrainingJob


class Trainer(Service):
    """Runs training scripts."""

    role: ClassVar[str] = "trainer"

    @final
    def submit(self, job: TrainingJob) -> TrainingRun:
        """Start a run and return at once.

        Raises:
            UnsupportedError: something asked for in ``resources`` can't be given.
            InvalidInputError: the data don't exist.
        """
        if isinstance(job.data, Path) and not job.data.exists():
            msg = f"no training data at {job.data}"
            raise InvalidInputError(msg, cure="give a file or folder that exists")
        several = job.resources.count
        if several > 1 and not isinstance(self, CanTrainDistributed):
            raise UnsupportedError(
                f"{several} machines were asked for, and {self.provider} trains on one machine",
                cure="leave `count` out, or train with a provider that spreads a run",
                provider=self.provider,
            )
        with self._boundary("submit"):
            return TrainingRun(self, self._submit(job))

    @final
    def get(self, run_id: str) -> TrainingRun:
        """A run by its id.

        Raises:
            NotFoundError: no such run.
        """
        self.status(run_id)
        return TrainingRun(self, run_id)

    @final
    def status(self, run_id: str) -> RunStatus:
        """A run at this moment.

        Raises:
            NotFoundError: no such run, or the backend has forgotten it.
        """
        with self._boundary("status"):
            status = self._status(run_id)
        if status is None:
            msg = f"no training run {run_id!r}"
            raise NotFoundError(msg, cure="list the runs with fleet.trainer.list()")
        return status

    @final
    def read_log(self, run_id: str, offset: int) -> bytes:
        """What the run has printed from an offset in bytes on; empty when there is nothing new."""
        with self._boundary("logs"):
            return self._log(run_id, offset)

    @final
    def cancel(self, run_id: str) -> None:
        """End a run and everything it started; no error when it has ended."""
        with self._boundary("cancel"):
            self._cancel(run_id)

    @final
    def outputs(self, run_id: str) -> Path:
        """Folder on this machine with the outputs of a run.

        Raises:
            TrainingFailedError: the run hasn't succeeded.
        """
        status = self.status(run_id)
        if status.state is not RunState.SUCCEEDED:
            msg = f"run {run_id} is {status.state.value}: it has no outputs"
            raise TrainingFailedError(msg, cure="wait for it with run.wait()")
        with self._boundary("outputs"):
            return self._outputs(run_id)

    @final
    def forget(self, run_id: str) -> None:
        """Drop the copy of a run's outputs that `outputs` brought to this machine, if it did.

        The run keeps them: who asks again gets them anew.
        """
        check_path(run_id, what="id of a run")
        with self._boundary("forget"):
            self._forget(run_id)

    @final
    def list(self) -> tuple[RunStatus, ...]:
        """All runs that the backend still knows, newest first."""
        with self._boundary("list"):
            return tuple(self._list())

    @abstractmethod
    def _submit(self, job: TrainingJob) -> str:
        """Start a run and return its id."""

    @abstractmethod
    def _status(self, run_id: str) -> RunStatus | None: ...

    @abstractmethod
    def _list(self) -> Iterator[RunStatus]: ...

    @abstractmethod
    def _log(self, run_id: str, offset: int) -> bytes:
        """What the run has printed from an offset in bytes on, at most a few MiB."""

    @abstractmethod
    def _cancel(self, run_id: str) -> None:
        """End a run and everything it started; no error when it has ended."""

    @abstractmethod
    def _outputs(self, run_id: str) -> Path:
        """Bring the outputs of a run that has succeeded to this machine and return their folder."""

    def _forget(self, run_id: str) -> None:
        """As `forget`; a trainer whose runs leave their outputs on this machine keeps them."""
