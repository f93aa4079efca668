"""The rules that every wire document keeps."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.errors import DocumentError, LimitExceededError, UnknownFeatureError
from edgefleet.protocol.bundle import Details, Interface, Tolerance
from edgefleet.protocol.documents import VERSION, Document, decode, encode, to_builtins
from edgefleet.protocol.event import Metric
from edgefleet.protocol.pointer import Pointer
from edgefleet.protocol.policy import TelemetryPolicy
from edgefleet.protocol.release import Release, RuntimeSettings, read_release
from edgefleet.protocol.report import Report, SelfTest
from edgefleet.protocol.target import HardwareTarget
from tests.contract import samples
from tests.protocol import by_type, strategies

GOLDEN = Path(samples.__file__).parent / "golden"
KINDS: tuple[type[Document], ...] = (Release, Pointer, Report, Details, HardwareTarget, Metric)


def pairs_of(data: bytes) -> list[list[tuple[str, Any]]]:
    """Every object of a JSON text, as its pairs in their order."""
    objects: list[list[tuple[str, Any]]] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        objects.append(pairs)
        return dict(pairs)

    json.loads(data, object_pairs_hook=note)
    return objects


# ------------------------------------------------------------------------------------- round trip


@given(strategies.any_document)
def test_what_is_written_reads_back_the_same(document: Document) -> None:
    assert decode(type(document), encode(document)) == document


@given(strategies.any_document)
def test_writing_what_was_read_gives_the_same_bytes(document: Document) -> None:
    data = encode(document)
    assert encode(decode(type(document), data)) == data


# --------------------------------------------------------------------------------- canonical form


@given(strategies.any_document)
def test_keys_are_sorted_at_every_depth(document: Document) -> None:
    for pairs in pairs_of(encode(document)):
        keys = [key for key, _ in pairs]
        assert keys == sorted(keys, key=str.encode)


@given(strategies.any_document)
def test_nothing_is_written_between_tokens(document: Document) -> None:
    data = encode(document)
    assert data == msgspec.json.format(data, indent=-1)


@given(strategies.any_document)
def test_version_and_requires_are_always_written(document: Document) -> None:
    plain = json.loads(encode(document))
    assert (plain["version"], plain["requires"]) == (VERSION, [])


def test_document_of_defaults_is_its_header() -> None:
    assert encode(Release()) == b'{"requires":[],"version":1}'


def test_defaults_are_left_out_whoever_computed_them() -> None:
    release = Release(
        models=tuple(model for model in samples.RELEASE.models if model.name == "none"),
        settings=RuntimeSettings(strict=bool(0), keep_previous=bool(1)),
        telemetry=TelemetryPolicy(
            prediction_fraction=float("1"),
            output_values=int("16"),
            segment_max_bytes=int("4194304"),
            segment_max_age_s=float("60"),
            heartbeat_s=float("86400"),
        ),
    )
    assert encode(release) == encode(Release())


def test_defaults_are_left_out_where_a_foreign_writer_wrote_them() -> None:
    release = read_release(
        b'{"version":1,"requires":[],"models":[],"settings":{"strict":false},'
        b'"telemetry":{"heartbeat_s":86400.0,"segment_max_age_s":60.0}}'
    )
    assert release.digest == Release().digest


def test_defaults_are_left_out_inside_a_tuple() -> None:
    data = encode(msgspec.structs.replace(samples.REPORT.models[0], failures=int("0")))
    assert b"failures" not in data


def test_whole_number_in_a_field_of_fractions_has_one_form() -> None:
    assert encode(TelemetryPolicy(heartbeat_s=60)) == encode(TelemetryPolicy(heartbeat_s=60.0))


def test_false_is_not_taken_for_a_default_of_zero() -> None:
    # 0 == False in Python; a default of another type is no default
    assert encode(SelfTest(passed=False, cases=0)) == b'{"cases":0,"passed":false}'


def test_default_of_a_struct_goes_where_an_equal_one_is_given() -> None:
    details = Details(
        variant="a",
        entry="a",
        interface=Interface(inputs=(), outputs=()),
        tolerance=Tolerance(absolute=float("0.001"), relative=float("0.001")),
    )
    assert b"tolerance" not in encode(details)


# ----------------------------------------------------------------------- what a writer won't write


UNREADABLE: dict[str, msgspec.Struct] = {
    "number below its range": msgspec.structs.replace(samples.POINTER, number=0),
    "negative epoch": msgspec.structs.replace(samples.POINTER, epoch=-1),
    "fleet that is no UUID": msgspec.structs.replace(samples.POINTER, fleet="plant-a"),
    "short digest": msgspec.structs.replace(samples.POINTER, current="sha256:abc"),
    "time without a zone": msgspec.structs.replace(
        samples.POINTER, issued=samples.NOON.replace(tzinfo=None)
    ),
    "feature that is no name": msgspec.structs.replace(samples.RELEASE, requires=("No Name",)),
    "version 0": msgspec.structs.replace(samples.RELEASE, version=0),
    "unknown choice": msgspec.structs.replace(samples.TARGET, arch="mips"),
    "NaN": TelemetryPolicy(heartbeat_s=math.nan),
    "fraction above 1": TelemetryPolicy(prediction_fraction=1.5),
    "NaN in a map": msgspec.structs.replace(samples.DETAILS, metrics={"accuracy": math.nan}),
    "what JSON has no form for": msgspec.structs.replace(
        samples.DETAILS, metrics={"accuracy": object()}
    ),
    "what UTF-8 has no form for": msgspec.structs.replace(
        samples.DETAILS, lineage={"run": "\ud800"}
    ),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_writer_refuses_what_readers_refuse(what: str) -> None:
    with pytest.raises(DocumentError, match="to be written"):
        encode(UNREADABLE[what])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_measured_number_that_is_not_finite_is_null(value: float) -> None:
    assert decode(Metric, encode(Metric(name="loss", value=value))).value is None


def test_document_over_its_limit_is_not_written() -> None:
    with pytest.raises(LimitExceededError, match="takes 27 bytes, 26 are allowed"):
        encode(Release(), max_bytes=26)


# ------------------------------------------------------------------------- what a reader refuses


@given(st.binary(max_size=40), st.sampled_from(KINDS))
def test_noise_is_a_document_error(data: bytes, kind: type[Document]) -> None:
    with pytest.raises(DocumentError):
        decode(kind, data)


@given(st.data(), st.sampled_from(sorted(samples.DOCUMENTS)))
def test_damaged_document_reads_or_is_a_document_error(data: st.DataObject, name: str) -> None:
    damaged = bytearray((GOLDEN / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    kind = type(samples.DOCUMENTS[name])
    if not issubclass(kind, Document):
        kind = Metric  # an event's data is read apart, here its envelope is noise
    with contextlib.suppress(DocumentError):
        encode(decode(kind, bytes(damaged)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b'"\\ud800"',
        b"\xef\xbb\xbf{}",
        b'{"version":1}',
        b'{"requires":[]}',
        b'{"version":"1","requires":[]}',
        b'{"version":1.0,"requires":[]}',
        b'{"version":0,"requires":[]}',
        b'{"version":1,"requires":[""]}',
        b'{"version":1,"requires":[]} {}',
        b'{"version":1,"requires":[],"models":null}',
        b'{"version":1,"requires":[],"models":[{"name":"a"}]}',
        b'{"version":1,"requires":[],"x":' + b"[" * 100_000,
    ],
    ids=lambda data: data[:40],
)
def test_malformed_document_is_refused(data: bytes) -> None:
    with pytest.raises(DocumentError, match="malformed release"):
        decode(Release, data)


def test_limit_counts_bytes_before_anything_is_parsed() -> None:
    with pytest.raises(LimitExceededError, match="of 30 bytes is over the limit of 29"):
        decode(Release, b"[" * 30, max_bytes=29)


def test_limit_counts_bytes_of_a_string_not_characters() -> None:
    text = '{"version":1,"requires":[],"é":0}'
    decode(Release, text, max_bytes=34)
    with pytest.raises(LimitExceededError):
        decode(Release, text, max_bytes=33)


def test_reader_takes_bytes_a_view_of_them_or_text() -> None:
    data = encode(samples.RELEASE)
    assert decode(Release, memoryview(data)) == decode(Release, data.decode()) == samples.RELEASE


def test_refusal_by_a_document_s_own_rule_keeps_its_cure_at_the_end() -> None:
    plain = to_builtins(samples.POINTER) | {"sources": ["ftp://host/"]}
    with pytest.raises(DocumentError, match="malformed pointer: not a source") as refusal:
        decode(Pointer, json.dumps(plain))
    cure = "cure: start it with one of az, file, gs, http, https, oci, s3"
    assert str(refusal.value).endswith(cure)


# ------------------------------------------------------------------------------------ the future


unknown_fields = st.dictionaries(by_type.text.map("x-{}".format), by_type.plain, max_size=3)


@given(strategies.any_document, st.integers(1, 10**9), unknown_fields)
def test_unknown_fields_and_versions_change_nothing(
    document: Document, version: int, unknown: dict[str, Any]
) -> None:
    plain = {**unknown, **json.loads(encode(document)), "version": version}
    seen = decode(type(document), json.dumps(plain))
    assert seen == msgspec.structs.replace(document, version=version)


@given(strategies.any_document, strategies.features)
def test_document_with_unknown_requirements_is_refused(
    document: Document, features: tuple[str, ...]
) -> None:
    needy = encode(msgspec.structs.replace(document, requires=features))
    with pytest.raises(UnknownFeatureError) as refusal:
        decode(type(document), needy)
    assert refusal.value.features == features
    assert "upgrade the receiving side" in str(refusal.value)


@given(strategies.any_document, strategies.features)
def test_receiver_that_knows_the_features_reads_the_document(
    document: Document, features: tuple[str, ...]
) -> None:
    needy = msgspec.structs.replace(document, requires=features)
    assert decode(type(document), encode(needy), known=features) == needy


def test_requirements_are_checked_before_fields_that_may_have_changed_their_type() -> None:
    with pytest.raises(UnknownFeatureError):
        decode(Release, b'{"version":9,"requires":["new-models"],"models":"elsewhere"}')


def test_only_what_is_unknown_is_named() -> None:
    with pytest.raises(UnknownFeatureError) as refusal:
        decode(Release, b'{"version":1,"requires":["a","b","c"]}', known={"b"})
    assert refusal.value.features == ("a", "c")
