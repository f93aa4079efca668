"""Hypothesis strategies for wire documents: every legal value of a field, and nothing else.

What a field may hold is drawn from its type; what a type doesn't tell stands here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from edgefleet.protocol import bundle as b
from edgefleet.protocol import event as e
from edgefleet.protocol import policy as p
from edgefleet.protocol import report as r
from edgefleet.protocol.names import DEVICE_PATTERN, MAX_MODEL_CHARACTERS, MODEL_PATTERN
from edgefleet.protocol.pointer import SCHEMES, Cohort, Next, Pointer
from edgefleet.protocol.release import Release, ReleaseModel
from edgefleet.protocol.sketch import ClassSketch
from edgefleet.protocol.target import HardwareTarget
from tests.protocol.by_type import SAFE, moments, of, several, text

if TYPE_CHECKING:
    from msgspec import Struct

devices = st.from_regex(DEVICE_PATTERN)
models = st.from_regex(MODEL_PATTERN).filter(lambda name: len(name) <= MAX_MODEL_CHARACTERS)
features = st.lists(
    st.from_regex(r"\A[a-z0-9][a-z0-9.\-]{0,20}\Z"), min_size=1, max_size=3, unique=True
).map(tuple)
sources = st.builds(
    "{}://{}/{}".format,
    st.sampled_from(sorted(SCHEMES - {"file"})),
    st.from_regex(r"\A[a-z0-9]{1,20}(:[1-9][0-9]{0,3})?\Z"),
    st.from_regex(r"\A[A-Za-z0-9._~%/-]{0,20}\Z"),
) | st.from_regex(r"\A[A-Za-z0-9._~%-]{1,20}\Z").map("file:///{}".format)

# A pointer has 1 KB for all that it holds.
salts = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=32)
pointers = of(
    Pointer,
    epoch=st.integers(0, 10**6),
    number=st.integers(1, 10**9),
    sources=several(sources, 4),
    next=st.none() | of(Next, cohort=of(Cohort, salt=salts)),
    signatures=st.just(()),
)

release_models = of(ReleaseModel)
patterns = st.from_regex(r"\A[A-Za-z0-9._\-*]{1,9}/[A-Za-z0-9*]{1,9}\Z")
policies = of(
    p.TelemetryPolicy,
    inputs=several(patterns),
    redact=st.dictionaries(patterns, several(text, 3), max_size=2),
)
releases = of(
    Release,
    models=st.lists(release_models, max_size=4, unique_by=lambda m: (m.name, m.role)).map(tuple),
    telemetry=policies,
)

reports = of(r.Report)

payloads: dict[str, st.SearchStrategy[e.EventData]] = {
    name: of(kind) for name, kind in e.KINDS.items()
}
events = st.builds(
    e.new_event, st.one_of(*payloads.values()), time=moments, subject=st.none() | text
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
details = of(
    b.Details,
    self_test=several(st.builds(b.Vector, inputs=st.tuples(tensors), outputs=st.tuples(tensors))),
)

targets = of(HardwareTarget, name=st.from_regex(r"\A[a-z0-9]([a-z0-9.\-]{0,10}[a-z0-9])?\Z"))
class_sketches = of(ClassSketch, counts=st.dictionaries(text, st.integers(0, SAFE), max_size=5))

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
