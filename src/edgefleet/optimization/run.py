"""`optimize`: candidates, trials, gate, bundle. What is decided, `gate` and `choice` decide."""

from __future__ import annotations

import logging
import math
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgefleet.errors import AccuracyGateError, InvalidInputError
from edgefleet.interfaces.progress import Bytes, Steps
from edgefleet.optimization import choice, shipping
from edgefleet.optimization.bundle import Bundle
from edgefleet.optimization.cache import Cache, default_folder
from edgefleet.optimization.classical import as_onnx_file
from edgefleet.optimization.classical_graph import is_classical
from edgefleet.optimization.libraries import require
from edgefleet.optimization.on_device import check_device, measure_on
from edgefleet.optimization.onnx_file import inspect
from edgefleet.optimization.packaging import servable_precision
from edgefleet.optimization.recipes import select
from edgefleet.optimization.results import Results
from edgefleet.optimization.samples import calibration_samples
from edgefleet.optimization.summary import summarize
from edgefleet.optimization.trials import Bench, measure, one_call, try_all
from edgefleet.protocol.files import check_new_folder
from edgefleet.protocol.hardware_target import architecture
from edgefleet.protocol.names import check_name
from edgefleet.protocol.target import HardwareTarget, find_target
from edgefleet.protocol.target_problems import check_targets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edgefleet.optimization.evaluation import Evaluate
    from edgefleet.optimization.makers import Say
    from edgefleet.optimization.on_device import OnDevice, TrialDevice
    from edgefleet.optimization.onnx_file import OnnxFile
    from edgefleet.optimization.recipes import Recipe
    from edgefleet.optimization.report import OptimizationReport
    from edgefleet.optimization.samples import Samples
    from edgefleet.optimization.trials import Trial
    from edgefleet.protocol.bundle import Details, Interface

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
    min_class: float | Mapping[str, float] | None
    recipes: tuple[Recipe, ...]
    exclude: tuple[str, ...]
    labels: tuple[str, ...]
    metrics: dict[str, float]
    device: TrialDevice | None
    seed: int
    progress: bool
    cache: Cache | None


