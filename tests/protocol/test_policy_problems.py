"""What is said against a policy before it is sent."""

from __future__ import annotations

import pytest

from edgefleet.errors import InvalidInputError
from edgefleet.protocol import policy as p
from edgefleet.protocol.policy_problems import check_policy, problems_of, target_problem
from tests.contract import samples


def alarm(**fields: object) -> p.TelemetryPolicy:
    given: dict[str, object] = {"name": "hot", "stream": "reefer", "when": "values.t > 1.0"}
    return p.TelemetryPolicy(alarms=(p.AlarmRule(**{**given, **fields}),))  # type: ignore[arg-type]


def capture(*, inputs: tuple[str, ...] = (), **fields: object) -> p.TelemetryPolicy:
    rule = p.CaptureRule(**{"name": "unsure", **fields})  # type: ignore[arg-type]
    return p.TelemetryPolicy(captures=(rule,), inputs=inputs)


def test_policy_that_says_everything_has_no_problem() -> None:
    assert problems_of(samples.RELEASE_POLICY.telemetry, {"digits"}) == ()
    check_policy(samples.RELEASE_POLICY.telemetry, {"digits"})


def test_policy_that_says_nothing_has_no_problem() -> None:
    assert problems_of(p.TelemetryPolicy(), ()) == ()


TWICE = p.Filter(name="a", model="digits")
PROBLEMS: dict[str, tuple[p.TelemetryPolicy, str]] = {
    "a malformed condition": (alarm(when="values.t >"), "alarms.hot.when: 1:11: "),
    "a malformed end": (alarm(clear="valus.t < 1.0"), "alarms.hot.clear: 1:1: there is no 'valus'"),
    "a name of spans": (alarm(when="mean.t > 1.0"), "there is no 'mean' in a reading"),
    "a name of readings in a span": (alarm(over_s=2.0), "there is no 'values' in a span of time"),
    "neither model nor stream": (alarm(stream=None), "alarms.hot: it looks at a model's"),
    "both": (alarm(model="digits"), "alarms.hot: it looks at a model's"),
    "more than there are": (alarm(needs=3, within=2), "alarms.hot.needs: 3 of the last 2"),
    "a span of many": (
        alarm(when="count > 1", over_s=2.0, within=5, needs=3),
        "alarms.hot.within: a span is looked at as a whole",
    ),
    "an endless span": (alarm(when="count > 1", over_s=1e9), "alarms.hot.over_s: 1e+09 s"),
    "a message of nothing": (alarm(message="it is {heat}"), "there is no {heat} in a reading"),
    "an action's folder": (
        alarm(actions=(p.Action(kind="file", target="../etc/passwd"),)),
        "alarms.hot.actions[0]: target '../etc/passwd'",
    ),
    "the same name": (
        p.TelemetryPolicy(filters=(TWICE, TWICE)),
        "filters.a: another rule has this name",
    ),
    "another release's model": (
        p.TelemetryPolicy(windows=(p.WindowRule(name="w", model="cats"),)),
        "windows.w: there is no model 'cats' in the release (cure: it has: digits)",
    ),
    "a window without end": (
        p.TelemetryPolicy(windows=(p.WindowRule(name="w", stream="s", size_s=1e7),)),
        "windows.w.size_s: 1e+07 s is no length",
    ),
    "edges that fall": (
        p.TelemetryPolicy(windows=(p.WindowRule(name="w", stream="s", edges=(2.0, 1.0)),)),
        "windows.w.edges: edges ascend",
    ),
    "an unknown alarm": (capture(alarm="cold"), "captures.unsure.alarm: there is no alarm 'cold'"),
    "around nothing": (capture(before=3), "captures.unsure.before: before and after are around"),
    "a span of no length": (
        p.TelemetryPolicy(sync=p.SyncPolicy(spans=(p.Span(start="22:00", end="22:00"),))),
        "sync.spans[0]: it ends where it starts",
    ),
    "a hook that isn't there": (
        p.TelemetryPolicy(inputs=("digits/x",), redact={"digits/x": ("smear",)}),
        "redact.digits/x: there is no hook 'smear'",
    ),
    "a hook's number that is none": (
        p.TelemetryPolicy(inputs=("digits/x",), redact={"digits/x": ("blur:much",)}),
        "redact.digits/x: 'much' is no number",
    ),
    "redacting what isn't kept": (
        p.TelemetryPolicy(inputs=("digits/x",), redact={"digits/y": ("blur",)}),
        "redact.digits/y: no input that may be kept falls under it",
    ),
}


