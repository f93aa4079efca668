"""Waiting for a run, whatever kind it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import final

import pytest

from edgefleet.errors import (
    CancelledError,
    TrainingFailedError,
    UnavailableError,
    WaitTimeoutError,
)
from edgefleet.interfaces.ending import Run
from edgefleet.interfaces.training import RunState, RunStatus
from edgefleet.interfaces.training_run import Metric, TrainingRun, parse_metric

AT_ONCE_S = 0.0  # between looks


@final
class Scripted(Run[RunStatus]):
    """A run that goes through states, one a look, and stays at the last."""

    kind = "rehearsal"

    def __init__(self, *states: RunState | type[BaseException], reason: str | None = None) -> None:
        super().__init__("r-1", provider="stage")
        self._states = list(states)
        self._reason = reason
        self.cancelled = 0

    def _look(self) -> RunStatus:
        state = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        if not isinstance(state, RunState):
            raise state
        return RunStatus(id=self.id, state=state, reason=self._reason)

    def _cancel(self) -> None:
        self.cancelled += 1

    def _failure(self, status: RunStatus, reason: str) -> TrainingFailedError:
        return TrainingFailedError(f"{status.id}: {reason}", cure="rehearse")


def test_waiting_goes_on_until_the_run_has_ended_and_gives_the_run() -> None:
    run = Scripted(RunState.PENDING, RunState.RUNNING, RunState.SUCCEEDED)
    assert run.wait(poll_s=AT_ONCE_S) is run
    assert (run.status.state, run.cancelled) == (RunState.SUCCEEDED, 0)


def test_an_interrupted_wait_cancels_the_run() -> None:
    run = Scripted(RunState.RUNNING, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        run.wait(poll_s=AT_ONCE_S)
    assert run.cancelled == 1


def test_a_wait_that_is_given_up_leaves_the_run_alone() -> None:
    run = Scripted(RunState.RUNNING)
    with pytest.raises(WaitTimeoutError, match=r"rehearsal r-1 is still running after 0 s"):
        run.wait(timeout_s=0, poll_s=AT_ONCE_S)
    assert run.cancelled == 0


@pytest.mark.parametrize("reason,said", [("no oxide", "no oxide"), (None, "no reason given")])
def test_a_failure_says_its_reason_and_where_it_was_waited_for(
    reason: str | None, said: str
) -> None:
    with pytest.raises(TrainingFailedError, match=f"r-1: {said}") as caught:
        Scripted(RunState.FAILED, reason=reason).wait(poll_s=AT_ONCE_S)
    assert (caught.value.provider, caught.value.operation) == ("stage", "trainer.wait")
    assert caught.value.cure == "rehearse"


def test_a_run_that_was_cancelled_elsewhere_is_told_as_cancelled() -> None:
    with pytest.raises(CancelledError, match="rehearsal r-1 was cancelled") as caught:
        Scripted(RunState.CANCELLED).wait(poll_s=AT_ONCE_S)
    assert (caught.value.provider, caught.value.operation) == ("stage", "trainer.wait")


@pytest.mark.parametrize("show", [repr, lambda run: run._repr_html_()])
def test_a_run_is_shown_with_its_id_and_its_state_now(show: Callable[[Scripted], str]) -> None:
    run = Scripted(RunState.RUNNING, RunState.SUCCEEDED)
    first = show(run)
    assert "r-1" in first
    assert "running" in first
    assert "succeeded" in show(run)


class Unheard:
    """A trainer that knows its runs' states, and doesn't reach what they print."""

    provider = "stage"

    def __init__(self, *states: RunState, before: bytes = b"") -> None:
        self._states, self._before = list(states), before

    def status(self, run_id: str) -> RunStatus:
        state = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        return RunStatus(id=run_id, state=state, reason="out of memory")

    def read_log(self, run_id: str, offset: int) -> bytes:
        if offset < len(self._before):
            return self._before[offset:]
        raise UnavailableError(f"no route to the node of {run_id} at {offset}")

    def cancel(self, run_id: str) -> None: ...

    def outputs(self, run_id: str) -> Path:
        raise NotImplementedError(run_id)


def test_a_line_that_holds_no_metric_is_none() -> None:
    whole = b'edgefleet-metric {"name":"loss","value":0.5}'
    assert parse_metric(whole) == Metric("loss", 0.5)
    for line in (whole[:-1], b"edgefleet-metric []", whole[:-1] + b',"x":' + b"[" * 100_000):
        assert parse_metric(line) is None


def test_a_failure_is_told_though_its_log_cannot_be_read() -> None:
    run = TrainingRun(Unheard(RunState.FAILED), "r-1")
    with pytest.raises(TrainingFailedError, match=r"r-1 failed: out of memory\n.*no route to the"):
        run.wait(poll_s=AT_ONCE_S)


def test_what_could_be_read_of_a_log_is_told_with_the_failure() -> None:
    before = "".join(f"line {number}\n" for number in range(40)).encode()
    run = TrainingRun(Unheard(RunState.FAILED, before=before), "r-1")
    with pytest.raises(TrainingFailedError, match=r"line 38\n  \| line 39\n.*no route to the"):
        run.wait(poll_s=AT_ONCE_S)


def test_waiting_goes_on_while_the_log_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgefleet.interfaces.progress.someone_looks", lambda: True)
    run = TrainingRun(Unheard(RunState.RUNNING, RunState.SUCCEEDED), "r-1")
    assert run.wait(poll_s=AT_ONCE_S) is run
    with pytest.raises(UnavailableError):
        _ = run.metrics
