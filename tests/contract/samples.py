"""One document of each kind, as Python values: what the golden files hold.

Every optional field is set somewhere, so that a renamed field or a changed default changes a golden
file. `make_golden.py` writes them; `test_golden.py` holds the files against them.
"""

from __future__ import annotations

import tempfile
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgefleet.protocol import bundle as b
from edgefleet.protocol import policy as p
from edgefleet.protocol import report as r
from edgefleet.protocol import steps as s
from edgefleet.protocol.layout import BundleLayout, BundleWriter
from edgefleet.protocol.pointer import Cohort, Next, Pointer
from edgefleet.protocol.release import (
    Budget,
    Release,
    ReleaseModel,
    RuntimeSettings,
)
from edgefleet.protocol.segment import SegmentName
from edgefleet.protocol.target import HardwareTarget
from tests.contract import event_samples, order_samples
from tests.contract.order_samples import ORDERS, ROLLED_BACK
from tests.contract.policy_samples import POLICY

if TYPE_CHECKING:
    from collections.abc import Mapping

FLEET = "5f0c7a34-6a0e-4f53-9d0e-2f1f6b1f7f10"
DAY, NIGHT, LATER = order_samples.DAY, order_samples.NIGHT, order_samples.LATER
NOON, BUNDLE, BLOB = event_samples.NOON, event_samples.BUNDLE, event_samples.BLOB
KLL, NUMBERS, CLASSES = event_samples.KLL, event_samples.NUMBERS, event_samples.CLASSES
EVENTS, TRACED = event_samples.EVENTS, event_samples.TRACED

EMPTY = Release()

RELEASE = Release(
    models=(
        ReleaseModel(name="digits", version="3", bundle=BUNDLE),
        ReleaseModel(name="digits", version="4", bundle=BLOB, role="shadow"),
    ),
    settings=RuntimeSettings(
        strict=True, keep_previous=False, store_max_bytes=2_000_000_000, spool_max_bytes=50_000_000
    ),
    telemetry=p.TelemetryPolicy(
        prediction_fraction=0.25,
        output_values=10,
        segment_max_bytes=1_048_576,
        segment_max_age_s=30.5,
        heartbeat_s=3600.0,
    ),
)

RELEASE_BUDGET = Release(
    settings=RuntimeSettings(
        budget=Budget(max_error_share=0.05, max_p99_us=2500.0, window=100, trial_s=60.0)
    )
)

RELEASE_MEMORY = Release(
    settings=RuntimeSettings(memory_max_bytes=3_000_000_000, unload_first=True)
)

RELEASE_SHADOW = Release(
    models=RELEASE.models,
    settings=RuntimeSettings(shadow_share=0.5, shadow_max_bytes=1_000_000),
)

RELEASE_TRIALS = Release(models=RELEASE.models[:1], settings=RuntimeSettings(trial_bytes=5_000_000))

RELEASE_SAMPLES = Release(models=RELEASE.models[:1], telemetry=p.TelemetryPolicy(inputs=("*/*",)))

RELEASE_POLICY = Release(models=RELEASE.models[:1], telemetry=POLICY)

POINTER = Pointer(
    fleet=FLEET,
    epoch=1,
    number=42,
    current=DAY,
    next=Next(release=NIGHT, cohort=Cohort(salt="wave-42", permille=100)),
    sources=("s3://models/plant-a", "https://cache.plant-a.example:8443/edgefleet"),
    issued=NOON,
    expires=datetime(2027, 11, 21, 12, 0, 0, tzinfo=UTC),
    signatures=(),
)

REPORT = r.Report(
    fleet=FLEET,
    epoch=1,
    number=42,
    sequence=7,
    time=NOON,
    state="rejected",
    wanted=NIGHT,
    running=DAY,
    models=(
        r.ModelReport(
            name="digits",
            version="3",
            bundle=BUNDLE,
            variant="int8",
            why="made for x86-cpu, int8 preferred among 2",
            engine="onnxruntime 1.31.1",
            providers=("CPUExecutionProvider",),
            self_test=r.SelfTest(passed=True, cases=2, max_error=0.0005),
            inferences=1200,
            failures=1,
            latency_p50_us=310.5,
        ),
        r.ModelReport(
            name="digits",
            version="4",
            bundle=BLOB,
            role="shadow",
            state="rejected",
            self_test=r.SelfTest(passed=False, cases=2, max_error=None),
            reason="self-test: output probabilities is not finite",
        ),
    ),
    access=r.AccessReport(state="expired", detail="403 from s3://models/plant-a"),
    health=r.Health(
        pid=4711,
        started=LATER,
        starts=3,
        rss_bytes=90_000_000,
        disk_free_bytes=8_000_000_000,
        store_bytes=12_000_000,
        spool_bytes=4096,
        bytes_fetched=6_000_000,
        events_dropped=2,
    ),
    labels={"target": "x86-cpu", "site": "plant-a"},
    endpoint="http://127.0.0.1:43117",
    errors=("digits: self-test: output probabilities is not finite",),
    runtime="0.1.0",
)

