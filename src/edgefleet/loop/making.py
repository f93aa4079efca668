"""The steps that make a candidate: dataset, train, optimize, compare. Nothing reaches a device.

Each step may be done again at any time: samples and bundles are addressed by their content, and a
training run is looked for by its name before another is submitted.
"""

from __future__ import annotations

import hashlib
import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from edgefleet.errors import AccuracyGateError, InvalidModelError, NotFoundError
from edgefleet.interfaces.training import RunState
from edgefleet.loop import judging, samples, scoring, triggers
from edgefleet.loop.record import Samples
from edgefleet.loop.work import SAMPLES_MEDIA_TYPE, Waiting
from edgefleet.optimization.functions import load_function
from edgefleet.protocol.bundle import Descriptor
from edgefleet.protocol.digest import digest_of_file

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet.interfaces.training import RunStatus
    from edgefleet.interfaces.training_run import TrainingRun
    from edgefleet.loop.record import Turn
    from edgefleet.loop.work import Work
    from edgefleet.protocol.layout import BundleLayout

_LOG = logging.getLogger(__name__)
CALIBRATION = 256  # samples at most


def dataset(work: Work, turn: Turn) -> Turn:
    """Freeze the samples of the turn.

    Raises:
        Waiting: too few are labelled.
    """
    spec, model, groups = work.spec.dataset, work.spec.model, work.spec.groups
    taken = work.now()
    count = work.sources.labelled(model, groups, turn.since)
    if count < spec.least:  # the samples needn't be fetched to know
        raise Waiting(_too_few(f"{count} samples are labelled", spec.least))
    found = work.sources.samples(model, groups, turn.since, spec, remembered=True)
    labelled = len(found.ids)
    back = sum(samples.is_held_back(one, spec.held_back) for one in found.ids)
    if labelled < spec.least or not 0 < back < labelled:
        said = f"{labelled} of the {found.total} samples of strategy {spec.strategy!r} are labelled"
        raise Waiting(_too_few(said, spec.least))
    path = work.folder / samples.FILE
    samples.write_samples(found, path)
    digest, size = digest_of_file(path)
    descriptor = Descriptor(media_type=SAMPLES_MEDIA_TYPE, digest=digest, size=size)
    work.fleet.registry.blobs.put(descriptor, lambda: path.open("rb"))
    return turn.to(
        "train",
        samples=Samples(
            version=found.version,
            reference=found.reference,
            blob=digest,
            size=size,
            count=found.total,
            labelled=labelled,
            held_back=back,
            taken=taken,
        ),
    )


def _too_few(said: str, least: int) -> str:
    return f"{said}, {least} are needed: label them, see: edgefleet dataset --help"


def run_name(loop: str, turn: Turn) -> str:
    """What the ids of a turn's training runs begin with; 30 characters are kept of it."""
    assert turn.samples is not None  # noqa: S101 - the step before has written it
    of = f"{loop}\n{turn.number}\n{turn.began.isoformat()}\n{turn.samples.blob}"
    return f"loop-{turn.number}-{hashlib.sha256(of.encode()).hexdigest()[:12]}"


def train(work: Work, turn: Turn) -> Turn:
    """Submit the training run, or look how far it is.

    Raises:
        Waiting: it isn't over.
    """
    if not turn.run:
        return turn.to("train", run=_submitted(work, turn).id)
    status = work.fleet.trainer.status(turn.run)
    if not status.state.ended:
        raise Waiting(f"training run {turn.run} is {status.state.value}")
    hours = _hours(status) * work.spec.train.resources.count
    if status.state is RunState.SUCCEEDED:
        return turn.to("optimize", run_hours=hours)
    why = f"training run {turn.run} {status.state.value}: {status.reason or 'no reason given'}"
    return turn.to("discard", run_hours=hours).discard(why, failed=True)


def _submitted(work: Work, turn: Turn) -> TrainingRun:
    """The turn's run: the one that is there already, or a new one."""
    name = run_name(work.spec.name, turn)
    for status in work.fleet.trainer.list():
        if name in status.id:
            _LOG.info("%s: found training run %s again", work.spec.name, status.id)
            return work.fleet.trainer.get(status.id)
    work.held_back(turn)
    spec = work.spec.train
    resources = spec.resources
    left = triggers.hours_left(work.spec.limits, work.record, work.now())
    if left is not None:
        most = max(1.0, left * 3600 / resources.count)
        longest = min(most, resources.max_runtime_s or most)
        resources = resources.model_copy(update={"max_runtime_s": longest})
    return work.fleet.train(
        spec.script,
        data=work.training_data,
        params=spec.params,
        name=name,
        requirements=spec.requirements,
        resources=resources,
    )


def _hours(status: RunStatus) -> float:
    if status.started is None or status.ended is None:
        return 0.0
    return max(timedelta(), status.ended - status.started) / timedelta(hours=1)


def optimize(work: Work, turn: Turn) -> Turn:
    """Make a bundle of what the run left, and keep it in the registry's blob store."""
    try:
        model = work.fleet.trainer.get(turn.run).model
        bundle = _bundle(work, turn, model)
    except (AccuracyGateError, InvalidModelError, NotFoundError) as error:
        return turn.discard(f"no bundle came of {turn.run}: {error.message}", failed=True)
    work.fleet.registry.put_bundle(bundle)
    return turn.to("compare", bundle=bundle.digest)


def _bundle(work: Work, turn: Turn, model: Path) -> BundleLayout:
    import tempfile  # noqa: PLC0415 - only here
    from pathlib import Path  # noqa: PLC0415 - likewise

    spec = work.spec.optimize
    back = work.held_back(turn)
    trained = samples.read_arrays(work.training_data / samples.FILE).inputs
    given = {name: array[:CALIBRATION] for name, array in trained.items()}
    calibration = next(iter(given.values())) if len(back.inputs) == 1 else given
    if spec is None:
        from edgefleet.optimization.packaging import bundle_from_onnx  # noqa: PLC0415 - heavy

        place = Path(tempfile.mkdtemp(dir=work.folder)) / "bundle"
        return bundle_from_onnx(model, place, name=work.spec.model, self_test_inputs=calibration)
    from edgefleet.optimization.run import optimize as make  # noqa: PLC0415 - heavy

    compare = work.spec.compare
    frozen = samples.read_arrays(compare.frozen, labels=compare.labels)
    rate = load_function(spec.evaluate) if spec.evaluate else scoring.rating(compare, frozen)
    return make(
        model,
        targets=spec.targets,
        calibration=calibration,
        evaluate=rate,
        max_accuracy_drop=spec.max_accuracy_drop,
        name=work.spec.model,
        progress=False,
    )


def compare(work: Work, turn: Turn) -> Turn:
    """Score active model and candidate on the frozen test set and on the samples held back."""
    assert turn.bundle is not None  # noqa: S101 - the step before has written it
    if turn.bundle == turn.parent_bundle:
        return turn.discard("the candidate is the very model that is active")
    spec = work.spec.compare
    sets = (samples.read_arrays(spec.frozen, labels=spec.labels), work.held_back(turn))
    active, candidate = (
        scoring.open_bundle(work.bundle(digest), work.folder / "models")
        for digest in (turn.parent_bundle, turn.bundle)
    )
    frozen, recent = (scoring.scores(active, candidate, spec, data) for data in sets)
    judged = judging.by_scores(spec, frozen, recent)
    scored = turn.to("push", frozen=frozen, recent=recent, why=judged.why)
    return scored if judged.goes == "yes" else scored.discard(judged.why)
