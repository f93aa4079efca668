"""Trials: candidates made in a work folder and judged on the caller's data, one after the other."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from edgefleet.errors import InvalidModelError
from edgefleet.optimization.artifact import of_onnx
from edgefleet.optimization.choice import Offer
from edgefleet.optimization.evaluation import Scores, evaluated
from edgefleet.optimization.footprint import memory_of
from edgefleet.optimization.gate import is_slower, judge
from edgefleet.optimization.layers import worst_layers
from edgefleet.optimization.makers import FLOATS, REMARK, NotMade, Source, maker_of
from edgefleet.optimization.results import Results
from edgefleet.optimization.self_test import made_up_samples
from edgefleet.optimization.session import compare_latency
from edgefleet.optimization.sessions import open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from edgefleet.optimization.artifact import Artifact
    from edgefleet.optimization.closeness import Closeness
    from edgefleet.optimization.evaluation import Evaluate
    from edgefleet.optimization.gate import Verdict
    from edgefleet.optimization.layers import Loss
    from edgefleet.optimization.makers import Say
    from edgefleet.optimization.onnx_file import OnnxFile
    from edgefleet.optimization.recipes import Recipe
    from edgefleet.optimization.samples import Feed, Samples
    from edgefleet.optimization.session import Latency

log = logging.getLogger(__name__)

GIVEN = "the model as given"
NO_EVALUATE = "its accuracy is unknown: give evaluate="
CLASSICAL = "its operators keep their numbers in attributes: there is nothing to narrow"
UNUSABLE = "what was made is not usable: "
NO_CALIBRATION = "needs calibration data: give calibration="


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A candidate and what was found of it.

    Attributes:
        name: of the candidate and the variant.
        precision: of its weights.
        format: of its files.
        recipe: how it was made; None for the model as given.
        artifact: what was made; None where nothing could be, or need be.
        tried: whether it was to be made at all.
        refused: why it isn't shipped to anybody; empty when it passed.
        why: what speaks for it.
        slower: says so where it is slower here than the model as given.
        scores: what ``evaluate`` gave.
        drop: accuracy lost against the model as given.
        closeness: distance of each output from the model as given.
        layers: those that lost most, of an int8 candidate that was refused.
        latency: measured here, where it was.
        memory_bytes: what loading and running it added to a process here, where measured.
    """

    name: str
    precision: str
    format: str
    recipe: Recipe | None = None
    artifact: Artifact | None = None
    tried: bool = True
    refused: str = ""
    why: str = ""
    slower: str = ""
    scores: Scores | None = None
    drop: float | None = None
    closeness: tuple[Closeness, ...] = ()
    layers: tuple[Loss, ...] = ()
    latency: Latency | None = None
    memory_bytes: int | None = None

    @property
    def passed(self) -> bool:
        """Whether it may be shipped to whoever it suits."""
        return self.artifact is not None and not self.refused

    def offer(self) -> Offer:
        """The candidate as the choice sees it."""
        return Offer(
            name=self.name,
            precision=self.precision,
            format=self.format,
            opset=None if self.artifact is None else self.artifact.opset,
            activations="any" if self.recipe is None else self.recipe.activations,
            refused=self.refused,
            slower=self.slower,
            p50_s=None if self.latency is None else self.latency.p50_s,
            leaner=self.recipe is not None and self.recipe.kind == "channels",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What every candidate of one call is held against.

    Attributes:
        file: the model as given.
        precision: what it is called.
        samples: calibration data.
        evaluate: the caller's.
        max_drop: accuracy that a candidate may lose.
        min_class: floor of classes, as `gate.judge` takes it.
        exclude: nodes that stay in floats.
        seed: for whatever is drawn.
        say: shows what is being done.
        work: a folder that the caller removes.
        classical: whether the model has no weights that could be narrowed.
        results: what was found before, here or in a call before it.
        done: called after each candidate.
    """

    file: OnnxFile
    precision: str
    work: Path
    say: Say
    samples: Samples | None = None
    evaluate: Evaluate | None = None
    max_drop: float = 0.0
    min_class: float | Mapping[str, float] | None = None
    exclude: tuple[str, ...] = ()
    seed: int = 0
    classical: bool = False
    results: Results = field(default_factory=Results)
    done: Callable[[], object] = lambda: None

    def scores(self, artifact: Artifact, what: str) -> Scores | None:
        """What ``evaluate`` gives for an artifact; None where there is no ``evaluate``.

        Raises:
            InvalidModelError: no engine here loads it.
            InvalidInputError: ``evaluate`` fails on it or gives no number.
        """
        evaluate = self.evaluate
        if evaluate is None:
            open_session(artifact)
            return None

        def judged() -> Scores:
            session = open_session(artifact)
            return evaluated(evaluate, session.predict, tuple(session.outputs), what)

        return self.results.scores(artifact, judged)


def try_all(bench: Bench, recipes: Sequence[Recipe]) -> list[Trial]:
    """The model as given, and every recipe, in order.

    Raises:
        InvalidModelError: onnxruntime can't load the model as given.
        InvalidInputError: ``evaluate`` fails or gives no number.
    """
    trials = [_given(bench)]
    bench.done()
    for place, recipe in enumerate(recipes, 1):
        bench.say(f"{place}/{len(recipes)} {recipe.name}")
        trials.append(_tried(bench, recipe, trials, f"{place}/{len(recipes)} {recipe.name}"))
        bench.done()
    return trials


def _given(bench: Bench) -> Trial:
    bench.say(f"{bench.precision}: evaluating {GIVEN}")
    artifact = of_onnx(bench.file, precision=bench.precision)
    scores = bench.scores(artifact, GIVEN)
    return Trial(
        name=bench.precision,
        precision=bench.precision,
        format=artifact.format,
        artifact=artifact,
        why=GIVEN,
        scores=scores,
        drop=None if scores is None else 0.0,
    )


def _tried(bench: Bench, recipe: Recipe, before: Sequence[Trial], title: str) -> Trial:
    trial = Trial(name=recipe.name, precision=recipe.precision, format=recipe.format, recipe=recipe)
    rung = _rung(recipe, before)
    if rung is not None:
        return replace(trial, tried=False, refused=rung)
    source = _source(bench, recipe, before)
    if isinstance(source, str):
        return replace(trial, refused=source)
    folder = bench.work / recipe.name
    folder.mkdir()
    try:
        made = bench.results.made(
            recipe,
            source,
            folder,
            lambda of: maker_of(recipe)(
                recipe, of, folder, lambda text: bench.say(f"{title}: {text}")
            ),
        )
    except NotMade as reason:
        return replace(trial, refused=str(reason))
    except InvalidModelError as error:
        log.info("%s of %s is not usable", recipe.name, bench.file.path, exc_info=True)
        return replace(trial, refused=UNUSABLE + error.message)
    return _weighed(bench, replace(trial, artifact=made), made, before[0], title)


def _ladder(name: str, before: Sequence[Trial]) -> list[Trial]:
    return [t for t in before if name and t.recipe is not None and t.recipe.ladder == name]


def _rung(recipe: Recipe, before: Sequence[Trial]) -> str | None:
    """Why the rungs before make this one needless; None where they don't."""
    rungs = _ladder(recipe.ladder, before)
    passed = next((t.name for t in rungs if t.passed), None)
    if passed is not None:
        return f"{passed} passed"
    if rungs and rungs[0].drop is None:  # not for its accuracy: others would fail alike
        return f"as {rungs[0].name}: {rungs[0].refused}"
    return None


def _source(bench: Bench, recipe: Recipe, before: Sequence[Trial]) -> Source | str:
    """What a recipe starts from, or what it lacks."""
    base = next((t.artifact for t in _ladder(recipe.base, before) if t.passed), None)
    baseline = before[0].scores
    if bench.classical and recipe.precision != before[0].precision:
        return CLASSICAL
    if recipe.base and base is None:
        return f"no candidate of {recipe.base} passed to start from"
    if recipe.needs_calibration and bench.samples is None:
        return NO_CALIBRATION
    if baseline is None:
        return NO_EVALUATE

    def judged(artifact: Artifact) -> Verdict:
        scores = bench.scores(artifact, f"a {recipe.name} candidate")
        return _judged(bench, baseline, scores or baseline)

    return Source(
        file=bench.file,
        samples=bench.samples,
        seed=bench.seed,
        exclude=bench.exclude,
        base=base,
        tried={t.name: t.artifact for t in _ladder(recipe.ladder, before) if t.artifact},
        judge=judged,
    )


def _weighed(bench: Bench, trial: Trial, made: Artifact, given: Trial, title: str) -> Trial:
    """The trial of what was made, with the gate's verdict."""
    if trial.precision != given.precision and made.size_bytes >= _size(given):
        return replace(trial, refused=f"it is not smaller than {GIVEN}")
    bench.say(f"{title}: evaluating")
    try:
        scores = bench.scores(made, f"the {trial.name} candidate")
        closeness = _close(bench, given, made)
    except InvalidModelError as error:
        return replace(trial, refused=UNUSABLE + error.message)
    if scores is None or given.scores is None:
        return replace(trial, refused=NO_EVALUATE)
    verdict = _judged(bench, given.scores, scores)
    return replace(
        trial,
        scores=scores,
        drop=verdict.drop,
        why="; ".join(filter(None, (verdict.reason, *_said(made)))),
        refused="" if verdict.passed else verdict.reason,
        closeness=closeness,
        layers=() if verdict.passed else _guilty(bench, trial, made),
    )


def _said(made: Artifact) -> list[str]:
    return [made.notes.get(key, "") for key in (FLOATS, REMARK)]


def _guilty(bench: Bench, trial: Trial, made: Artifact) -> tuple[Loss, ...]:
    """The layers that lost most in 8 bits."""
    static = trial.recipe is not None and trial.recipe.kind == "static"
    if not static or bench.samples is None:
        return ()
    return worst_layers(made, bench.file, bench.samples)


def _judged(bench: Bench, baseline: Scores, scores: Scores) -> Verdict:
    return judge(baseline, scores, max_drop=bench.max_drop, min_class=bench.min_class)


def _close(bench: Bench, given: Trial, artifact: Artifact) -> tuple[Closeness, ...]:
    if bench.samples is None or given.artifact is None:
        return ()
    return bench.results.closeness(given.artifact, artifact, bench.samples, seed=bench.seed)


def _size(given: Trial) -> int:
    return 0 if given.artifact is None else given.artifact.size_bytes


def measure(bench: Bench, trials: Sequence[Trial], feed: Feed) -> list[Trial]:
    """The same trials with latencies and memory; the first, the model as given, sets ``slower``."""
    passed = {t.name: t.artifact for t in trials if t.artifact and t.passed}
    bench.say("measuring latency")
    found = compare_latency({n: open_session(artifact) for n, artifact in passed.items()}, feed)
    base = found[trials[0].name]
    measured = []
    for trial in trials:
        latency, artifact = found.get(trial.name), passed.get(trial.name)
        if latency is None or artifact is None:
            measured.append(trial)
            continue
        bench.say(f"{trial.name}: measuring memory")
        memory = memory_of(artifact, feed, bench.work)
        slower = _slower(latency, base)
        measured.append(replace(trial, latency=latency, slower=slower, memory_bytes=memory))
    return measured


def _slower(latency: Latency, base: Latency) -> str:
    """Without the figures, which differ at every run: a report that rides in a bundle may not."""
    return f"slower here than {GIVEN}" if is_slower(latency, base) else ""


def one_call(file: OnnxFile, samples: Samples | None, *, seed: int) -> Feed | None:
    """Input of one call, of the caller's data or made up; None where neither is possible."""
    found = made_up_samples(file.interface, seed=seed) if samples is None else samples
    return None if isinstance(found, str) else found.smallest(0)
