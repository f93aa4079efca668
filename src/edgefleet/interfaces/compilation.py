"""Compiling a model for a kind of device, by a service of the trainer's vendor.

What comes of it is a file in the vendor's own format: one more variant of a bundle, for devices
with an engine for that format. Nothing here says that it is faster: measure it.
"""

from __future__ import annotations

from abc import abstractmethod
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, final

from pydantic import Field, field_validator

from edgefleet.errors import NotFoundError, TrainingFailedError
from edgefleet.interfaces.ending import Run
from edgefleet.interfaces.service import Service
from edgefleet.interfaces.training import Param, RunState
from edgefleet.interfaces.values import Value

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_RUNTIME_S = 900.0


class CompilationJob(Value):
    """What to compile, and for what.

    Attributes:
        model: an ONNX file, without external data files.
        opset: of the model's default domain.
        shapes: shape of each input, every dimension a number; by the input's name, in order.
        device: the service's own name of a kind of device.
        options: options of the compiler, by the service's own names.
        max_runtime_s: the job is ended after so many seconds.
    """

    model: Path
    opset: int = Field(ge=1)
    shapes: dict[str, tuple[int, ...]]
    device: str
    options: dict[str, Param] = Field(default_factory=dict)
    max_runtime_s: float = Field(default=DEFAULT_RUNTIME_S, gt=0)

    @field_validator("shapes")
    @classmethod
    def _are_numbers(cls, shapes: Mapping[str, tuple[int, ...]]) -> Mapping[str, tuple[int, ...]]:
        for name, shape in shapes.items():
            if any(size < 1 for size in shape):
                msg = f"input {name!r} is open in {list(shape)}: give its whole shape"
                raise ValueError(msg)
        return shapes


class CompilationStatus(Value):
    """A compilation at one moment. ``format`` is what its file is called in a bundle."""

    id: str
    state: RunState
    device: str
    format: str
    submitted: datetime | None = None
    ended: datetime | None = None
    reason: str | None = None


class CanCompile(Service):
    """The trainer's vendor has a service that compiles models for devices."""

    @final
    def compile(self, job: CompilationJob) -> CompilationRun:
        """Start a compilation and return at once.

        Raises:
            UnsupportedError: the service takes no such device, or no such model.
        """
        with self._boundary("compile"):
            return CompilationRun(self, self._compile(job))

    @final
    def compilation_status(self, compilation_id: str) -> CompilationStatus:
        """A compilation at this moment.

        Raises:
            NotFoundError: no such compilation, or the backend has forgotten it.
        """
        with self._boundary("compilation_status"):
            status = self._compilation_status(compilation_id)
        if status is None:
            msg = f"no compilation {compilation_id!r}"
            raise NotFoundError(msg, cure="check the id that compile() gave")
        return status

    @final
    def cancel_compilation(self, compilation_id: str) -> None:
        """End a compilation; no error when it has ended."""
        with self._boundary("cancel_compilation"):
            self._cancel_compilation(compilation_id)

    @final
    def compiled(self, compilation_id: str) -> Path:
        """The file on this machine that a compilation made.

        Raises:
            TrainingFailedError: it hasn't succeeded.
        """
        status = self.compilation_status(compilation_id)
        if status.state is not RunState.SUCCEEDED:
            msg = f"compilation {compilation_id} is {status.state.value}: it has made no file"
            raise TrainingFailedError(msg, cure="wait for it with its wait()")
        with self._boundary("compiled"):
            return self._compiled(compilation_id)

    @abstractmethod
    def _compile(self, job: CompilationJob) -> str:
        """Start a compilation and return its id."""

    @abstractmethod
    def _compilation_status(self, compilation_id: str) -> CompilationStatus | None: ...

    @abstractmethod
    def _cancel_compilation(self, compilation_id: str) -> None: ...

    @abstractmethod
    def _compiled(self, compilation_id: str) -> Path: ...


@final
class CompilationRun(Run[CompilationStatus]):
    """A compilation, held by its id. Cheap to make; every property asks the trainer."""

    kind = "compilation"

    def __init__(self, trainer: CanCompile, compilation_id: str) -> None:
        super().__init__(compilation_id, provider=trainer.provider)
        self._trainer = trainer

    def _look(self) -> CompilationStatus:
        return self._trainer.compilation_status(self.id)

    def _cancel(self) -> None:
        self._trainer.cancel_compilation(self.id)

    def _failure(self, status: CompilationStatus, reason: str) -> TrainingFailedError:
        return TrainingFailedError(
            f"{self._named} for {status.device} failed: {reason}",
            cure="change what the reason names, or ship the model as it is: an .onnx file serves",
        )

    @property
    def file(self) -> Path:
        """The file that was made, on this machine: for `Bundle.add_variant`.

        Raises:
            TrainingFailedError: the compilation hasn't succeeded.
        """
        return self._trainer.compiled(self.id)
