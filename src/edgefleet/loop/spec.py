"""What a loop does: the values of a ``loop.yaml``. `edgefleet.loop.reading` makes them of a file.

Nothing here is contacted or run. Paths are absolute once a file was read.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from edgefleet.interfaces.policy import RolloutPolicy
from edgefleet.interfaces.training import Param, Resources
from edgefleet.interfaces.values import Value
from edgefleet.loop.spans import Span, span
from edgefleet.protocol.names import MAX_MODEL_CHARACTERS, MODEL_PATTERN

_NAME = MODEL_PATTERN.replace(r"\A", "^").replace(r"\Z", "$")
ModelText = Annotated[str, Field(pattern=_NAME, max_length=MAX_MODEL_CHARACTERS)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
LAST_TURN = "last-turn"


def _since(given: object) -> timedelta | None:
    """The span of a dataset; None for ``last-turn``."""
    return None if given in (None, LAST_TURN) else span(given)


class DriftTrigger(Value):
    """A turn begins when what devices saw since the last one began isn't what the model expects.

    So a drift that outlasts a turn, however that ended, begins the next one, as far as limits let
    it; what was seen before doesn't count again.

    Attributes:
        features: share of the features that have moved over the fleet, at least one.
        devices: share of the devices with windows of which any feature has moved, at least one.
    """

    features: Share = 0.0
    devices: Share = 0.0


class Trigger(Value):
    """When a turn begins: any of these, or a person's ``--now``.

    Attributes:
        drift: the data has moved.
        schedule: cron expression in UTC: a time that it names has come since the last turn.
        labelled: so many samples were labelled since the last turn took its own.
    """

    drift: DriftTrigger | None = None
    schedule: str | None = None
    labelled: Positive | None = None

    @field_validator("schedule")
    @classmethod
    def _is_cron(cls, text: str | None) -> str | None:
        if text is not None:
            from cronsim import CronSim, CronSimError  # noqa: PLC0415 - an extra

            try:
                CronSim(text, datetime.now(UTC))
            except CronSimError as error:
                msg = f"{text!r} is no cron expression: {error}"
                raise ValueError(msg) from error
        return text


class DatasetSpec(Value):
    """Which samples are taken.

    Attributes:
        strategy: as of `Fleet.dataset`.
        since: captured in the span before the turn begins, or since the last turn began:
            ``last-turn`` (None here), which before the first means all there are.
        balance: as many of each class.
        most: so many samples at most.
        held_back: share that isn't trained on: active and candidate are compared on it.
        labels: what people said: a dataset's folder or a file of labels, as
            `Dataset.import_labels` writes it. It needn't be there yet.
        least: labelled samples that a turn needs, those held back included; it waits for them.
    """

    strategy: Literal["all", "uniform", "hard-examples", "drifted", "rare"] = "all"
    labels: Path | None = None
    since: Annotated[timedelta | None, BeforeValidator(_since)] = timedelta(days=30)
    balance: bool = False
    most: Positive = 10_000
    held_back: Annotated[float, Field(gt=0, lt=1)] = 0.25
    least: Positive = 100


class TrainSpec(Value):
    """What makes a candidate; see `TrainingJob`.

    Attributes:
        script: a Python file. ``EDGEFLEET_DATA_DIR`` is a folder with ``samples.npz``: each input
            by its name, ``labels``, and ``ids`` of the samples.
        params: JSON scalars by name.
        requirements: pip requirements.
        resources: what the run needs.
    """

    script: Path
    params: dict[str, Param] = Field(default_factory=dict)
    requirements: tuple[str, ...] = ()
    resources: Resources = Resources()

    @field_validator("script")
    @classmethod
    def _script_exists(cls, script: Path) -> Path:
        if not script.is_file():
            msg = f"no training script at {script}"
            raise ValueError(msg)
        return script


class OptimizeSpec(Value):
    """What `edgefleet.optimize` makes of it; calibrated with what was trained on.

    Attributes:
        targets: names of hardware targets.
        evaluate: ``PATH.py:FUNCTION``, called with ``predict``; None for the metric of `compare`
            on the frozen test set.
        max_accuracy_drop: accuracy that a variant may lose.
    """

    targets: Annotated[tuple[str, ...], Field(min_length=1)]
    evaluate: str | None = None
    max_accuracy_drop: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.01


class CompareSpec(Value):
    """How active and candidate are compared before anything reaches a device.

    Attributes:
        frozen: an ``.npz`` file: each input by its name, and the labels. No turn trains on it.
        labels: the name of the labels in it.
        metric: ``accuracy``, or ``PATH.py:FUNCTION`` called with ``predict``, the inputs by name
            and the labels; higher is better.
        output: which output tells the class; None where it is clear.
        max_loss: the candidate may be so much worse on the frozen test set.
        min_gain: and must be so much better on the samples held back; better at all for 0.
    """

    frozen: Path
    labels: str = "labels"
    metric: str = "accuracy"
    output: str | None = None
    max_loss: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.02
    min_gain: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @field_validator("frozen")
    @classmethod
    def _test_set_exists(cls, frozen: Path) -> Path:
        if not frozen.is_file():
            msg = f"no frozen test set at {frozen}"
            raise ValueError(msg)
        return frozen


class ShadowSpec(Value):
    """How a candidate is tried beside the active model, and when it has proven itself.

    It has when it was tried enough (``requests`` and ``lasts``, those given) and one of the two
    rules holds: it agrees with the active model, or it is better on samples labelled meanwhile.

    Attributes:
        requests: answers compared, over all devices.
        lasts: or for so long.
        min_agreement: share of results with the same class.
        min_gain: score above the active model's on samples labelled since the shadow began …
        min_labelled: … of which there are so many.
        max_rejected: share of the devices that may reject it.
        gives_up: the candidate is discarded when it hasn't proven itself by then.
    """

    requests: Positive | None = None
    lasts: Span | None = None
    min_agreement: Share | None = None
    min_gain: Annotated[float, Field(allow_inf_nan=False)] | None = None
    min_labelled: Positive = 50
    max_rejected: Share = 0.0
    gives_up: Span = timedelta(days=14)

    @model_validator(mode="after")
    def _can_prove_itself(self) -> Self:
        if self.requests is None and self.lasts is None:
            msg = "say how long the shadow runs: requests, lasts, or both"
            raise ValueError(msg)
        if self.min_agreement is None and self.min_gain is None:
            msg = "say what it must prove: min_agreement, min_gain, or both"
            raise ValueError(msg)
        if self.lasts is not None and self.lasts >= self.gives_up:
            msg = "gives_up must be longer than lasts"
            raise ValueError(msg)
        return self


class PromoteSpec(Value):
    """How the candidate becomes active.

    Attributes:
        cohort_permille: first for so many of a thousand devices; None for all at once.
        policy: how it reaches devices.
        min_attested: share of a group's devices that must attest it, with a cohort twice.
    """

    cohort_permille: Annotated[int, Field(ge=1, le=1000)] | None = None
    policy: RolloutPolicy | None = None
    min_attested: Share = 1.0


class Budget(Value):
    """What training may cost: hours of runs, each times its machines, in so many days."""

    training_hours: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    days: Positive = 30


class Limits(Value):
    """What a loop may take.

    Attributes:
        every: at most one turn in this span.
        budget: of training.
    """

    every: Span | None = None
    budget: Budget | None = None


class LoopSpec(Value):
    """A whole loop.

    Attributes:
        name: the loop's own; its state lies under it.
        model: the model that it keeps good.
        groups: of devices that run the model; all of them run the same version.
        trigger: when a turn begins.
        dataset: which samples are taken.
        train: what makes a candidate of them.
        optimize: what makes variants of that; None ships the model as it was trained.
        compare: what a candidate must be to reach a device.
        approval: ``required``: a person approves the version first. It is anyhow where the profile
            requires it.
        shadow: how the candidate is tried; None promotes it at once.
        promote: how it becomes active.
        limits: what all this may take.
        lease_s: a process that died holds the loop for so many seconds.
    """

    name: ModelText
    model: ModelText
    groups: Annotated[tuple[str, ...], Field(min_length=1)]
    trigger: Trigger = Trigger()
    dataset: DatasetSpec = DatasetSpec()
    train: TrainSpec
    optimize: OptimizeSpec | None = None
    compare: CompareSpec
    approval: Literal["none", "required"] = "none"
    shadow: ShadowSpec | None = None
    promote: PromoteSpec = PromoteSpec()
    limits: Limits = Limits()
    lease_s: Annotated[float, Field(ge=1, le=600)] = 30.0
