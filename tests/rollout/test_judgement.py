"""What a report proves. Each row is one rule of the table in `judgement._outcome`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from edgefleet.interfaces.values import DeviceInfo
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.pointer import Cohort, Next, Pointer
from edgefleet.protocol.report import (
    AccessReport,
    BuildReport,
    Health,
    ModelReport,
    Report,
    RolledBack,
    VariantReport,
)
from edgefleet.rollout.explain import explain
from edgefleet.rollout.judgement import GroupStatus, Outcome, judge

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
FLEET = "6f1e7a52-0c5d-4c0e-9d53-0c2a4f1b7f00"
OLD, NEW = digest_of(b"old"), digest_of(b"new")
BUNDLE = digest_of(b"bundle")


def pointer(**changes: Any) -> Pointer:
    fields: dict[str, Any] = {
        "fleet": FLEET,
        "epoch": 0,
        "number": 5,
        "current": NEW,
        "sources": (),
        "issued": NOW,
    }
    return Pointer(**{**fields, **changes})


def report(**changes: Any) -> Report:
    fields: dict[str, Any] = {
        "sequence": 1,
        "time": NOW,
        "state": "active",
        "runtime": "0.1.0",
        "health": Health(pid=1, started=NOW),
        "fleet": FLEET,
        "number": 5,
        "running": NEW,
    }
    return Report(**{**fields, **changes})


def device(**changes: Any) -> DeviceInfo:
    fields: dict[str, Any] = {
        "name": "cam-07",
        "group": "line-3",
        "connected": True,
        "last_seen": NOW,
        "report": report(),
    }
    return DeviceInfo(**{**fields, **changes})


REJECTED = ModelReport(
    name="digits", version="2", bundle=BUNDLE, state="rejected", reason="self-test: off by 3"
)
ORDER = RolledBack(release=NEW, by="ada", at=NOW, reason="it sees ghosts")
LOADED = ModelReport(name="digits", version="2", bundle=BUNDLE, state="loaded")

TABLE: list[tuple[str, dict[str, Any], Outcome, str]] = [
    ("runs it at this pointer", {}, Outcome.ATTESTED, "serves"),
    ("ran it and went offline", {"connected": False}, Outcome.ATTESTED, "release; offline since"),
    ("never reported", {"report": None, "last_seen": None}, Outcome.PENDING, "never reported"),
    (
        "never reported and offline",
        {"report": None, "last_seen": None, "connected": False},
        Outcome.PENDING,
        "offline, never",
    ),
    (
        "never reported, and its agent says why",
        {"report": None, "last_seen": None, "connected": False, "blocked": "no image"},
        Outcome.PENDING,
        "no image",
    ),
    (
        "has not taken it, and its agent says why",
        {"report": report(number=4, running=OLD), "connected": False, "blocked": "no image"},
        Outcome.PENDING,
        "no image",
    ),
    (
        "rejected it",
        {"report": report(state="rejected", running=OLD, models=(REJECTED,))},
        Outcome.FAILED,
        "off by 3",
    ),
    (
        "was rolled back by an operator",
        {"report": report(state="rejected", running=OLD, rolled_back=ORDER)},
        Outcome.FAILED,
        "was rolled back on this device by ada at 2026-01-01 12:00:00 UTC: it sees ghosts",
    ),
    (
        "rejected an earlier one",
        {"report": report(state="rejected", running=OLD, number=4)},
        Outcome.PENDING,
        "on its way",
    ),
    (
        "has not taken it",
        {"report": report(number=4, running=OLD)},
        Outcome.PENDING,
        "took pointer #4",
    ),
    (
        "offline before taking it",
        {"report": report(number=4, running=OLD), "connected": False},
        Outcome.PENDING,
        "offline since 2026-01-01 12:00:00",
    ),
    (
        "silent for too long where the channel cannot tell",
        {
            "report": report(number=4, running=OLD),
            "connected": None,
            "last_seen": NOW - timedelta(hours=1),
        },
        Outcome.PENDING,
        "not heard of since",
    ),
    (
        "runs the same release by an older pointer",
        {"report": report(number=4, running=NEW)},
        Outcome.PENDING,
        "took pointer #4",
    ),
    (
        "waits for access",
        {"report": report(state="waiting", running=OLD, access=AccessReport(state="expired"))},
        Outcome.PENDING,
        "access expired",
    ),
    (
        "is on the way",
        {"report": report(state="working", running=OLD, models=(LOADED,))},
        Outcome.PENDING,
        "digits:2 loaded",
    ),
    (
        "belongs to another fleet",
        {"report": report(fleet=FLEET.replace("6", "7"), number=4, running=OLD)},
        Outcome.FAILED,
        "another fleet",
    ),
]


@pytest.mark.parametrize(
    "changes,outcome,why", [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_judgement(changes: dict[str, Any], outcome: Outcome, why: str) -> None:
    status = judge(device(**changes), pointer(), now=NOW, freshness_s=60)
    assert status.outcome is outcome
    assert why in status.why


def test_without_a_pointer_nothing_is_expected() -> None:
    status = judge(device(report=None), None, now=NOW, freshness_s=60)
    assert (status.outcome, status.why) == (
        Outcome.PENDING,
        "nothing has been deployed to its group",
    )


def test_a_device_of_the_cohort_is_judged_by_the_candidate() -> None:
    ahead = Next(release=NEW, cohort=Cohort(salt="s", permille=1000))
    held = pointer(current=OLD, next=ahead)
    status = judge(device(), held, now=NOW, freshness_s=60)
    assert status.outcome is Outcome.ATTESTED


def test_the_providers_in_use_are_shown() -> None:
    model = ModelReport(
        name="digits",
        version="2",
        bundle=BUNDLE,
        variant="int8",
        providers=("CPUExecutionProvider",),
    )
    status = judge(device(report=report(models=(model,))), pointer(), now=NOW, freshness_s=60)
    assert status.running == ("digits:2 (int8 on CPU)",)


@pytest.mark.parametrize("progress, told", [(0.25, "25%"), (None, "120 s")])
def test_an_engine_being_built_is_shown(progress: float | None, told: str) -> None:
    build = BuildReport(provider="TensorrtExecutionProvider", elapsed_s=120, progress=progress)
    model = ModelReport(
        name="digits",
        version="2",
        bundle=BUNDLE,
        variant="fp16",
        providers=("CUDAExecutionProvider",),
        building=build,
    )
    status = judge(device(report=report(models=(model,))), pointer(), now=NOW, freshness_s=60)
    assert status.running == (f"digits:2 (fp16 on CUDA, builds for Tensorrt: {told})",)


def test_a_variant_that_a_device_chose_by_its_own_figures_is_told() -> None:
    model = ModelReport(
        name="digits",
        version="2",
        bundle=BUNDLE,
        variant="int8",
        why="faster here than fp32: 310 against 393 µs",
        variants=(
            VariantReport(variant="int8", state="chosen", p50_us=310.0),
            VariantReport(variant="fp32", state="measured", p50_us=393.0),
        ),
    )
    status = judge(device(report=report(models=(model,))), pointer(), now=NOW, freshness_s=60)
    assert status.why == "int8 faster here than fp32: 310 against 393 µs"


def test_the_headline_counts() -> None:
    statuses = tuple(
        judge(device(**changes), pointer(), now=NOW, freshness_s=60) for _, changes, _, _ in TABLE
    )
    group = GroupStatus(
        group="local/line-3",
        number=5,
        release=NEW,
        models=("digits:2",),
        devices=statuses,
        read_at=NOW,
        freshness_s=5,
    )
    assert group.headline == ("local/line-3 #5 wants digits:2: 2/16 attested, 11 pending, 3 failed")
    assert "off by 3" in str(group)
    assert "<table>" in group._repr_html_()


@pytest.mark.parametrize(
    "changes,held,there,cure",
    [
        ({}, pointer(), pointer(), "none needed"),
        ({"report": None}, None, None, "deploy a model"),
        ({"report": report(number=4)}, pointer(), pointer(number=4), "repeat the deploy"),
        (
            {"report": report(state="waiting", access=AccessReport(state="expired"), running=OLD)},
            pointer(),
            pointer(),
            "renew",
        ),
        (
            {"report": report(state="rejected", models=(REJECTED,), running=OLD)},
            pointer(),
            pointer(),
            "rollback",
        ),
        (
            {"report": report(state="rejected", running=OLD, rolled_back=ORDER)},
            pointer(),
            pointer(),
            "any newer pointer ends the rollback",
        ),
        ({"report": None, "connected": False}, pointer(), pointer(), "start the device"),
        ({"report": None, "connected": None}, pointer(), pointer(), "start the device"),
        ({"report": None, "connected": True}, pointer(), pointer(), "first report follows"),
        (
            {"report": report(state="working", running=OLD, errors=("no room left for x",))},
            pointer(),
            pointer(),
            "mend what it names",
        ),
        ({"report": report(number=4)}, pointer(), pointer(), "on its way"),
    ],
)
def test_why_names_the_cure(
    changes: dict[str, Any], held: Pointer | None, there: Pointer | None, cure: str
) -> None:
    info = device(**changes)
    status = judge(info, held, now=NOW, freshness_s=60)
    page = explain(info, status, group="local/line-3", wanted=None, pointer=held, on_channel=there)
    assert cure in page.cure
    assert "cam-07" in str(page)


@pytest.mark.parametrize(
    "access",
    [
        AccessReport(state="ok", detail="its clock is 2 days behind"),
        AccessReport(state="denied", detail="put in another stick"),
    ],
)
def test_why_tells_what_a_device_says_of_its_access(access: AccessReport) -> None:
    info = device(report=report(access=access))
    status = judge(info, pointer(), now=NOW, freshness_s=60)
    page = explain(
        info, status, group="g/line-3", wanted=None, pointer=pointer(), on_channel=pointer()
    )
    assert f"device: access {access.state}: {access.detail}" in page.evidence


def test_what_a_channel_knows_to_do_is_the_cure() -> None:
    held_up = device(report=None, blocked="no image", cure="push the image")
    status = judge(held_up, pointer(), now=NOW, freshness_s=60)
    page = explain(
        held_up, status, group="k/line-3", wanted=None, pointer=pointer(), on_channel=pointer()
    )
    assert (page.step, page.cure) == ("no image", "push the image")


def test_who_serves_what_it_should_and_can_take_nothing_more_is_told_what_to_do() -> None:
    locked_out = device(blocked="access expired", cure="enrol it anew")
    status = judge(locked_out, pointer(), now=NOW, freshness_s=60)
    assert status.outcome is Outcome.ATTESTED
    page = explain(
        locked_out, status, group="g/line-3", wanted=None, pointer=pointer(), on_channel=pointer()
    )
    assert page.step.endswith("by its last report; access expired")
    assert page.cure == "enrol it anew"