REPORT_ROLLED_BACK = msgspec.structs.replace(
    REPORT,
    access=r.AccessReport(state="ok"),
    errors=(),
    models=REPORT.models[:1],
    rolled_back=ROLLED_BACK,
)

REPORT_REVERTED = msgspec.structs.replace(
    REPORT,
    access=r.AccessReport(state="ok"),
    errors=(),
    models=REPORT.models[:1],
    reverted=r.RevertedRuntime(runtime="0.2.0", reason="it ended 3 times before it was well"),
)

REPORT_WAITING = msgspec.structs.replace(
    REPORT,
    access=r.AccessReport(state="ok"),
    errors=(),
    models=REPORT.models[:1],
    health=msgspec.structs.replace(REPORT.health, sync="metered", synced=LATER),
)

REPORT_SHADOW = msgspec.structs.replace(
    REPORT,
    state="active",
    wanted=DAY,
    errors=(),
    models=(
        REPORT.models[0],
        r.ModelReport(
            name="digits",
            version="4",
            bundle=BLOB,
            role="shadow",
            variant="fp32",
            providers=("CPUExecutionProvider",),
            inferences=900,
            shadow=r.ShadowReport(compared=900, dropped=300, agreement=0.98, max_abs_diff=0.125),
        ),
    ),
)

REPORT_VARIANTS = msgspec.structs.replace(
    REPORT,
    state="active",
    wanted=DAY,
    errors=(),
    models=(
        msgspec.structs.replace(
            REPORT.models[0],
            why="faster here than fp32: 310 against 393 µs",
            variants=(
                r.VariantReport(
                    variant="int8",
                    state="chosen",
                    p50_us=310.5,
                    p95_us=402.25,
                    memory_bytes=9_000_000,
                ),
                r.VariantReport(variant="fp32", state="measured", p50_us=393.0, p95_us=500.5),
                r.VariantReport(variant="fp16", reason="needs 900000 bytes, 0 may be fetched"),
            ),
            building=r.BuildReport(
                provider="TensorrtExecutionProvider", elapsed_s=120, progress=0.25
            ),
        ),
    ),
)

