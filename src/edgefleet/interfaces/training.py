"""Values of training: what to run, what it needs, how far it is."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from pathlib import Path

from pydantic import Field, field_validator

from edgefleet.interfaces.values import Value
from edgefleet.protocol.names import MAX_MODEL_CHARACTERS, MODEL_PATTERN

Param = str | int | float | bool | None


class Resources(Value):
    """What a run needs. A trainer that can't give something refuses before anything is sent.

    Attributes:
        instance: the backend's own name of a machine type, such as ``ml.g5.xlarge``.
        count: machines.
        gpus: GPUs a machine.
        memory_gib: memory a machine in GiB.
        max_runtime_s: the run is ended after so many seconds.
    """

    instance: str | None = None
    count: int = Field(default=1, ge=1)
    gpus: int = Field(default=0, ge=0)
    memory_gib: float | None = Field(default=None, gt=0)
    max_runtime_s: float | None = Field(default=None, gt=0)


class TrainingJob(Value):
    """What to run.

    Attributes:
        script: a Python file; its folder is sent along.
        data: a file or folder; None for none.
        params: parameters, JSON scalars by name.
        name: prefix of the run's id.
        requirements: pip requirements that the script needs beside the backend's image; None for
            none.
        resources: what it needs.
    """

    script: Path
    data: Path | str | None = None
    params: dict[str, Param] = Field(default_factory=dict)
    name: str = Field(
        default="train",
        pattern=MODEL_PATTERN.replace(r"\A", "^").replace(r"\Z", "$"),
        max_length=MAX_MODEL_CHARACTERS,
    )
    requirements: tuple[str, ...] = ()
    resources: Resources = Resources()

    @field_validator("script")
    @classmethod
    def _script_exists(cls, script: Path) -> Path:
        if not script.is_file():
            msg = f"no training script at {script}"
            raise ValueError(msg)
        return script.absolute()


class RunState(StrEnum):
    """How far a run is."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self not in (RunState.PENDING, RunState.RUNNING)


class RunStatus(Value):
    """A run at one moment. ``reason`` tells why it failed, with the cure where one is known."""

    id: str
    state: RunState
    submitted: datetime | None = None
    started: datetime | None = None
    ended: datetime | None = None
    reason: str | None = None
    params: dict[str, Param] = Field(default_factory=dict)
    evidence: dict[str, str] = Field(default_factory=dict)
