"""One event of each kind, and more of those that have optional fields to show."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import msgspec

from edgefleet.protocol import drift as d
from edgefleet.protocol import event as e
from edgefleet.protocol.documents import encode
from edgefleet.protocol.sketch import ClassSketch, NumberSketch
from tests.contract.order_samples import LATER

NOON = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
BUNDLE = "sha256:" + "a" * 64
BLOB = "sha256:" + "b" * 64

# 1.0 to 5.0 once each and one NaN, by datasketches 5.2.
KLL = base64.b64decode("BQEPAJABCAAFAAAAAAAAAJABAQCLAQAAAACAPwAAoEAAAKBAAACAQAAAQEAAAABAAACAPw==")
NUMBERS = NumberSketch(count=5, missing=1, kll=KLL)
CLASSES = ClassSketch(counts={"0": 12, "7": 3, "10": 1})


def _event(identity: str, kind: str, data: e.EventData, subject: str | None) -> e.Event:
    return e.Event(
        id=identity,
        source="/devices/cam-07",
        type=e.PREFIX + kind,
        time=LATER,
        subject=subject,
        data=msgspec.Raw(encode(data)),
    )


EVENTS: dict[str, e.Event] = {
    "prediction": _event(
        "0001",
        "prediction",
        e.Prediction(
            model="digits",
            model_version="3",
            bundle=BUNDLE,
            variant="int8",
            outputs=(
                e.OutputSummary(
                    name="probabilities",
                    shape=(1, 3),
                    values=(0.125, None, 0.75),
                    top=(2,),
                    score=(0.75,),
                ),
            ),
            latency_us=311.25,
            request="req-9",
        ),
        "digits",
    ),
    "metric": _event(
        "0002",
        "metric",
        e.Metric(name="queue", value=3.0, unit="requests", model="digits", labels={"line": "3"}),
        "digits",
    ),
    "sketch": _event(
        "0003",
        "sketch",
        e.SketchWindow(
            model="digits",
            start=NOON,
            end=LATER,
            features={"brightness": NUMBERS, "top": CLASSES},
            model_version="3",
            bundle=BUNDLE,
            requests=17,
            drift={
                "brightness": d.Drift(
                    verdict="moved",
                    why="PSI 0.5 is above 0.25",
                    count=5,
                    psi=0.5,
                    ks=0.375,
                    js=0.25,
                    missing=0.125,
                    outside=0.0625,
                    ks_noise=0.03125,
                    psi_noise=0.015625,
                )
            },
            verdict="moved",
        ),
        "digits",
    ),
    "sample": _event(
        "0004",
        "sample",
        e.Sample(
            model="digits",
            model_version="3",
            reason="score below 0.5",
            inputs={"x": BLOB},
            outputs={"probabilities": BUNDLE},
            bundle=BUNDLE,
            answers=(
                e.OutputSummary(name="probabilities", shape=(1, 3), top=(2,), score=(0.375,)),
            ),
            redacted={"x": ("blur",)},
        ),
        "digits",
    ),
    "alarm": _event(
        "0005",
        "alarm",
        e.Alarm(rule="scratch", message="3 in a row", severity="critical", model="digits"),
        "digits",
    ),
    "health": _event(
        "0006", "health", e.HealthEvent(what="started", message="runtime 0.1.0"), None
    ),
    "reading": _event(
        "0008",
        "reading",
        e.Reading(
            stream="reefer", key="MSKU1234565", values={"temperature": -18.25, "humidity": None}
        ),
        None,
    ),
    "window": _event(
        "0009",
        "window",
        e.Window(
            rule="minutes",
            start=NOON,
            end=LATER,
            count=4,
            values={
                "temperature": e.Aggregate(
                    count=3,
                    missing=1,
                    mean=-18.5,
                    least=-19.0,
                    most=-18.0,
                    quantiles={"0.5": -18.5},
                    histogram=(0, 2, 1),
                )
            },
            key="MSKU1234565",
            stream="reefer",
        ),
        None,
    ),
    "account": _event(
        "0010",
        "account",
        e.Account(
            spool="2c1f0d6e",
            day="2026-11-21",
            number=4,
            tallies=(
                e.Tally(
                    kind="prediction", model="digits", top=3, band=9, seen=90_300, dropped=86_188
                ),
                e.Tally(kind="alarm", model="digits", seen=119),
            ),
        ),
        None,
    ),
}

WARMING = _event(
    "0011",
    "alarm",
    e.Alarm(
        rule="warm",
        message="warm of MSKU1234565: mean.temperature is -9.5",
        stream="reefer",
        key="MSKU1234565",
        ended=True,
        values={"mean.temperature": -9.5},
    ),
    None,
)
"""The end of an alarm over readings."""

WINDOW_OF_PREDICTIONS = _event(
    "0012",
    "window",
    e.Window(
        rule="scores",
        start=NOON,
        end=LATER,
        count=1,
        values={"score": e.Aggregate(count=1, mean=0.5, least=0.5, most=0.5)},
        model="digits",
    ),
    "digits",
)

TRACED = _event(
    "0007",
    "prediction",
    e.Prediction(
        model="digits",
        model_version="3",
        bundle=BUNDLE,
        variant="int8",
        outputs=(),
        latency_us=311.25,
        trace="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ),
    "digits",
)
"""Came after the segment's golden file was promised, so it lies in none."""
