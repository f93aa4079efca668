"""Trials: candidates made in a work folder and judged on the caller's data, one after the other."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from numbers import Number
from typing import TYPE_CHECKING, Any, SupportsFloat

from edgefleet.errors import EdgeFleetError, InvalidInputError, InvalidModelError
from edgefleet.optimization.choice import QUANTIZED, Offer
from edgefleet.optimization.gate import is_slower, judge_accuracy
from edgefleet.optimization.onnx_file import inspect
from edgefleet.optimization.quantize import quantize, refusal
from edgefleet.optimization.self_test import made_up_samples
from edgefleet.optimization.session import Session, compare_latency

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefleet.optimization.onnx_file import OnnxFile
    from edgefleet.optimization.samples import Feed, Samples
    from edgefleet.optimization.session import Latency

    Evaluate = Callable[[Callable[[Any], Any]], SupportsFloat]
    """``evaluate(predict) -> accuracy``; see `optimize`."""

    Say = Callable[[str], object]
    """Shows what is being done."""

GIVEN = "the model as given"
NO_EVALUATE = "its accuracy is unknown: give evaluate="


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A candidate and what was found of it.

    Attributes:
        precision: of its weights, and its name.
        file: what was made; None where nothing could be.
        refused: why it isn't shipped to anybody; empty when it passed.
        why: what speaks for it.
        slower: set when it is slower here than the model as given, with the figures.
        accuracy: what ``evaluate`` gave.
        drop: accuracy lost against the model as given.
        latency: measured here, where it was.
    """

    precision: str
    file: OnnxFile | None = None
    refused: str = ""
    why: str = ""
    slower: str = ""
    accuracy: float | None = None
    drop: float | None = None
    latency: Latency | None = None

    def offer(self) -> Offer:
        """The candidate as the choice sees it."""
        return Offer(
            precision=self.precision,
            opset=None if self.file is None else self.file.opset,
            refused=self.refused,
            slower=self.slower,
        )


def try_given(file: OnnxFile, precision: str, evaluate: Evaluate | None, say: Say) -> Trial:
    """The model as given, which sets what others are held against.

    Raises:
        InvalidModelError: onnxruntime can't load it.
        InvalidInputError: ``evaluate`` fails on it or gives no number.
    """
    say(f"{precision}: evaluating {GIVEN}")
    session = Session(file.path, file.interface)
    accuracy = None if evaluate is None else evaluated(evaluate, session, GIVEN)
    drop = None if accuracy is None else 0.0
    return Trial(precision=precision, file=file, why=GIVEN, accuracy=accuracy, drop=drop)


def try_int8(
    given: Trial,
    samples: Samples | None,
    evaluate: Evaluate | None,
    work: Path,
    *,
    max_drop: float,
    say: Say,
) -> Trial:
    """Make an int8 candidate and judge its accuracy.

    Args:
        given: the trial of the model as given.
        samples: calibration data.
        evaluate: measures accuracy.
        work: an empty folder that the caller removes.
        max_drop: accuracy that it may lose.
        say: shows what is being done.

    Raises:
        InvalidInputError: ``evaluate`` fails on the candidate or gives no number.
    """
    trial = Trial(precision=QUANTIZED)
    if given.file is None:
        return replace(trial, refused="there is no model to make it of")
    reason = refusal(given.file, samples) or (NO_EVALUATE if evaluate is None else None)
    if reason is not None or samples is None or evaluate is None:
        return replace(trial, refused=reason or NO_EVALUATE)
    seen = 0

    def calibrated(count: int) -> None:
        nonlocal seen
        seen += count
        say(f"int8: calibrating, {seen} of {samples.count} samples")

    say("int8: preparing")
    made = work / "int8.onnx"
    reason = quantize(given.file, samples, made, progress=calibrated)
    if reason is not None:
        return replace(trial, refused=reason)
    file = replace(inspect(made), interface=given.file.interface)
    if file.size_bytes >= given.file.size_bytes:
        return replace(trial, file=file, refused=f"it is not smaller than {GIVEN}")
    say("int8: evaluating")
    try:
        session = Session(made, given.file.interface)
    except InvalidModelError as error:
        return replace(trial, refused=f"what the quantizer made is not usable: {error.message}")
    accuracy = evaluated(evaluate, session, "the int8 candidate")
    verdict = judge_accuracy(given.accuracy or 0.0, accuracy, max_drop)
    return replace(
        trial,
        file=file,
        accuracy=accuracy,
        drop=verdict.drop,
        why=verdict.reason,
        refused="" if verdict.passed else verdict.reason,
    )


def measure(trials: list[Trial], feed: Feed, say: Say) -> list[Trial]:
    """The same trials with latencies; ``slower`` is set by the first, the model as given."""
    made = [trial for trial in trials if trial.file is not None]
    say("measuring latency")
    sessions = {
        trial.precision: Session(trial.file.path, trial.file.interface)
        for trial in made
        if trial.file is not None
    }
    found = compare_latency(sessions, feed)
    base = found[trials[0].precision]
    return [
        replace(trial, latency=latency, slower=_slower(latency, base))
        if (latency := found.get(trial.precision)) is not None
        else trial
        for trial in trials
    ]


def _slower(latency: Latency, base: Latency) -> str:
    if not is_slower(latency, base):
        return ""
    return (
        f"{latency.p50_s * 1e3:.3g} ms a call here, slower than {base.p50_s * 1e3:.3g} ms as given"
    )


def one_call(file: OnnxFile, samples: Samples | None, *, seed: int) -> Feed | None:
    """Input of one call, of the caller's data or made up; None where neither is possible."""
    found = made_up_samples(file.interface, seed=seed) if samples is None else samples
    return None if isinstance(found, str) else found.smallest(0)


def evaluated(evaluate: Evaluate, session: Session, what: str) -> float:
    """What the caller's ``evaluate`` says of a model, checked to be a finite number.

    Raises:
        InvalidInputError: it raises, or gives anything else.
    """
    try:
        value: Any = evaluate(session.predict)
    except EdgeFleetError:
        raise
    except Exception as error:
        raise InvalidInputError(
            f"evaluate() failed on {what}: {type(error).__name__}: {error}",
            cure="predict(x) gives an array, or with several outputs a mapping of name to array; "
            f"the outputs are {', '.join(spec.name for spec in session.interface.outputs)}",
        ) from error
    accuracy = _number(value)
    if accuracy is None:
        raise InvalidInputError(
            f"evaluate() gave {value!r:.100} for {what}, not a finite number",
            cure="return the accuracy as a float, higher is better",
        )
    return accuracy


def _number(value: Any) -> float | None:  # noqa: ANN401 - whatever the caller's function gave
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()  # numpy's and torch's scalars
    if isinstance(value, bool) or not isinstance(value, Number) or isinstance(value, complex):
        return None
    number = float(value)  # type: ignore[arg-type] # real numbers convert
    return number if math.isfinite(number) else None
