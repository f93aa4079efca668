"""A telemetry policy in which every field says something."""

from __future__ import annotations

from edgefleet.protocol import drift as d
from edgefleet.protocol import policy as p

POLICY = p.TelemetryPolicy(
    filters=(
        p.Filter(name="unsure", model="digits", when="score < 0.9", fraction=0.5),
        p.Filter(name="warm", stream="reefer", when="values.temperature > -18.0"),
    ),
    windows=(
        p.WindowRule(
            name="minutes",
            stream="reefer",
            when="key != ''",
            size_s=30.0,
            values=("temperature",),
            quantiles=(0.5, 0.99),
            edges=(-20.0, -10.0, 0.0),
            keep=True,
        ),
        p.WindowRule(name="scores", model="digits"),
    ),
    alarms=(
        p.AlarmRule(
            name="scratch",
            model="digits",
            when="score > 0.9 && top == 1",
            needs=3,
            within=5,
            clear="score < 0.5",
            clear_after=2,
            every_s=60.0,
            severity="critical",
            message="scratch at {score}",
            actions=(
                p.Action(kind="webhook", target="http://192.168.1.9/alarm"),
                p.Action(kind="run", target="stop-line"),
            ),
        ),
        p.AlarmRule(
            name="shakes", stream="motor", when="mean.vibration > 4.5 && count > 9", over_s=2.0
        ),
    ),
    captures=(
        p.CaptureRule(
            name="unsure", model="digits", when="score < 0.6", every=3, per_hour=10, inputs=True
        ),
        p.CaptureRule(name="around", alarm="scratch", before=2, after=1),
    ),
    drift=p.DriftPolicy(
        window_s=600.0,
        fraction=0.1,
        limits=d.Limits(
            psi_watch=0.2,
            psi_moved=0.3,
            ks_moved=0.25,
            missing=0.1,
            outside=0.02,
            min_count=50,
        ),
    ),
    sync=p.SyncPolicy(
        max_bytes_per_s=100_000, spans=(p.Span(start="22:00", end="04:30"),), metered="lean"
    ),
    worth=p.WorthPolicy(hard_below=0.5, rare_below=0.05),
    inputs=("digits/x",),
    redact={"digits/*": ("blur",)},
)