def optimize(
    model: str | os.PathLike[str] | object,
    *,
    targets: Sequence[str | HardwareTarget],
    calibration: NDArray[Any] | Mapping[str, NDArray[Any]] | None = None,
    evaluate: Evaluate | None = None,
    max_accuracy_drop: float = 0.01,
    min_class_accuracy: float | Mapping[str, float] | None = None,
    candidates: Sequence[str | Recipe] | None = None,
    thorough: bool = False,
    exclude: Sequence[str] = (),
    device: TrialDevice | None = None,
    name: str | None = None,
    labels: Sequence[str] = (),
    metrics: Mapping[str, float] | None = None,
    output: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: bool = True,
    cache: bool | str | os.PathLike[str] = True,
) -> Bundle:
    """A bundle with a variant for every target, none of which lost more accuracy than allowed.

    The model as given is always in it, for any device. Candidates that the targets would rather run
    (`recipes.RECIPES`: int8, fp16, other engines' formats) join it, each for the targets that it
    suits, if ``evaluate`` is given, it passes the gate, is smaller where its precision is lower,
    and, on targets like this machine, isn't slower (`gate.is_slower`). ``bundle.report`` tells what
    was tried.

    The same model, data, seed, library versions and verdicts give the same digest: latencies are
    in the report, not in the bundle. Nothing but the cache is left behind when it fails or is
    interrupted; an interrupted call goes on where it was when it is made again.

    Args:
        model: path of an ONNX file; its external data files lie beside it. Or a fitted estimator of
            scikit-learn, LightGBM or XGBoost, which `convert` makes one of: ``calibration`` is then
            as its ``predict`` takes it.
        targets: names of hardware targets, or targets themselves.
        calibration: an array (one input) or a mapping of input name to array, samples along the
            first axis. Sets int8's ranges; self-test vectors and reference sketches are made of it
            too.
        evaluate: called with ``predict`` for each candidate, returns its accuracy, higher is
            better, or `Scores`. ``predict`` takes an array (one input) or a mapping of input name
            to array, samples along the first axis, and returns an array where the model has one
            output, else a mapping of output name to array.
        max_accuracy_drop: accuracy that a candidate may lose, in the unit of ``evaluate``.
        min_class_accuracy: floor of the accuracy of every class, or of those named; ``evaluate``
            then returns `Scores` with classes. A class that the model as given leaves below its
            floor may not get worse.
        candidates: names of what to try instead of what the targets would take, ``*`` for any part:
            ``["int8*", "fp16"]``; ``["all"]`` for all. Recipes of one's own too.
        thorough: try also what seldom pays by itself: pruning, dynamic int8, graphs optimized
            ahead of time, signed activations.
        exclude: names of nodes that stay in floats, or ``op:TYPE`` for all of a type.
        device: a device of one of the targets, such as ``fleet.device("cam-07")``. What passes the
            gate is tested and timed on it too, beside what serves there; its figures count for its
            target in place of this machine's, and what fails there isn't shipped to it.
        name: the model's name in the bundle, ``model`` by default.
        labels: class names by index.
        metrics: figures to carry along; ``accuracy`` is replaced by what was measured a variant.
        output: a folder that doesn't exist yet, for the bundle. Without it the bundle lies in a
            temporary folder that goes when the returned object does.
        seed: decides which samples become self-test vectors.
        progress: show what is being done, where a person looks.
        cache: whether what was made and judged is kept for the next call, which then doesn't do it
            again: of the same model, data and ``evaluate``, whose fingerprint must be exact (see
            `classification`). True is the user's cache folder, a path another; at most 2 GiB, what
            was not used for longest goes first. Latency and memory are measured anew.

    Raises:
        InvalidModelError: the model is unfit, or onnxruntime can't load it.
        InvalidInputError: targets, data or ``evaluate`` are unusable, ``output`` exists, or no tool
            here makes what the targets' engines open.
        AccessDeniedError: this user may not write where ``output`` is.
        AccuracyGateError: what passed the gate suits no target; the message holds the report.
        NotFoundError: a target or a candidate is unknown.
        MissingExtraError: numpy, onnx or onnxruntime isn't installed.
        StorageFullError: no room for the bundle.
        EdgeFleetError: the device can't be reached, or takes no trial; see `Device.trial`.
    """
    require("numpy", "onnx", "onnxruntime")
    wanted = _targets(targets)
    if not (math.isfinite(max_accuracy_drop) and max_accuracy_drop >= 0):
        raise InvalidInputError(
            f"max_accuracy_drop is {max_accuracy_drop}",
            cure="give a number from 0 on, such as 0.01",
        )
    if output is not None:
        check_new_folder(Path(output))
    if device is not None:
        check_device(device, wanted)
    with tempfile.TemporaryDirectory(prefix="edgefleet-optimize-") as folder:
        work = Path(folder)
        given = _given(model, calibration, tuple(labels), work)
        file = inspect(given.path)
        precision = servable_precision(file)
        request = _Request(
            name=check_name("model", DEFAULT_NAME if name is None else name),
            file=file,
            precision=precision,
            targets=wanted,
            samples=given.samples(file.interface),
            evaluate=evaluate,
            max_drop=max_accuracy_drop,
            min_class=min_class_accuracy,
            recipes=select(wanted, given=precision, asked=candidates, thorough=thorough),
            exclude=tuple(exclude),
            labels=given.labels,
            metrics={key: float(value) for key, value in (metrics or {}).items()},
            device=device,
            seed=seed,
            progress=progress,
            cache=_cache(cache),
        )
        trials, report, details = _try(request, work)
        if output is not None:
            _write(request, Path(output), trials, details, report)
            return Bundle(Path(output), report=report)
        return _temporary(request, trials, details, report)


@dataclass(frozen=True, slots=True)
class _Given:
    """The model as a file, with what is known of it."""

    path: Path
    calibration: object
    labels: tuple[str, ...]

    def samples(self, interface: Interface) -> Samples | None:
        if self.calibration is None:
            return None
        return calibration_samples(self.calibration, interface)


