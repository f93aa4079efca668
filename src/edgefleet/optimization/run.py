"""`optimize`: candidates, trials, gate, bundle. What is decided, `gate` and `choice` decide."""

from __future__ import annotations

import logging
import math
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgefleet.errors import AccuracyGateError, InvalidInputError
from edgefleet.interfaces.progress import Bytes, Status
from edgefleet.optimization import choice, shipping
from edgefleet.optimization.bundle import Bundle
from edgefleet.optimization.libraries import require
from edgefleet.optimization.onnx_file import inspect
from edgefleet.optimization.packaging import servable_precision
from edgefleet.optimization.samples import calibration_samples
from edgefleet.optimization.summary import summarize
from edgefleet.optimization.trials import measure, one_call, try_given, try_int8
from edgefleet.protocol.names import check_name
from edgefleet.protocol.target import HardwareTarget, find_target

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from edgefleet.optimization.onnx_file import OnnxFile
    from edgefleet.optimization.report import OptimizationReport
    from edgefleet.optimization.samples import Samples
    from edgefleet.optimization.trials import Evaluate, Trial
    from edgefleet.protocol.bundle import Details

log = logging.getLogger(__name__)

DEFAULT_NAME = "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """The arguments of one call, checked."""

    name: str
    file: OnnxFile
    precision: str
    targets: tuple[HardwareTarget, ...]
    samples: Samples | None
    evaluate: Evaluate | None
    max_drop: float
    labels: tuple[str, ...]
    metrics: dict[str, float]
    seed: int
    progress: bool


def optimize(
    model: str | os.PathLike[str],
    *,
    targets: Sequence[str | HardwareTarget],
    calibration: NDArray[Any] | Mapping[str, NDArray[Any]] | None = None,
    evaluate: Evaluate | None = None,
    max_accuracy_drop: float = 0.01,
    name: str | None = None,
    labels: Sequence[str] = (),
    metrics: Mapping[str, float] | None = None,
    output: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Bundle:
    """A bundle with a variant for every target, none of which lost more accuracy than allowed.

    The model as given is always in it, for any device. Static int8 joins it for the targets that
    run it best, if calibration data and ``evaluate`` are given, it is smaller, it passes the gate,
    and, on targets like this machine, it isn't slower (`gate.is_slower`). ``bundle.report`` tells
    what was tried.

    The same model, data, seed, library versions and verdicts give the same digest: latencies are
    in the report, not in the bundle. Nothing is left behind when it fails or is interrupted.

    Args:
        model: path of an ONNX file; its external data files lie beside it.
        targets: names of hardware targets, or targets themselves.
        calibration: an array (one input) or a mapping of input name to array, samples along the
            first axis. Sets int8's ranges; self-test vectors and reference sketches are made of it
            too.
        evaluate: called with ``predict`` for each candidate, returns its accuracy, higher is
            better. ``predict`` takes an array (one input) or a mapping of input name to array,
            samples along the first axis, and returns an array where the model has one output, else
            a mapping of output name to array.
        max_accuracy_drop: accuracy that a candidate may lose, in the unit of ``evaluate``.
        name: the model's name in the bundle, ``model`` by default.
        labels: class names by index.
        metrics: figures to carry along; ``accuracy`` is replaced by what was measured a variant.
        output: a folder that doesn't exist yet, for the bundle. Without it the bundle lies in a
            temporary folder that goes when the returned object does.
        seed: decides which samples become self-test vectors.
        progress: show what is being done, where a person looks.

    Raises:
        InvalidModelError: the model is unfit, or onnxruntime can't load it.
        InvalidInputError: targets, data or ``evaluate`` are unusable, ``output`` exists, or no tool
            here makes what the targets' engines open.
        AccuracyGateError: what passed the gate suits no target; the message holds the report.
        NotFoundError: a target is unknown.
        MissingExtraError: numpy, onnx or onnxruntime isn't installed.
        StorageFullError: no room for the bundle.
    """
    require("numpy", "onnx", "onnxruntime")
    wanted = _targets(targets)
    if not (math.isfinite(max_accuracy_drop) and max_accuracy_drop >= 0):
        raise InvalidInputError(
            f"max_accuracy_drop is {max_accuracy_drop}",
            cure="give a number from 0 on, such as 0.01",
        )
    if output is not None and Path(output).exists():
        raise InvalidInputError(
            f"{output} exists already", cure="name a folder that does not exist yet"
        )
    file = inspect(_path(model))
    request = _Request(
        name=check_name("model", DEFAULT_NAME if name is None else name),
        file=file,
        precision=servable_precision(file),
        targets=wanted,
        samples=None if calibration is None else calibration_samples(calibration, file.interface),
        evaluate=evaluate,
        max_drop=max_accuracy_drop,
        labels=tuple(labels),
        metrics={key: float(value) for key, value in (metrics or {}).items()},
        seed=seed,
        progress=progress,
    )
    with tempfile.TemporaryDirectory(prefix="edgefleet-optimize-") as work:
        trials, report, details = _try(request, Path(work))
        if output is not None:
            _write(request, Path(output), trials, details, report)
            return Bundle(Path(output), report=report)
        return _temporary(request, trials, details, report)


def _try(
    request: _Request, work: Path
) -> tuple[list[Trial], OptimizationReport, dict[str, Details]]:
    arch = choice.architecture()
    with Status(f"{request.name}: reading", enabled=request.progress) as line:

        def say(text: str) -> None:
            line.update(f"{request.name}: {text}")

        given = try_given(request.file, request.precision, request.evaluate, say)
        trials = [given]
        wants_int8 = choice.wants_int8(request.targets, given.offer())
        if request.precision != choice.QUANTIZED and wants_int8:
            trials.append(
                try_int8(
                    given,
                    request.samples,
                    request.evaluate,
                    work,
                    max_drop=request.max_drop,
                    say=say,
                )
            )
        if any(choice.runs_here(target, arch) for target in request.targets):
            trials = _measured(request, trials, say)
        offers = {trial.precision: trial.offer() for trial in trials}
        assigned = choice.assign(request.targets, offers, arch=arch)
        report = summarize(
            request.name,
            trials,
            request.targets,
            assigned,
            arch=arch,
            max_accuracy_drop=request.max_drop,
            calibration_samples=0 if request.samples is None else request.samples.count,
        )
        _refuse_nothing(report, trials)
        say("recording self-test vectors")
        details = shipping.details_of(
            trials,
            report,
            request.samples,
            labels=request.labels,
            metrics=request.metrics,
            seed=request.seed,
        )
    return trials, report, details


def _measured(request: _Request, trials: list[Trial], say: Any) -> list[Trial]:  # noqa: ANN401
    feed = one_call(request.file, request.samples, seed=request.seed)
    if feed is None:
        return trials
    try:
        return measure(trials, feed, say)
    except InvalidInputError:
        if request.samples is not None:
            raise
        return trials  # made-up inputs don't suit this model: not measured


def _refuse_nothing(report: OptimizationReport, trials: list[Trial]) -> None:
    """Raise when no target gets a variant; say so when one doesn't."""
    without = [row.target for row in report.targets if row.variant is None]
    if len(without) < len(report.targets):
        if without:
            log.warning("%s: no variant for %s", report.model, ", ".join(without))
        return
    if any(trial.file is not None and trial.refused for trial in trials):
        raise AccuracyGateError(
            f"no candidate of {report.model} that suits a target passed the gate\n\n{report}\n",
            cure="calibrate with more, and more typical, samples, allow a larger "
            "max_accuracy_drop, or add a target that runs fp32",
        )
    raise InvalidInputError(
        f"no candidate of {report.model} suits a target\n\n{report}\n",
        cure="see the last column for what each target lacks",
    )