@pytest.mark.parametrize("policy, said", PROBLEMS.values(), ids=PROBLEMS)
def test_problem_is_told_with_its_place(policy: p.TelemetryPolicy, said: str) -> None:
    assert any(said in problem for problem in problems_of(policy, {"digits"}))
    with pytest.raises(InvalidInputError) as caught:
        check_policy(policy, {"digits"})
    assert caught.value.cure


def kept(model: str | None, *inputs: str) -> p.TelemetryPolicy:
    rule = p.CaptureRule(name="unsure", model=model, inputs=True)
    return p.TelemetryPolicy(captures=(rule,), inputs=inputs)


@pytest.mark.parametrize(
    "policy, bare",
    [
        (kept("digits"), "digits"),
        (kept("digits", "cats/*"), "digits"),
        (kept(None), "every model|cats, digits"),
        (kept(None, "digits/*"), "cats"),
    ],
)
def test_samples_of_inputs_that_the_policy_does_not_name_are_refused(
    policy: p.TelemetryPolicy, bare: str
) -> None:
    with pytest.raises(InvalidInputError, match=f"ship inputs of ({bare}), which privacy forbids"):
        check_policy(policy, {"digits", "cats"})


@pytest.mark.parametrize(
    "policy", [kept("digits", "digits/x"), kept(None, "*/*"), kept("a", "*/x")]
)
def test_samples_of_inputs_that_the_policy_names_are_fine(policy: p.TelemetryPolicy) -> None:
    assert problems_of(policy, {"digits", "cats", "a"}) == ()


def test_models_count_only_where_the_release_is_known() -> None:
    policy = p.TelemetryPolicy(filters=(p.Filter(name="a", model="cats"),))
    assert problems_of(policy) == ()
    assert problems_of(policy, {"digits"})


def test_all_problems_are_told_at_once() -> None:
    policy = p.TelemetryPolicy(
        filters=(p.Filter(name="a", when="scor > 1.0"),),
        captures=(p.CaptureRule(name="b", alarm="c"),),
    )
    with pytest.raises(
        InvalidInputError, match=r"2 problems:\n- filters.a.when.*(.|\n)*captures.b"
    ):
        check_policy(policy)


def test_a_hook_of_the_device_has_a_dot() -> None:
    policy = p.TelemetryPolicy(
        inputs=("*/*",), redact={"digits/x": ("plant.faces:2", "noise:0.5", "drop")}
    )
    assert problems_of(policy) == ()


@pytest.mark.parametrize(
    "kind, target, fine",
    [
        ("webhook", "http://192.168.1.9:8080/alarm?line=3", True),
        ("webhook", "https://plc.local/a", True),
        ("webhook", "ftp://192.168.1.9/a", False),
        ("webhook", "http:///a", False),
        ("webhook", "http://me:secret@192.168.1.9/a", False),
        ("webhook", "http://192.168.1.9:99999/a", False),
        ("webhook", "http://[::1/a", False),
        ("mqtt", "mqtt://broker:1883/plant/alarms", True),
        ("mqtt", "mqtt://broker/plant/#", False),
        ("mqtt", "mqtt://broker", False),
        ("mqtt", "http://broker/topic", False),
        ("file", "alarms.ndjson", True),
        ("file", "../alarms", False),
        ("file", "/etc/passwd", False),
        ("file", "a/b", False),
        ("file", ".hidden", False),
        ("run", "stop-line", True),
        ("run", "rm -rf /", False),
    ],
)
def test_targets_of_actions(kind: str, target: str, fine: bool) -> None:  # noqa: FBT001
    action = p.Action(kind=kind, target=target)  # type: ignore[arg-type]
    assert (target_problem(action) == "") is fine
