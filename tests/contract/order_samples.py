"""Orders to one device and their answers, as Python values: see `samples`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from edgefleet.protocol import orders as o
from edgefleet.protocol import report as r

if TYPE_CHECKING:
    import msgspec

LATER = datetime(2026, 11, 21, 12, 0, 0, 250_000, tzinfo=UTC)
DAY = "sha256:" + "1" * 64
NIGHT = "sha256:" + "2" * 64

ROLLED_BACK = r.RolledBack(release=NIGHT, by="ada", at=LATER, reason="it sees ghosts")
ROLLBACK_ORDER = o.RollbackOrder(by="ada", reason="it sees ghosts")
ROLLBACK_ANSWER = o.RollbackAnswer(
    changed=True,
    epoch=1,
    number=42,
    wanted=NIGHT,
    running=DAY,
    rolled_back=ROLLED_BACK,
    took_ms=2.5,
    remembered=False,
)
CAPTURE_ORDER = o.CaptureOrder(
    model="digits", id="order-0001", count=3, seconds=60.5, by="ada", reason="it sees ghosts"
)
CAPTURE_ANSWER = o.CaptureAnswer(
    id="order-0001",
    model="digits",
    count=3,
    until=LATER,
    captured=1,
    dropped=1,
    ids=("order-0001.0",),
    open=True,
    inputs=True,
)
TRIAL_ORDER = o.TrialOrder(
    id="order-0002",
    bundle=DAY,
    variants=("fp32", "int8"),
    max_bytes=50_000_000,
    calls=100,
    seconds=1.5,
    within_s=600.0,
    by="ada",
    reason="for the yard",
)
TRIAL_ANSWER = o.TrialAnswer(
    id="order-0002",
    bundle=DAY,
    state="working",
    variant="fp16",
    figures=(
        o.TrialFigures(
            variant="fp32",
            outcome="measured",
            format="onnx",
            engine="onnxruntime 1.31.1",
            providers=("CPUExecutionProvider",),
            calls=100,
            p50_us=4120.5,
            p95_us=4300.0,
            p99_us=5012.25,
            memory_bytes=31_457_280,
            self_test=r.SelfTest(passed=True, cases=4, max_error=0.0001),
            fetched_bytes=8_400_000,
        ),
        o.TrialFigures(
            variant="openvino",
            outcome="skipped",
            reason="no installed engine opens 'openvino' files",
            format="openvino",
        ),
    ),
    machine="0123456789abcdef",
    target="raspberry-pi-5",
    runtime="0.1.0",
)

ORDERS: dict[str, msgspec.Struct] = {
    "order-rollback.json": ROLLBACK_ORDER,
    "order-rollback-answer.json": ROLLBACK_ANSWER,
    "order-capture.json": CAPTURE_ORDER,
    "order-capture-answer.json": CAPTURE_ANSWER,
    "order-trial.json": TRIAL_ORDER,
    "order-trial-answer.json": TRIAL_ANSWER,
}
"""File name -> the document whose canonical bytes it holds."""
