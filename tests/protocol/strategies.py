"""Hypothesis strategies for wire documents: every legal value of a field, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from hypothesis import strategies as st

from edgefleet.protocol import bundle as b
from edgefleet.protocol import drift as d
from edgefleet.protocol import event as e
from edgefleet.protocol import policy as p
from edgefleet.protocol import report as r
from edgefleet.protocol.names import DEVICE_PATTERN, MAX_MODEL_CHARACTERS, MODEL_PATTERN
from edgefleet.protocol.pointer import SCHEMES, Cohort, Next, Pointer
from edgefleet.protocol.release import Release, ReleaseModel, RuntimeSettings
from edgefleet.protocol.sketch import ClassSketch
from edgefleet.protocol.target import HardwareTarget

if TYPE_CHECKING:
    from msgspec import Struct

T = TypeVar("T")


def several(some: st.SearchStrategy[T], most: int = 2) -> st.SearchStrategy[tuple[T, ...]]:
    """As documents hold several of a kind: none, up to so many."""
    return st.lists(some, max_size=most).map(tuple)


text = st.text(max_size=12)
texts = several(text, 3)
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
    sources=several(sources, 4),
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

rules = st.from_regex(r"\A[a-z0-9][a-z0-9._\-]{0,20}\Z")
conditions = st.text(max_size=20)
fractions = st.floats(0.0, 1.0)
spans_s = st.floats(0.001, 1e6)
clocks = st.times().map(lambda time: f"{time:%H:%M}")
patterns = st.from_regex(r"\A[A-Za-z0-9._\-*]{1,9}/[A-Za-z0-9*]{1,9}\Z")
scope = {"model": st.none() | models, "stream": st.none() | rules}
"""What a rule may be limited to: predictions of a model, readings of a stream."""
policies = st.builds(
    p.TelemetryPolicy,
    prediction_fraction=fractions,
    output_values=st.integers(0, 1024),
    segment_max_bytes=st.integers(1, 2**40),
    segment_max_age_s=spans_s,
    heartbeat_s=spans_s,
    filters=several(
        st.builds(
            p.Filter,
            name=rules,
            **scope,
            when=conditions,
            fraction=fractions,
        )
    ),
    windows=several(
        st.builds(
            p.WindowRule,
            name=rules,
            **scope,
            when=conditions,
            size_s=spans_s,
            values=texts,
            quantiles=several(fractions, 3),
            edges=several(numbers, 3),
            keep=st.booleans(),
        )
    ),
    alarms=several(
        st.builds(
            p.AlarmRule,
            name=rules,
            when=st.text(min_size=1, max_size=20),
            **scope,
            needs=st.integers(1, 1000),
            within=st.integers(1, 1000),
            over_s=st.none() | spans_s,
            clear=conditions,
            clear_after=st.integers(1, 1000),
            every_s=spans_s,
            severity=st.sampled_from(["info", "warning", "critical"]),
            message=text,
            actions=several(
                st.builds(
                    p.Action,
                    kind=st.sampled_from(["webhook", "mqtt", "file", "run"]),
                    target=st.text(min_size=1, max_size=12),
                )
            ),
        )
    ),
    captures=several(
        st.builds(
            p.CaptureRule,
            name=rules,
            when=conditions,
            alarm=st.none() | rules,
            before=st.integers(0, 64),
            inputs=st.booleans(),
        )
    ),
    drift=st.none() | st.builds(p.DriftPolicy, window_s=spans_s, fraction=fractions),
    sync=st.builds(
        p.SyncPolicy,
        max_bytes_per_s=sizes,
        spans=several(st.builds(p.Span, start=clocks, end=clocks)),
        metered=st.sampled_from(["all", "lean", "alarms"]),
    ),
    worth=st.builds(p.WorthPolicy, hard_below=fractions, rare_below=fractions),
    inputs=several(patterns),
    redact=st.dictionaries(patterns, texts, max_size=2),
)
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
    telemetry=policies,
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
    models=several(model_reports, 3),
    access=st.builds(
        r.AccessReport, state=st.sampled_from(["ok", "expired", "denied", "unknown"]), detail=text
    ),
    labels=maps,
    endpoint=st.none() | text,
    errors=texts,
)

shapes = several(st.integers(0, 9), 3)
verdicts = st.sampled_from(["stable", "watch", "moved", "unknown"])
payloads: dict[str, st.SearchStrategy[e.EventData]] = {
    "prediction": st.builds(
        e.Prediction,
        model=text,
        model_version=text,
        bundle=digests,
        variant=text,
        outputs=several(
            st.builds(
                e.OutputSummary,
                name=text,
                shape=shapes,
                values=several(measured, 4),
                top=shapes,
                score=several(measured, 4),
            )
        ),
        latency_us=numbers,
        request=st.none() | text,
        trace=st.none() | text,
    ),
    "metric": st.builds(
        e.Metric, name=text, value=measured, unit=text, model=st.none() | text, labels=maps
    ),
    "reading": st.builds(
        e.Reading, stream=text, key=text, values=st.dictionaries(text, measured, max_size=3)
    ),
    "window": st.builds(
        e.Window,
        rule=text,
        start=moments,
        end=moments,
        count=counts,
        values=st.dictionaries(
            text,
            st.builds(
                e.Aggregate,
                count=counts,
                missing=counts,
                mean=measured,
                least=measured,
                most=measured,
                quantiles=st.dictionaries(text, measured, max_size=2),
                histogram=shapes,
            ),
            max_size=2,
        ),
        key=text,
        stream=st.none() | text,
        model=st.none() | text,
    ),
    "sketch": st.builds(
        e.SketchWindow,
        model=text,
        start=moments,
        end=moments,
        features=maps,
        requests=counts,
        drift=st.dictionaries(
            text,
            st.builds(d.Drift, verdict=verdicts, why=text, count=counts, psi=measured, js=measured),
            max_size=2,
        ),
        verdict=verdicts,
    ),
    "sample": st.builds(
        e.Sample,
        model=text,
        model_version=text,
        reason=text,
        inputs=maps,
        outputs=maps,
        redacted=st.dictionaries(text, texts, max_size=2),
    ),
    "alarm": st.builds(
        e.Alarm,
        rule=text,
        message=text,
        severity=st.sampled_from(["info", "warning", "critical"]),
        model=st.none() | text,
        stream=st.none() | text,
        key=text,
        ended=st.booleans(),
        values=st.dictionaries(text, measured, max_size=2),
    ),
    "account": st.builds(
        e.Account,
        spool=text,
        day=st.dates().map(str),
        number=st.integers(1, 2**53),
        tallies=several(
            st.builds(
                e.Tally,
                kind=text,
                seen=counts,
                model=text,
                top=st.none() | counts,
                band=st.none() | st.integers(0, 9),
                dropped=counts,
            )
        ),
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
    shape=several(st.integers(-1, 9), 3),
)
interfaces = st.builds(b.Interface, inputs=st.tuples(specs), outputs=several(specs))
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
    preprocessing=several(st.dictionaries(text, plain, max_size=2)),
    self_test=several(st.builds(b.Vector, inputs=st.tuples(tensors), outputs=st.tuples(tensors))),
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
    kin=several(st.sampled_from(["any", "board"])),
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
