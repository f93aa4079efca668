"""Hypothesis strategies for wire documents: every legal value of a field, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from edgefleet.protocol import bundle as b
from edgefleet.protocol import event as e
from edgefleet.protocol import report as r
from edgefleet.protocol.names import DEVICE_PATTERN, MAX_MODEL_CHARACTERS, MODEL_PATTERN
from edgefleet.protocol.pointer import SCHEMES, Cohort, Next, Pointer
from edgefleet.protocol.release import Release, ReleaseModel, RuntimeSettings, TelemetryPolicy
from edgefleet.protocol.sketch import ClassSketch
from edgefleet.protocol.target import HardwareTarget

if TYPE_CHECKING:
    from msgspec import Struct

text = st.text(max_size=12)
texts = st.lists(text, max_size=3).map(tuple)
maps = st.dictionaries(text, text, max_size=3)
numbers = st.floats(allow_nan=False, allow_infinity=False)
measured = st.none() | numbers
counts = st.integers(0, 2**53)
fleets = st.uuids().map(str)
devices = st.from_regex(DEVICE_PATTERN)
models = st.from_regex(MODEL_PATTERN).filter(lambda name: len(name) <= MAX_MODEL_CHARACTERS)
digests = st.binary(min_size=32, max_size=32).map(lambda raw: "sha256:" + raw.hex())
moments = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
features = st.lists(
    st.from_regex(r"\A[a-z0-9][a-z0-9.\-]{0,20}\Z"), min_size=1, max_size=3, unique=True
).map(tuple)
sources = st.builds(
    "{}://{}/{}".format,
    st.sampled_from(sorted(SCHEMES - {"file"})),
    st.from_regex(r"\A[a-z0-9]{1,20}(:[1-9][0-9]{0,3})?\Z"),
    st.from_regex(r"\A[A-Za-z0-9._~%/-]{0,20}\Z"),
) | st.from_regex(r"\A[A-Za-z0-9._~%-]{1,20}\Z").map("file:///{}".format)

cohorts = st.builds(
    Cohort,
    salt=st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=32),
    permille=st.integers(0, 1000),
)
pointers = st.builds(
    Pointer,
    fleet=fleets,
    epoch=st.integers(0, 10**6),
    number=st.integers(1, 10**9),
    current=digests,
    sources=st.lists(sources, max_size=4).map(tuple),
    issued=moments,
    next=st.none() | st.builds(Next, release=digests, cohort=cohorts),
    expires=st.none() | moments,
)

release_models = st.builds(
    ReleaseModel,
    name=models,
    version=text,
    bundle=digests,
    role=st.sampled_from(["active", "shadow"]),
)
sizes = st.none() | st.integers(1, 2**50)
releases = st.builds(
    Release,
    models=st.lists(release_models, max_size=4, unique_by=lambda m: (m.name, m.role)).map(tuple),
    settings=st.builds(
        RuntimeSettings,
        strict=st.booleans(),
        keep_previous=st.booleans(),
        store_max_bytes=sizes,
        spool_max_bytes=sizes,
    ),
    telemetry=st.builds(
        TelemetryPolicy,
        prediction_fraction=st.floats(0.0, 1.0),
        output_values=st.integers(0, 1024),
        segment_max_bytes=st.integers(1, 2**40),
        segment_max_age_s=st.floats(0.001, 1e6),
        heartbeat_s=st.floats(0.001, 1e6),
    ),
)

model_reports = st.builds(
    r.ModelReport,
    name=models,
    version=text,
    bundle=digests,
    role=st.sampled_from(["active", "shadow"]),
    variant=st.none() | text,
    why=st.none() | text,
    engine=st.none() | text,
    providers=texts,
    state=st.sampled_from(["fetched", "verified", "loaded", "warmed", "active", "rejected"]),
    self_test=st.none()
    | st.builds(r.SelfTest, passed=st.booleans(), cases=counts, max_error=measured),
    reason=st.none() | text,
    inferences=counts,
    failures=counts,
    latency_p50_us=measured,
)
reports = st.builds(
    r.Report,
    sequence=counts,
    time=moments,
    state=st.sampled_from(["idle", "working", "active", "rejected", "waiting"]),
    runtime=text,
    health=st.builds(
        r.Health, pid=counts, started=moments, starts=counts, rss_bytes=st.none() | counts
    ),
    fleet=st.none() | fleets,
    epoch=counts,
    number=counts,
    wanted=st.none() | digests,
    running=st.none() | digests,
    models=st.lists(model_reports, max_size=3).map(tuple),
    access=st.builds(
        r.AccessReport, state=st.sampled_from(["ok", "expired", "denied", "unknown"]), detail=text
    ),
    labels=maps,
    endpoint=st.none() | text,
    errors=texts,
)

shapes = st.lists(st.integers(0, 9), max_size=3).map(tuple)
payloads: dict[str, st.SearchStrategy[e.EventData]] = {
    "prediction": st.builds(
        e.Prediction,
        model=text,
        model_version=text,
        bundle=digests,
        variant=text,
        outputs=st.lists(
            st.builds(
                e.OutputSummary,
                name=text,
                shape=shapes,
                values=st.lists(measured, max_size=4).map(tuple),
                top=shapes,
                score=st.lists(measured, max_size=4).map(tuple),
            ),
            max_size=2,
        ).map(tuple),
        latency_us=numbers,
        request=st.none() | text,
        trace=st.none() | text,
    ),
    "metric": st.builds(
        e.Metric, name=text, value=measured, unit=text, model=st.none() | text, labels=maps
    ),
    "sketch": st.builds(e.SketchWindow, model=text, start=moments, end=moments, features=maps),
    "sample": st.builds(
        e.Sample, model=text, model_version=text, reason=text, inputs=maps, outputs=maps
    ),
    "alarm": st.builds(
        e.Alarm,
        rule=text,
        message=text,
        severity=st.sampled_from(["info", "warning", "critical"]),
        model=st.none() | text,
    ),
    "health": st.builds(e.HealthEvent, what=text, message=text, model=st.none() | text),
}
events = st.builds(
    e.new_event, st.one_of(*payloads.values()), time=moments, subject=st.none() | text
)

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | numbers | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
datatypes = st.sampled_from(["FP32", "INT8", "UINT8", "BYTES", "BF16", "BOOL"])
specs = st.builds(
    b.TensorSpec,
    name=text,
    datatype=datatypes,
    shape=st.lists(st.integers(-1, 9), max_size=3).map(tuple),
)
interfaces = st.builds(
    b.Interface, inputs=st.tuples(specs), outputs=st.lists(specs, max_size=2).map(tuple)
)
tensors = st.integers(0, 5).flatmap(
    lambda n: st.builds(
        b.Tensor,
        name=text,
        datatype=st.just("INT8"),
        shape=st.just((n,)),
        data=st.binary(min_size=n, max_size=n),
    )
)
details = st.builds(
    b.Details,
    variant=text,
    entry=text,
    interface=interfaces,
    labels=texts,
    preprocessing=st.lists(st.dictionaries(text, plain, max_size=2), max_size=2).map(tuple),
    self_test=st.lists(
        st.builds(b.Vector, inputs=st.tuples(tensors), outputs=st.tuples(tensors)), max_size=2
    ).map(tuple),
    tolerance=st.builds(b.Tolerance, absolute=numbers, relative=numbers),
    sketches=st.dictionaries(text, plain, max_size=2),
    metrics=st.dictionaries(text, numbers, max_size=3),
    lineage=maps,
)

targets = st.builds(
    HardwareTarget,
    name=st.from_regex(r"\A[a-z0-9]([a-z0-9.\-]{0,10}[a-z0-9])?\Z"),
    about=text,
    arch=st.sampled_from(["x86_64", "aarch64", "any"]),
    precisions=texts,
    formats=texts,
    providers=texts,
    memory_bytes=st.none() | counts,
    opset_ceiling=st.none() | counts,
    status=st.sampled_from(["tested", "built", "untested", "impossible"]),
    source=text,
    kin=st.lists(st.sampled_from(["any", "board"]), max_size=2).map(tuple),
    activations=st.sampled_from(["any", "unsigned", "signed"]),
    max_memory_bytes=st.none() | counts,
    os_image=text,
    python=text,
    engine_source=text,
    why=text,
    sources=texts,
)
class_sketches = st.builds(ClassSketch, counts=st.dictionaries(text, counts, max_size=5))

documents: dict[str, st.SearchStrategy[Struct]] = {
    "release": releases,
    "pointer": pointers,
    "report": reports,
    "details": details,
    "target": targets,
    "class-sketch": class_sketches,
    **payloads,
}
"""A strategy for each kind of document that carries ``version`` and ``requires``."""

any_document: st.SearchStrategy[Struct] = st.one_of(*documents.values())
