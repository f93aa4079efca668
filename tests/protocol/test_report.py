"""Reports: what proves that a release runs, and that a device can always send one."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.errors import DocumentError, LimitExceededError
from edgefleet.protocol import report as r
from edgefleet.protocol.documents import encode
from tests.contract import samples
from tests.protocol import strategies


def replaced(**fields: object) -> r.Report:
    return msgspec.structs.replace(samples.REPORT, **fields)


def models(count: int, **fields: object) -> tuple[r.ModelReport, ...]:
    model = msgspec.structs.replace(samples.REPORT.models[0], **fields)
    return tuple(msgspec.structs.replace(model, name=f"model-{i}") for i in range(count))


@given(strategies.reports)
def test_report_of_usual_size_travels_whole(report: r.Report) -> None:
    assert r.read_report(report.encoded()) == report


# ------------------------------------------------------------------------------------- attestation

ACTIVE = replaced(state="active", running=samples.NIGHT)


def test_device_that_runs_the_release_attests_it() -> None:
    assert ACTIVE.attests(samples.NIGHT)
    assert ACTIVE.attests(samples.NIGHT, pair=(1, 42))
    assert ACTIVE.attests(samples.NIGHT, pair=(0, 1000))


@pytest.mark.parametrize("state", ["idle", "working", "rejected", "waiting"])
def test_only_an_active_device_attests(state: str) -> None:
    assert not msgspec.structs.replace(ACTIVE, state=state).attests(samples.NIGHT)


def test_device_that_runs_another_release_attests_nothing() -> None:
    assert not ACTIVE.attests(samples.DAY)


@pytest.mark.parametrize("pair", [(1, 43), (2, 1)])
def test_report_from_before_the_pointer_attests_nothing(pair: tuple[int, int]) -> None:
    assert not ACTIVE.attests(samples.NIGHT, pair=pair)


def test_wanting_a_release_is_not_running_it() -> None:
    assert not replaced(state="active", wanted=samples.NIGHT).attests(samples.NIGHT)


# -------------------------------------------------------------------------------------------- size


@given(
    st.lists(st.text(max_size=2000), max_size=12),
    st.text(max_size=5000),
    st.integers(0, 60),
)
def test_long_texts_never_keep_a_device_from_reporting(
    errors: list[str], reason: str, count: int
) -> None:
    report = replaced(
        errors=tuple(errors),
        models=models(count, reason=reason, why=reason),
        access=r.AccessReport(state="denied", detail=reason),
    )
    assert len(report.encoded()) <= r.MAX_BYTES


def test_what_attests_survives_when_the_report_must_be_cut() -> None:
    report = replaced(
        models=models(14, reason="\u20ac" * 400, why="x" * 400), errors=("y" * 400,) * 8
    )
    seen = r.read_report(report.encoded())
    for sent, got in zip(report.models, seen.models, strict=True):
        assert (got.name, got.bundle, got.variant) == (sent.name, sent.bundle, sent.variant)
        assert (got.providers, got.state) == (sent.providers, sent.state)
        assert (got.reason, got.why) == ("\u20ac" * r.MAX_SHORT_TEXT, None)
    assert seen.errors == ("y" * r.MAX_SHORT_TEXT,)
    assert (seen.labels, seen.endpoint) == (report.labels, report.endpoint)


def test_newest_errors_are_kept_and_cut() -> None:
    report = replaced(errors=tuple(f"{i}" * 400 for i in range(9)))
    assert r.read_report(report.encoded()).errors == tuple(f"{i}" * 300 for i in range(8))


def test_report_of_too_many_models_keeps_those_that_need_attention_and_says_so() -> None:
    fine, bad = models(100), models(1, state="rejected", reason="opset 99")
    bad = tuple(msgspec.structs.replace(model, name="broken") for model in bad)
    seen = r.read_report(replaced(models=fine + bad).encoded())
    assert len(seen.models) >= 20
    assert (seen.models[0].name, seen.models[0].reason) == ("broken", "opset 99")
    assert seen.errors == (f"{101 - len(seen.models)} more models run here than a report holds",)


def test_report_that_nothing_can_shorten_says_so() -> None:
    with pytest.raises(LimitExceededError, match=f"{r.MAX_BYTES} are allowed"):
        replaced(labels={"note": "x" * r.MAX_BYTES}).encoded()


def test_report_over_the_limit_is_not_read() -> None:
    with pytest.raises(LimitExceededError):
        r.read_report(samples.REPORT.encoded() + b" " * r.MAX_BYTES)


# ----------------------------------------------------------------------------------------- content


@pytest.mark.parametrize("error", [math.nan, math.inf])
def test_self_test_that_gave_nan_can_be_reported(error: float) -> None:
    test = r.SelfTest(passed=False, cases=1, max_error=error)
    report = replaced(models=models(1, self_test=test))
    assert r.read_report(report.encoded()).models[0].self_test == r.SelfTest(
        passed=False, cases=1, max_error=None
    )


def test_report_has_no_field_for_the_device_s_name() -> None:
    fields = {field.name for field in msgspec.structs.fields(r.Report)}
    assert not {"device", "name", "source"} & fields


@pytest.mark.parametrize("change", [{"state": "fine"}, {"running": "digits:3"}, {"time": None}])
def test_report_with_a_wrong_field_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(DocumentError):
        encode(replaced(**change))