def _temporary(
    request: _Request,
    trials: list[Trial],
    details: Mapping[str, Details],
    report: OptimizationReport,
) -> Bundle:
    folder = Path(tempfile.mkdtemp(prefix="edgefleet-bundle-"))
    try:
        _write(request, folder / "bundle", trials, details, report)
        return Bundle(folder / "bundle", report=report, temporary=folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _write(
    request: _Request,
    to: Path,
    trials: list[Trial],
    details: Mapping[str, Details],
    report: OptimizationReport,
) -> None:
    total = sum(t.file.size_bytes for t in trials if t.file and t.precision in details)
    with Bytes(f"{request.name}: packing", total, enabled=request.progress) as bar:
        shipping.write(to, trials, details, report, progress=bar)


def _targets(targets: Sequence[str | HardwareTarget]) -> tuple[HardwareTarget, ...]:
    if isinstance(targets, str | HardwareTarget) or not targets:
        raise InvalidInputError(
            "targets is no list of hardware targets", cure="write targets=['x86-cpu', …]"
        )
    found = [t if isinstance(t, HardwareTarget) else find_target(t) for t in targets]
    return tuple({target.name: target for target in found}.values())


def _path(model: object) -> Path:
    if isinstance(model, str | os.PathLike):
        return Path(model)
    raise InvalidInputError(
        f"the model is a {type(model).__name__}, not the path of an ONNX file",
        cure="save it first: onnx.save(model, 'model.onnx')",
    )
