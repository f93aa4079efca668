"""Train, evaluate, register, as one thing that the backend itself carries through.

The operator's machine may be off meanwhile. Three steps, each a training run of its own that can be
looked at; between the second and the third stands a gate:

==========  ====================================================================================
train       the training script
evaluate    the evaluating script: the same contract, and ``EDGEFLEET_MODEL_DIR`` is the folder of
            what the training script left; it logs the gate's metric
gate        compares the newest value of that metric
register    stores the model as a version in the profile's registry, approval pending
==========  ====================================================================================
"""

from __future__ import annotations

import json
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, final

from pydantic import Field, field_validator, model_validator

from edgefleet.errors import NotFoundError, TrainingFailedError
from edgefleet.interfaces.ending import Run
from edgefleet.interfaces.service import Service
from edgefleet.interfaces.training import RunState, TrainingJob
from edgefleet.interfaces.values import Value
from edgefleet.protocol.names import MAX_MODEL_CHARACTERS, MODEL_PATTERN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefleet.interfaces.training_run import TrainingRun
    from edgefleet.interfaces.values import ModelVersion

VERSION_FILE = "version.json"  # of the registering step's outputs
_NAME = MODEL_PATTERN.replace(r"\A", "^").replace(r"\Z", "$")


class Gate(Value):
    """What a metric must reach for a model to go on.

    Attributes:
        metric: name of the metric, as the evaluating script logs it.
        at_least: the least value that passes.
        at_most: the greatest value that passes; for losses. One of the two is given.
    """

    metric: str = Field(pattern=r"^[A-Za-z0-9_.:/@ -]{1,128}$")
    at_least: float | None = Field(default=None, allow_inf_nan=False)
    at_most: float | None = Field(default=None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _has_one_bound(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            msg = "a gate has one bound: at_least or at_most"
            raise ValueError(msg)
        return self

    def passes(self, value: float) -> bool:
        """Whether a value of the metric lets a model go on."""
        if self.at_least is not None:
            return value >= self.at_least
        return self.at_most is not None and value <= self.at_most


def told_of_version(version: ModelVersion) -> str:
    """What `VERSION_FILE` holds."""
    return json.dumps({"reference": version.reference, "digest": version.digest})


def registered_in(told: bytes | str) -> str:
    """``name:version`` that a `VERSION_FILE` tells."""
    return str(json.loads(told)["reference"])


def told_to_register(
    automation: Automation, *, reach: Mapping[str, Any], data: str | None
) -> dict[str, str]:
    """What `register_trained` is told that is known before anything runs, as parameters.

    Args:
        automation: asked for.
        reach: settings that the registering step reaches the registry with.
        data: digest of the training data; None for none that is known.
    """
    lineage = {"automation": automation.name} | ({} if data is None else {"data": data})
    return {
        "model": automation.model,
        "reach": json.dumps(reach),
        "lineage": json.dumps(lineage),
    }


class Automation(Value):
    """What to train, how to judge it, and what to call it.

    Attributes:
        train: the training; its data go to the evaluating script as well.
        evaluate: a Python file; its folder is sent along.
        gate: what the model must reach.
        model: the name under which it is registered.
        name: the automation's own; the same again is a new execution of the same automation.
    """

    train: TrainingJob
    evaluate: Path
    gate: Gate
    model: str = Field(pattern=_NAME, max_length=MAX_MODEL_CHARACTERS)
    name: str = Field(pattern=_NAME, max_length=MAX_MODEL_CHARACTERS)

    @field_validator("evaluate")
    @classmethod
    def _script_exists(cls, script: Path) -> Path:
        if not script.is_file():
            msg = f"no evaluating script at {script}"
            raise ValueError(msg)
        return script.absolute()


class StepStatus(Value):
    """A step: ``train``, ``evaluate``, ``gate`` or ``register``.

    ``run`` is the id of its training run; the gate has none.
    """

    name: str
    state: RunState
    run: str | None = None
    reason: str | None = None


class AutomationStatus(Value):
    """An execution at one moment.

    Attributes:
        id: of the execution.
        state: of the whole; one whose gate held the model back has succeeded all the same.
        passed: what the gate said; None before it did.
        steps: those that have begun, in that order.
        reason: why it failed.
    """

    id: str
    state: RunState
    passed: bool | None = None
    steps: tuple[StepStatus, ...] = ()
    reason: str | None = None


class CanAutomate(Service):
    """The trainer can carry train, evaluate and register through by itself."""

    @final
    def automate(self, automation: Automation) -> AutomationRun:
        """Start an execution and return at once.

        Raises:
            UnsupportedError: something asked for in ``train.resources`` can't be given.
            InvalidInputError: the data don't exist.
        """
        with self._boundary("automate"):
            return AutomationRun(self, self._automate(automation))

    @final
    def automation(self, execution_id: str) -> AutomationRun:
        """An execution by its id.

        Raises:
            NotFoundError: no such execution.
        """
        self.automation_status(execution_id)
        return AutomationRun(self, execution_id)

    @final
    def automation_status(self, execution_id: str) -> AutomationStatus:
        """An execution at this moment.

        Raises:
            NotFoundError: no such execution, or the backend has forgotten it.
        """
        with self._boundary("automation_status"):
            status = self._automation_status(execution_id)
        if status is None:
            msg = f"no automation {execution_id!r}"
            raise NotFoundError(msg, cure="check the id that automate() gave")
        return status

    @final
    def cancel_automation(self, execution_id: str) -> None:
        """End an execution and the step that runs; no error when it has ended."""
        with self._boundary("cancel_automation"):
            self._cancel_automation(execution_id)

    @final
    def registered(self, execution_id: str) -> str | None:
        """``name:version`` that an execution registered; None where it registered none."""
        with self._boundary("registered"):
            return self._registered(execution_id)

    @final
    def step_run(self, run_id: str) -> TrainingRun:
        """The training run of a step."""
        with self._boundary("step_run"):
            return self._step_run(run_id)

    @abstractmethod
    def _automate(self, automation: Automation) -> str:
        """Start an execution and return its id."""

    @abstractmethod
    def _automation_status(self, execution_id: str) -> AutomationStatus | None: ...

    @abstractmethod
    def _cancel_automation(self, execution_id: str) -> None: ...

    @abstractmethod
    def _registered(self, execution_id: str) -> str | None: ...

    @abstractmethod
    def _step_run(self, run_id: str) -> TrainingRun: ...


@final
class AutomationRun(Run[AutomationStatus]):
    """An execution, held by its id; it has ended well whatever its gate said.

    Cheap to make; every property asks the trainer.
    """

    kind = "automation"

    def __init__(self, trainer: CanAutomate, execution_id: str) -> None:
        super().__init__(execution_id, provider=trainer.provider)
        self._trainer = trainer

    def _look(self) -> AutomationStatus:
        return self._trainer.automation_status(self.id)

    def _cancel(self) -> None:
        self._trainer.cancel_automation(self.id)

    def _tell(self, status: AutomationStatus) -> str:
        return "  ".join(f"{step.name} {step.state.value}" for step in status.steps)

    def _failure(self, status: AutomationStatus, reason: str) -> TrainingFailedError:
        return TrainingFailedError(
            f"{self._named} failed: {reason}",
            cure="mend what the reason names and automate again; a step's log: run.step(…).logs()",
        )

    def step(self, name: str) -> TrainingRun:
        """The training run of a step, with its logs, metrics and outputs.

        Raises:
            NotFoundError: that step hasn't begun, or is no training run.
        """
        runs = {step.name: step.run for step in self.status.steps if step.run is not None}
        if name not in runs:
            msg = f"{self._named} has no run of a step {name!r}"
            raise NotFoundError(msg, cure=f"those that have begun: {', '.join(runs) or 'none'}")
        return self._trainer.step_run(runs[name])

    @property
    def version(self) -> str | None:
        """``name:version`` that was registered; None where the gate held the model back."""
        return self._trainer.registered(self.id)