def _given(model: object, calibration: object, labels: tuple[str, ...], work: Path) -> _Given:
    """A model as a path is taken as it is, a fitted estimator is converted first."""
    if isinstance(model, str | os.PathLike):
        return _Given(Path(model), calibration, labels)
    converted = as_onnx_file(model, calibration, work)
    return _Given(converted.path, converted.arrays, labels or converted.labels)


def _try(
    request: _Request, work: Path
) -> tuple[list[Trial], OptimizationReport, dict[str, Details]]:
    arch = architecture(platform.machine())
    total = len(request.recipes) + 1
    with Steps(f"{request.name}: reading", total, enabled=request.progress) as line:

        def say(text: str) -> None:
            line.update(f"{request.name}: {text}")

        bench = Bench(
            file=request.file,
            precision=request.precision,
            work=work,
            say=say,
            samples=request.samples,
            evaluate=request.evaluate,
            max_drop=request.max_drop,
            min_class=request.min_class,
            exclude=request.exclude,
            seed=request.seed,
            classical=is_classical(request.file.path),
            results=Results(
                request.cache,
                evaluate=request.evaluate,
                gate=[request.max_drop, _floors(request.min_class)],
            ),
            done=line,
        )
        trials = try_all(bench, request.recipes)
        if any(choice.runs_here(target, arch) for target in request.targets):
            trials = _measured(bench, request, trials)
        found = _measured_there(request, trials, work, say)
        offers = [trial.offer() for trial in trials if trial.tried]
        there = {} if found is None else {found.target: found.offers(offers)}
        assigned = choice.assign(request.targets, offers, arch=arch, on_devices=there)
        report = summarize(
            request.name,
            trials,
            request.targets,
            assigned,
            arch=arch,
            max_accuracy_drop=request.max_drop,
            calibration_samples=0 if request.samples is None else request.samples.count,
            on_device=found,
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


def _measured(bench: Bench, request: _Request, trials: list[Trial]) -> list[Trial]:
    feed = one_call(request.file, request.samples, seed=request.seed)
    if feed is None:
        return trials
    try:
        return measure(bench, trials, feed)
    except InvalidInputError:
        if request.samples is not None:
            raise
        return trials  # made-up inputs don't suit this model: not measured


def _measured_there(
    request: _Request, trials: list[Trial], work: Path, say: Say
) -> OnDevice | None:
    if request.device is None:
        return None
    say(f"measuring on {request.device.name}")
    found = measure_on(
        request.device,
        trials,
        request.samples,
        work / "on-device",
        model=request.name,
        seed=request.seed,
        say=say,
    )
    if found.target not in {target.name for target in request.targets}:
        log.warning("%s: %s is a %s, no target asked for", request.name, found.device, found.target)
    return found


def _refuse_nothing(report: OptimizationReport, trials: list[Trial]) -> None:
    """Raise when no target gets a variant; say so when one doesn't."""
    without = [row.target for row in report.targets if row.variant is None]
    if len(without) < len(report.targets):
        if without:
            log.warning("%s: no variant for %s", report.model, ", ".join(without))
        return
    if any(trial.artifact is not None and trial.refused for trial in trials):
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
    total = sum(t.artifact.size_bytes for t in trials if t.artifact and t.name in details)
    with Bytes(f"{request.name}: packing", total, enabled=request.progress) as bar:
        shipping.write(to, trials, details, report, progress=bar)


def _targets(targets: Sequence[str | HardwareTarget]) -> tuple[HardwareTarget, ...]:
    if isinstance(targets, str | HardwareTarget) or not targets:
        raise InvalidInputError(
            "targets is no list of hardware targets", cure="write targets=['x86-cpu', …]"
        )
    found = [t if isinstance(t, HardwareTarget) else find_target(t) for t in targets]
    check_targets(found)
    return tuple({target.name: target for target in found}.values())


def _cache(asked: bool | str | os.PathLike[str]) -> Cache | None:  # noqa: FBT001 - `optimize`'s
    if isinstance(asked, bool):
        folder = default_folder() if asked else None
        return None if folder is None else Cache(folder)
    return Cache(Path(asked))


def _floors(asked: float | Mapping[str, float] | None) -> object:
    return dict(asked) if isinstance(asked, Mapping) else asked
