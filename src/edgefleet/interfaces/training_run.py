"""A training run as the user holds it: status, logs, metrics, outputs, read by its trainer."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Protocol, final

import msgspec

from edgefleet.errors import EdgeFleetError, NotFoundError, TrainingFailedError
from edgefleet.interfaces.ending import POLL_S, Run
from edgefleet.protocol.typed import UNREADABLE, decoder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgefleet.interfaces.training import RunStatus

METRIC_PREFIX = b"edgefleet-metric "
MAX_LINE = 1 << 20  # bytes of one log line; longer ones are cut into several
_TAIL_LINES = 15


class Metric(msgspec.Struct, frozen=True):
    """One logged figure. ``step`` is the script's own count, None where it gave none."""

    name: str
    value: float
    step: int | None = None


class Runs(Protocol):
    """The slice of a trainer that a run is read through."""

    provider: str

    def status(self, run_id: str) -> RunStatus: ...
    def read_log(self, run_id: str, offset: int) -> bytes: ...
    def cancel(self, run_id: str) -> None: ...
    def outputs(self, run_id: str) -> Path: ...


@final
class TrainingRun(Run["RunStatus"]):
    """A run, held by its id. Cheap to make; every property asks the trainer."""

    kind = "training run"

    def __init__(self, trainer: Runs, run_id: str) -> None:
        super().__init__(run_id, provider=trainer.provider)
        self._trainer = trainer
        self._scan = _MetricScan(self)

    def _look(self) -> RunStatus:
        return self._trainer.status(self.id)

    def _cancel(self) -> None:
        self._trainer.cancel(self.id)

    def _tell(self, status: RunStatus) -> str:
        try:
            figures = [f"{m.name}={m.value:.4g}" for m in self._scan.newest().values()]
        except EdgeFleetError as error:
            figures = [f"(its log can't be read now: {error.message})"]
        return "  ".join((status.state.value, *figures))

    def _failure(self, status: RunStatus, reason: str) -> TrainingFailedError:
        tail: deque[str] = deque(maxlen=_TAIL_LINES)
        try:
            tail.extend(f"  | {text}" for text in self.logs())
        except EdgeFleetError as error:  # the run's own reason is what counts
            tail.append(f"  (no more of its log can be read: {error.message})")
        return TrainingFailedError(
            "\n".join((f"{self._named} failed: {reason}", *tail)),
            cure="mend the script or its data and submit again; the whole log: run.logs()",
        )

    def logs(self, *, follow: bool = False, poll_s: float = POLL_S) -> Iterator[str]:
        """The run's output line by line, errors and metrics included.

        Args:
            follow: go on until the run ends.
            poll_s: seconds between looks while following.
        """
        for line in self._lines(follow=follow, poll_s=poll_s):
            yield line.decode("utf-8", "replace")

    def _lines(self, *, follow: bool = False, poll_s: float = POLL_S) -> Iterator[bytes]:
        offset, rest = 0, b""
        while True:
            ended = not follow or self.status.state.ended
            chunk = self._chunk(offset)
            offset += len(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines
            if len(rest) > MAX_LINE:
                yield rest
                rest = b""
            if chunk:
                continue
            if ended:
                break
            time.sleep(poll_s)
        if rest:
            yield rest

    def _chunk(self, offset: int) -> bytes:
        return self._trainer.read_log(self.id, offset)

    @property
    def metrics(self) -> dict[str, float]:
        """The newest value of each metric."""
        return {name: metric.value for name, metric in _MetricScan(self).newest().items()}

    def metric_history(self, name: str) -> list[Metric]:
        """Every value of one metric, in the order logged."""
        found = (parse_metric(line) for line in self._lines())
        return [metric for metric in found if metric is not None and metric.name == name]

    @property
    def outputs(self) -> Path:
        """Folder on this machine with what the script left in its output folder.

        Raises:
            TrainingFailedError: the run hasn't succeeded.
        """
        return self._trainer.outputs(self.id)

    @property
    def model(self) -> Path:
        """The model among the outputs: ``model.onnx``, or the only ``.onnx`` file there is.

        Raises:
            NotFoundError: none, or several and none of that name.
        """
        return model_in(self.outputs, of=self._named)


def model_in(outputs: Path, *, of: str) -> Path:
    """The model among the outputs of a run: ``model.onnx``, or the only ``.onnx`` file there is.

    Args:
        outputs: folder of what the run left.
        of: names the run in an error.

    Raises:
        NotFoundError: none, or several and none of that name.
    """
    named = outputs / "model.onnx"
    found = [named] if named.is_file() else sorted(outputs.rglob("*.onnx"))
    if len(found) != 1:
        there = ", ".join(str(path.relative_to(outputs)) for path in found) or "none"
        msg = f"{of} left {len(found)} ONNX files: {there}"
        cure = "let the script write model.onnx into EDGEFLEET_OUTPUT_DIR"
        raise NotFoundError(msg, cure=cure)
    return found[0]


def parse_metric(line: bytes) -> Metric | None:
    """The metric of a log line; None when it is none, or a malformed one."""
    if not line.startswith(METRIC_PREFIX):
        return None
    try:
        return decoder(Metric).decode(line[len(METRIC_PREFIX) :].strip())
    except UNREADABLE:
        return None


class _MetricScan:
    """Newest metrics, reading only what was printed since the last look."""

    def __init__(self, run: TrainingRun) -> None:
        self._run, self._offset, self._rest = run, 0, b""
        self._newest: dict[str, Metric] = {}

    def newest(self) -> dict[str, Metric]:
        while chunk := self._run._chunk(self._offset):  # noqa: SLF001
            self._offset += len(chunk)
            *lines, rest = (self._rest + chunk).split(b"\n")
            self._rest = rest[-MAX_LINE:]
            for metric in filter(None, map(parse_metric, lines)):
                self._newest[metric.name] = metric
        return self._newest
