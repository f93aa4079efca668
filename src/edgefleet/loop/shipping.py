"""The steps that bring a candidate to devices: push, approve, shadow, promote; and the way back.

Every one looks first what is there already. Pointers are written by the fleet's own edits, so what
others changed in a group meanwhile stays.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from edgefleet.errors import PolicyError
from edgefleet.interfaces.values import ApprovalState
from edgefleet.loop import judging, samples, scoring
from edgefleet.loop.groups import active_model, restore, shadow_seen, standing
from edgefleet.loop.work import Waiting
from edgefleet.rollout.judgement import Outcome

if TYPE_CHECKING:
    from edgefleet.interfaces.values import ModelVersion
    from edgefleet.loop.groups import Standing
    from edgefleet.loop.record import Scores, ShadowSeen, Turn
    from edgefleet.loop.work import Work
    from edgefleet.protocol.release import ReleaseModel
    from edgefleet.rollout.judgement import GroupStatus

_LOG = logging.getLogger(__name__)


def push(work: Work, turn: Turn) -> Turn:
    """Give the candidate a version that tells its whole origin; the one it has, if it has one."""
    assert turn.bundle is not None and turn.samples is not None  # noqa: PT018, S101 - written before
    registry, model = work.fleet.registry, work.spec.model
    origin = {
        "loop": work.spec.name,
        "turn": str(turn.number),
        "dataset": turn.samples.version,
        "dataset_version": turn.samples.reference,
        "parent": turn.parent,
        "run": turn.run,
    }
    there = [version for version in registry.versions(model) if version.digest == turn.bundle]
    if there:
        version = there[-1]
    else:
        bundle = work.bundle(turn.bundle)
        version = work.fleet.push(bundle, model, labels=origin, progress=False)
    if version.approval.state is ApprovalState.REJECTED:
        return turn.to("push", version=version.reference).discard(_rejection(version))
    if turn.frozen is not None and turn.recent is not None:
        figures = {"accuracy": turn.frozen.candidate, "accuracy_recent": turn.recent.candidate}
        registry.record_metrics(version.reference, figures)
    try:
        registry.record_lineage(version.reference, origin)
    except PolicyError:  # an earlier turn made the same bytes: its lineage is as true
        _LOG.info("%s was made before: %s", version, version.lineage)
    return turn.to("approve", version=version.reference)


def _rejection(version: ModelVersion) -> str:
    said = version.approval
    return f"{version} was rejected by {said.by}: {said.reason or 'no reason given'}"


def approve(work: Work, turn: Turn) -> Turn:
    """Let the candidate through where nobody has to be asked, or somebody said yes.

    Raises:
        Waiting: nobody has said anything yet.
    """
    version = work.fleet.registry.get(turn.version)
    said = version.approval
    if said.state is ApprovalState.REJECTED:
        return turn.discard(_rejection(version))
    needed = work.spec.approval == "required" or work.fleet.profile.require_approval
    if needed and said.state is not ApprovalState.APPROVED:
        raise Waiting(f"{version} needs approval: edgefleet loop approve, or reject it")
    return turn.to("promote" if work.spec.shadow is None else "shadow", approved_by=said.by or "")


def shadow(work: Work, turn: Turn) -> Turn:
    """Try the candidate beside the active model until it has proven itself.

    Raises:
        Waiting: it hasn't yet.
    """
    spec = work.spec.shadow
    assert spec is not None and turn.bundle is not None  # noqa: PT018, S101 - `approve` has looked
    active = active_model(work.fleet, work.spec.groups, work.spec.model)
    if active.bundle == turn.bundle:  # somebody made it active by hand
        return turn.to("promote")
    if active.bundle != turn.parent_bundle:
        return turn.discard(_moved(active, turn))
    for group in work.spec.groups:
        stands = standing(work.fleet, group, work.spec.model)
        _wait_for_others(group, stands, turn)
        there = stands.shadow
        if there is not None and there.bundle != turn.bundle:
            raise Waiting(
                f"{group} tries {there.name}:{there.version} as a shadow, which is not this "
                "loop's: end that first"
            )
        if there is None:
            work.fleet.deploy(turn.version, to=group, role="shadow")
    if turn.shadowed is None:
        return turn.to("shadow", shadowed=work.now())
    seen = shadow_seen(work.fleet, work.spec.groups, work.spec.model, turn.bundle)
    if spec.min_gain is not None:
        seen = _scored(work, turn, seen)
    judged = judging.by_shadow(spec, seen, work.now() - turn.shadowed)
    turn = turn.to("shadow", shadow=seen, why=judged.why)
    if judged.goes == "wait":
        raise Waiting(f"{turn.version} is tried as a shadow: {judged.why}", turn)
    return turn.to("promote") if judged.goes == "yes" else turn.discard(judged.why)


def _scored(work: Work, turn: Turn, seen: ShadowSeen) -> ShadowSeen:
    """With the scores on samples labelled since the shadow began, once there are enough."""
    spec, model, groups = work.spec.shadow, work.spec.model, work.spec.groups
    assert spec is not None  # noqa: S101 - `shadow` has looked
    count = work.sources.labelled(model, groups, turn.shadowed)
    scores: Scores | None = None
    if count >= spec.min_labelled:
        everything = work.spec.dataset.model_copy(update={"strategy": "all", "balance": False})
        found = work.sources.samples(model, groups, turn.shadowed, everything, remembered=False)
        data = samples.Arrays(found.inputs, found.labels)
        active, candidate = (
            scoring.open_bundle(work.bundle(digest), work.folder / "models")
            for digest in (turn.parent_bundle, turn.bundle or "")
        )
        scores = scoring.scores(active, candidate, work.spec.compare, data)
    return msgspec.structs.replace(seen, labelled=count, scores=scores)


def promote(work: Work, turn: Turn) -> Turn:
    """Make the candidate active in every group, one after the other.

    Raises:
        Waiting: devices haven't attested it yet.
    """
    for group in work.spec.groups:
        stands = standing(work.fleet, group, work.spec.model)
        _wait_for_others(group, stands, turn)
        if not _has(stands, turn):
            if stands.active is None or stands.active.bundle != turn.parent_bundle:
                return turn.discard(f"{group}: {_moved(stands.active, turn)}")
            work.fleet.deploy(
                turn.version,
                to=group,
                cohort_permille=work.spec.promote.cohort_permille,
                policy=work.spec.promote.policy,
            )
            stands = standing(work.fleet, group, work.spec.model)
        if failure := _attested(work, stands.status, turn):
            return turn.discard(failure, failed=True)
        if stands.status.candidate is not None:  # its cohort has it: now everybody
            work.fleet.promote(group, policy=work.spec.promote.policy)
            again = standing(work.fleet, group, work.spec.model)
            if failure := _attested(work, again.status, turn):
                return turn.discard(failure, failed=True)
    return msgspec.structs.replace(turn, outcome="promoted")


def _wait_for_others(group: str, stands: Standing, turn: Turn) -> None:
    """Touch no group in which a cohort tries somebody else's release: an edit would end that.

    Raises:
        Waiting: one does.
    """
    ours = stands.tried is not None and stands.tried.bundle == turn.bundle
    if stands.status.candidate is not None and not ours:
        raise Waiting(
            f"a cohort of {group} tries a release that is not this loop's: "
            f"edgefleet promote {group}, or cancel it"
        )


def _has(stands: Standing, turn: Turn) -> bool:
    return any(
        entry is not None and entry.bundle == turn.bundle for entry in (stands.active, stands.tried)
    )


def _attested(work: Work, status: GroupStatus, turn: Turn) -> str | None:
    """Why the group can't attest it any more; None where enough devices do.

    Raises:
        Waiting: some may still.
    """
    total, least = len(status.devices), work.spec.promote.min_attested
    if status.attested >= least * total:
        return None
    if total - status.failed < least * total:
        first = next(d for d in status.devices if d.outcome is Outcome.FAILED)
        return (
            f"{status.failed} of {total} devices of {status.group} rejected {turn.version}: "
            f"{first.device}: {first.why}"
        )
    raise Waiting(
        f"{status.attested} of {total} devices of {status.group} attest {turn.version}, "
        f"{least:.0%} are needed"
    )


def _moved(active: ReleaseModel | None, turn: Turn) -> str:
    """Why a candidate isn't tried against what is active now."""
    now = "nothing" if active is None else f"{active.name}:{active.version}"
    return f"{now} is active now, and the candidate was compared with {turn.parent}"


def discard(work: Work, turn: Turn) -> Turn:
    """Take the candidate from every group again; its version stays in the registry."""
    if turn.bundle is not None and turn.version:
        for group in work.spec.groups:
            restore(work.fleet, group, work.spec.model, bundle=turn.bundle, parent=turn.parent)
    return msgspec.structs.replace(turn, outcome="failed" if turn.failed else "discarded")