TARGET = HardwareTarget(
    name="jetson-orin",
    about="NVIDIA Jetson Orin: TensorRT or CUDA",
    arch="aarch64",
    precisions=("fp16", "fp32"),
    formats=("onnx", "engine"),
    providers=("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
    memory_bytes=8_589_934_592,
    opset_ceiling=26,
    status="built",
    source="https://developer.nvidia.com/embedded/jetson-modules",
)


SEGMENT = SegmentName(day=date(2026, 11, 21), device="cam-07", model="digits", id="0001-a1b2")

DETAILS = b.Details(
    variant="fp32",
    entry="model.onnx",
    interface=b.Interface(
        inputs=(b.TensorSpec(name="x", datatype="FP32", shape=(-1, 2)),),
        outputs=(b.TensorSpec(name="probabilities", datatype="FP32", shape=(-1, 3)),),
    ),
    labels=("good", "scratch", "dent"),
    preprocessing=({"scale": 0.0625, "step": "rescale"},),
    postprocessing=({"step": "softmax"},),
    self_test=(
        b.Vector(
            inputs=(
                b.Tensor(
                    name="x", datatype="FP32", shape=(1, 2), data=bytes.fromhex("0000803f" * 2)
                ),
            ),
            outputs=(
                b.Tensor(
                    name="probabilities",
                    datatype="FP32",
                    shape=(1, 3),
                    data=bytes.fromhex("0000003f0000803e0000803e"),
                ),
            ),
        ),
    ),
    tolerance=b.Tolerance(absolute=0.01, relative=0.001),
    sketches={"brightness": NUMBERS},
    metrics={"accuracy": 0.975},
    lineage={"run": "run-17", "data": BLOB},
)

BEFORE: tuple[s.Step, ...] = (
    s.Given(tensor="photo", datatype="UINT8", shape=(-1, -1, 3)),
    s.Resize(tensor="photo", height=4, width=6, mode="nearest"),
    s.Clip(min=1, max=254.5),
    s.Cast(datatype="FP32"),
    s.Normalize(mean=(123.5, 116.25, 103.0), std=(58.5,)),
    s.Transpose(axes=(2, 0, 1)),
    s.Reshape(shape=(1, -1)),
    s.Rescale(scale=0.5, offset=-0.25),
    s.ExpandDims(axis=0),
    s.Squeeze(axis=1, into="x"),
)
AFTER: tuple[s.Step, ...] = (
    s.Softmax(tensor="probabilities"),
    s.TopK(k=2, into="scores", indices="classes"),
    s.Label(tensor="classes", into="names"),
    s.Threshold(tensor="scores", at=0.5, into="sure"),
    s.ArgMax(tensor="mask", axis=0, keep=True),
)
DETAILS_STEPS = b.Details(
    variant="fp32",
    entry="model.onnx",
    interface=b.Interface(
        inputs=(b.TensorSpec(name="x", datatype="FP32", shape=(1, 72)),),
        outputs=(
            b.TensorSpec(name="probabilities", datatype="FP32", shape=(1, 3)),
            b.TensorSpec(name="mask", datatype="FP32", shape=(4, 6)),
        ),
    ),
    labels=("good", "scratch", "dent"),
    preprocessing=s.plain_steps(BEFORE),
    postprocessing=s.plain_steps(AFTER),
    requires=(s.FEATURE,),
)
"""Every step once."""

FILES = {
    "model.onnx": b"stands for the graph\n",
    "weights/model.onnx.data": b"stands for the weights\n",
}
SMALL_FILES = {"model.onnx": b"stands for the quantized model\n"}


def write_bundle(root: Path) -> BundleLayout:
    """Write the sample bundle: fp32 with an external data file, and int8 for one target."""
    with tempfile.TemporaryDirectory() as scratch, BundleWriter(root) as writer:
        writer.add_variant(
            DETAILS,
            _on_disk(Path(scratch, "fp32"), FILES),
            model_name="digits",
            model_format="onnx",
            precision="fp32",
            opset=21,
        )
        writer.add_variant(
            msgspec.structs.replace(DETAILS, variant="int8", sketches={}, self_test=()),
            _on_disk(Path(scratch, "int8"), SMALL_FILES),
            model_name="digits",
            model_format="onnx",
            precision="int8",
            targets=("x86-cpu", "raspberry-pi-5"),
            opset=21,
        )
        return writer.finish()


def _on_disk(folder: Path, files: Mapping[str, bytes]) -> dict[str, Path]:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return {path: folder / path for path in files}


DOCUMENTS: dict[str, msgspec.Struct] = {
    "release-empty.json": EMPTY,
    "release-budget.json": RELEASE_BUDGET,
    "release-memory.json": RELEASE_MEMORY,
    "release-shadow.json": RELEASE_SHADOW,
    "release-trials.json": RELEASE_TRIALS,
    "report-shadow.json": REPORT_SHADOW,
    "report-variants.json": REPORT_VARIANTS,
    "release-samples.json": RELEASE_SAMPLES,
    "release-policy.json": RELEASE_POLICY,
    "report-rolled-back.json": REPORT_ROLLED_BACK,
    "report-reverted.json": REPORT_REVERTED,
    "report-waiting.json": REPORT_WAITING,
    **ORDERS,
    "release.json": RELEASE,
    "pointer.json": POINTER,
    "report.json": REPORT,
    **{f"event-{kind}.json": event for kind, event in EVENTS.items()},
    "event-prediction-traced.json": TRACED,
    "event-alarm-ended.json": event_samples.WARMING,
    "event-window-predictions.json": event_samples.WINDOW_OF_PREDICTIONS,
    "sketch-numbers.json": NUMBERS,
    "sketch-classes.json": CLASSES,
    "target.json": TARGET,
    "details.json": DETAILS,
    "details-steps.json": DETAILS_STEPS,
}
"""File name -> the document whose canonical bytes it holds. The bundle's documents lie in it."""
