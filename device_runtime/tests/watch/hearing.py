"""Readings as the tap hands them on, and answers with one score."""

from __future__ import annotations

from edgefleet.protocol.event import OutputSummary, Prediction, Reading
from edgefleet_runtime.watch.seen import Heard, Seen

START = 1_800_000_000.0


def heard(
    values: dict[str, float | None] | float, at: float, *, key: str = "", time: float | None = None
) -> Heard:
    """A reading of ``motor`` at so many seconds, by both clocks unless ``time`` says otherwise."""
    named: dict[str, float | None] = values if isinstance(values, dict) else {"v": values}
    reading = Reading(stream="motor", key=key, values=named)
    return Heard(reading, START + at if time is None else time, at)


def answer(score: float | None, top: int = 1) -> tuple[OutputSummary, ...]:
    """What is kept of an output with ten classes."""
    if score is None:
        return (OutputSummary(name="y", shape=(1, 10), values=(0.5,)),)
    summary = OutputSummary(name="y", shape=(1, 10), values=(0.5, 0.25), top=(top,), score=(score,))
    return (summary,)


def asked(score: float | None, at: float, *, model: str = "digits", top: int = 1) -> Seen:
    """A request to a model at so many seconds."""
    return Seen(
        model=model,
        version="3",
        bundle="sha256:a",
        variant="fp32",
        inputs={},
        outputs={},
        answers=answer(score, top),
        run_us=310.0,
        time=START + at,
        at=at,
    )


def predicted(score: float | None, *, model: str = "digits") -> Prediction:
    """The event of a request."""
    return Prediction(
        model=model,
        model_version="3",
        bundle="sha256:a",
        variant="fp32",
        outputs=answer(score),
        latency_us=310.0,
    )
