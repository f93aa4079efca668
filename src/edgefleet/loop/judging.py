"""Whether a candidate goes on: by scores, and by what became of it as a shadow. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from edgefleet.loop.spans import span_text

if TYPE_CHECKING:
    from datetime import timedelta

    from edgefleet.loop.record import Scores, ShadowSeen
    from edgefleet.loop.spec import CompareSpec, ShadowSpec

_EXACT = 1e-9  # scores are shares of a count: what differs by less is equal


class Judged(NamedTuple):
    """``yes``, ``no`` or ``wait``, and why."""

    goes: Literal["yes", "no", "wait"]
    why: str


def by_scores(spec: CompareSpec, frozen: Scores, recent: Scores) -> Judged:
    """It may lose a little on the frozen test set, and must win on recent samples."""
    figures = (
        f"frozen {frozen.active:.4g} -> {frozen.candidate:.4g} ({frozen.samples} samples), "
        f"recent {recent.active:.4g} -> {recent.candidate:.4g} ({recent.samples} samples)"
    )
    if -frozen.gain > spec.max_loss + _EXACT:
        return Judged("no", f"loses more than {spec.max_loss:g} on the frozen test set: {figures}")
    if recent.gain < spec.min_gain - _EXACT or recent.gain <= _EXACT:
        least = f"by {spec.min_gain:g} or more" if spec.min_gain else "at all"
        return Judged("no", f"isn't better {least} on recent samples: {figures}")
    return Judged("yes", figures)


def by_shadow(spec: ShadowSpec, seen: ShadowSeen, tried: timedelta) -> Judged:
    """It must be tried enough, and then agree with the active model or score better."""
    if seen.rejected > spec.max_rejected * seen.devices:
        return Judged("no", f"{seen.rejected} of {seen.devices} devices rejected it")
    waiting = []
    if spec.requests is not None and seen.compared < spec.requests:
        waiting.append(f"{seen.compared} of {spec.requests} answers compared")
    if spec.lasts is not None and tried < spec.lasts:
        waiting.append(f"tried for {span_text(tried)} of {span_text(spec.lasts)}")
    verdicts = [said for said in (_by_agreement(spec, seen), _by_score(spec, seen)) if said]
    passed = [said for said in verdicts if said.goes == "yes"]
    if not waiting and passed:
        return Judged("yes", f"{seen.compared} answers compared, {passed[0].why}")
    told = "; ".join(said.why for said in verdicts)
    if not waiting and all(said.goes == "no" for said in verdicts):
        return Judged("no", f"{seen.compared} answers compared, {told}")
    if tried >= spec.gives_up:
        short = f"it hasn't proven itself in {span_text(spec.gives_up)}"
        return Judged("no", f"{short}: {'; '.join((*waiting, told))}")
    return Judged("wait", "; ".join((*waiting, told)))


def _by_agreement(spec: ShadowSpec, seen: ShadowSeen) -> Judged | None:
    if spec.min_agreement is None:
        return None
    if seen.agreement is None:
        return Judged("wait", "no agreement is known yet")
    why = f"agreement {seen.agreement:.3f}, {spec.min_agreement:g} needed"
    return Judged("yes" if seen.agreement >= spec.min_agreement - _EXACT else "no", why)


def _by_score(spec: ShadowSpec, seen: ShadowSeen) -> Judged | None:
    if spec.min_gain is None:
        return None
    if seen.scores is None:
        why = f"{seen.labelled} of {spec.min_labelled} samples labelled since it began"
        return Judged("wait", why)
    scores = seen.scores
    why = (
        f"scores {scores.active:.4g} -> {scores.candidate:.4g} on {scores.samples} samples "
        f"labelled since it began, a gain of {spec.min_gain:g} needed"
    )
    return Judged("yes" if scores.gain >= spec.min_gain - _EXACT else "no", why)
