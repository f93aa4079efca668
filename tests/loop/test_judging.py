"""Triggers, comparisons and a shadow's record: decided over values alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from edgefleet.loop import judging, triggers
from edgefleet.loop.record import LoopRecord, Scores, ShadowSeen, Turn
from edgefleet.loop.sources import DriftSeen
from edgefleet.loop.spans import span, span_text
from edgefleet.loop.spec import (
    Budget,
    CompareSpec,
    DriftTrigger,
    Limits,
    ShadowSpec,
    Trigger,
)

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
DIGEST = "sha256:" + "0" * 64
TRIED = timedelta(hours=30)


def compare(**fields: float) -> CompareSpec:
    return CompareSpec.model_construct(**{"max_loss": 0.02, "min_gain": 0.0, **fields})  # type: ignore[arg-type]


def scores(active: float, candidate: float) -> Scores:
    return Scores(active=active, candidate=candidate, samples=100)


@pytest.mark.parametrize(
    "frozen,recent,goes",
    [
        ((0.97, 0.97), (0.6, 0.9), "yes"),
        ((0.97, 0.95), (0.6, 0.9), "yes"),
        ((0.97, 0.94), (0.6, 0.9), "no"),
        ((0.97, 0.99), (0.6, 0.6), "no"),
        ((0.97, 0.99), (0.6, 0.5), "no"),
    ],
)
def test_a_candidate_may_lose_little_and_must_win(
    frozen: tuple[float, float], recent: tuple[float, float], goes: str
) -> None:
    assert judging.by_scores(compare(), scores(*frozen), scores(*recent)).goes == goes


def seen(**fields: object) -> ShadowSeen:
    return ShadowSeen(**{"devices": 10, "telling": 10, "compared": 500, **fields})  # type: ignore[arg-type]


AGREES = ShadowSpec(requests=400, min_agreement=0.9)
SCORES = ShadowSpec(lasts=timedelta(hours=24), min_gain=0.0)
EITHER = ShadowSpec(requests=400, min_agreement=0.9, min_gain=0.0, max_rejected=0.1)


@pytest.mark.parametrize(
    "spec,found,tried,goes",
    [
        (AGREES, seen(agreement=0.95), TRIED, "yes"),
        (AGREES, seen(agreement=0.85), TRIED, "no"),
        (AGREES, seen(agreement=0.95, compared=399), TRIED, "wait"),
        (AGREES, seen(agreement=0.85, compared=399), TRIED, "wait"),
        (AGREES, seen(agreement=None), TRIED, "wait"),
        (AGREES, seen(agreement=0.95, compared=399), timedelta(days=14), "no"),
        (AGREES, seen(agreement=0.95, rejected=1), TRIED, "no"),
        (SCORES, seen(scores=scores(0.6, 0.7)), TRIED, "yes"),
        (SCORES, seen(scores=scores(0.6, 0.5)), TRIED, "no"),
        (SCORES, seen(scores=scores(0.6, 0.7)), timedelta(hours=23), "wait"),
        (SCORES, seen(labelled=3), TRIED, "wait"),
        (EITHER, seen(agreement=0.5), TRIED, "wait"),
        (EITHER, seen(agreement=0.5, scores=scores(0.6, 0.7)), TRIED, "yes"),
        (EITHER, seen(agreement=0.5, scores=scores(0.6, 0.5)), TRIED, "no"),
        (EITHER, seen(agreement=0.95, rejected=1), TRIED, "yes"),
    ],
)
def test_a_shadow_is_judged_by_its_record(
    spec: ShadowSpec, found: ShadowSeen, tried: timedelta, goes: str
) -> None:
    assert judging.by_shadow(spec, found, tried).goes == goes


@pytest.mark.parametrize(
    "features,devices,holds",
    [
        (["moved", "stable", "stable", "stable"], ["moved", "stable"], True),
        (["moved", "stable", "stable", "stable", "stable"], ["moved", "stable"], False),
        (["moved", "unknown"], ["moved", "stable", "stable"], False),
        (["watch", "stable"], ["watch"], False),
        (["unknown"], ["unknown"], False),
    ],
)
def test_drift_holds_where_enough_features_and_devices_moved(
    features: list[str], devices: list[str], *, holds: bool
) -> None:
    trigger = Trigger(drift=DriftTrigger(features=0.25, devices=0.5))
    found = DriftSeen(
        {f"x[{i}]": said for i, said in enumerate(features)},
        {f"cam-{i}": said for i, said in enumerate(devices)},
    )
    reading = triggers.drift_reading(trigger, found)
    assert reading is not None
    assert reading.holds is holds


def test_a_schedule_holds_once_its_time_has_come_since_the_last_turn() -> None:
    trigger = Trigger(schedule="0 3 * * *")
    due = triggers.schedule_reading(trigger, NOW - timedelta(hours=12), NOW)
    early = triggers.schedule_reading(trigger, NOW - timedelta(hours=8), NOW)
    assert due is not None
    assert early is not None
    assert (due.holds, due.says) == (True, "was due at 2026-11-21 03:00 UTC")
    assert (early.holds, early.says) == (False, "next at 2026-11-22 03:00 UTC")


def record(*began: timedelta, hours: float = 1.0) -> LoopRecord:
    turns = [
        Turn(
            number=number,
            began=NOW - ago,
            trigger="t",
            parent="m:1",
            parent_bundle=DIGEST,
            run_hours=hours,
        )
        for number, ago in enumerate(began, 1)
    ]
    return LoopRecord(loop="l", model="m", created=NOW, history=tuple(turns))


def test_turns_keep_their_distance() -> None:
    limits = Limits(every=timedelta(hours=24))
    assert triggers.refusal(limits, record(timedelta(hours=25)), NOW) is None
    refused = triggers.refusal(limits, record(timedelta(hours=20)), NOW)
    assert refused == "turn 1 began less than 24 h ago: 4 h left"


def test_a_budget_counts_the_hours_of_its_days() -> None:
    limits = Limits(budget=Budget(training_hours=3, days=7))
    ago = [timedelta(days=9), timedelta(days=3), timedelta(days=1)]
    assert triggers.hours_left(limits, record(*ago), NOW) == pytest.approx(1.0)
    refused = triggers.refusal(limits, record(*ago, hours=1.5), NOW)
    assert refused == "3 hours of training in 7 days are spent"


@pytest.mark.parametrize(
    "text,seconds", [("90s", 90), ("1.5h", 5400), ("7d", 604_800), (" 2 m ", 120)]
)
def test_spans_are_read(text: str, seconds: float) -> None:
    assert span(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "7", "d", "-1h", "1e3s", "7 days", "99999d", 7])
def test_what_is_no_span_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"span of time|ten years"):
        span(text)


def test_spans_are_told_in_their_largest_unit() -> None:
    told = [span_text(timedelta(**{unit: 5})) for unit in ("days", "hours", "minutes", "seconds")]
    assert told == ["5 d", "5 h", "5 m", "5 s"]
