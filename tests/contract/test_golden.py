"""The golden files are the promise of compatibility: what was ever written stays readable, and
what we write does not change its bytes, because documents are addressed by their digest.

If a test here fails, do not regenerate: find out what changed. See `make_golden.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from edgefleet.errors import UnknownFeatureError
from edgefleet.protocol import bundle as b
from edgefleet.protocol import orders
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.documents import decode, encode
from edgefleet.protocol.event import Event, read_event
from edgefleet.protocol.layout import BundleLayout
from edgefleet.protocol.segment import read_segment
from edgefleet.protocol.sketch import read_sketch
from edgefleet.protocol.steps import STEP_NAMES, read_steps, step_name
from tests.contract import future, samples

GOLDEN = Path(__file__).parent / "golden"
DIGESTS: dict[str, str] = json.loads((GOLDEN / "digests.json").read_bytes())

READERS: dict[str, Callable[[bytes], Any]] = {
    **future.READERS,
    "release-budget.json": future.READERS["release.json"],
    "release-memory.json": future.READERS["release.json"],
    "release-shadow.json": future.READERS["release.json"],
    "report-shadow.json": future.READERS["report.json"],
    "details-steps.json": future.READERS["details.json"],
    "release-trials.json": future.READERS["release.json"],
    "report-variants.json": future.READERS["report.json"],
    "release-empty.json": future.READERS["release.json"],
    "release-samples.json": future.READERS["release.json"],
    "release-policy.json": future.READERS["release.json"],
    "report-rolled-back.json": future.READERS["report.json"],
    "report-reverted.json": future.READERS["report.json"],
    "report-waiting.json": future.READERS["report.json"],
    "order-rollback.json": partial(decode, orders.RollbackOrder),
    "order-rollback-answer.json": partial(decode, orders.RollbackAnswer),
    "order-capture.json": partial(decode, orders.CaptureOrder),
    "order-capture-answer.json": partial(decode, orders.CaptureAnswer),
    "order-trial.json": partial(decode, orders.TrialOrder),
    "order-trial-answer.json": partial(decode, orders.TrialAnswer),
    **{f"event-{kind}.json": read_event for kind in samples.EVENTS},
    "event-prediction-traced.json": read_event,
    "event-alarm-ended.json": read_event,
    "event-window-predictions.json": read_event,
}


def golden(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()


def files(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("name", DIGESTS)
def test_golden_file_has_the_digest_that_was_promised(name: str) -> None:
    assert digest_of(golden(name)) == DIGESTS[name]


def test_every_golden_file_is_listed() -> None:
    listed = {*DIGESTS, "digests.json", "segment.ndjson.zst"}
    assert {name for name in files(GOLDEN) if "/blobs/" not in name} == listed


@pytest.mark.parametrize("name", READERS)
def test_decoding_and_encoding_gives_the_same_bytes(name: str) -> None:
    assert encode(READERS[name](golden(name))) == golden(name)


@pytest.mark.parametrize("name", samples.DOCUMENTS)
def test_today_s_writer_writes_the_golden_bytes(name: str) -> None:
    assert encode(samples.DOCUMENTS[name]) == golden(name)


@pytest.mark.parametrize("name", [n for n in samples.DOCUMENTS if n != "event-sketch.json"])
def test_golden_bytes_mean_what_was_written(name: str) -> None:
    document = samples.DOCUMENTS[name]
    if name == "details.json":  # sketches are plain data once they are read
        plain = json.loads(msgspec.json.encode(samples.DETAILS.sketches))
        document = msgspec.structs.replace(samples.DETAILS, sketches=plain)
    assert READERS[name](golden(name)) == document


def test_golden_sketches_come_out_of_an_event_as_they_went_in() -> None:
    window = read_event(golden("event-sketch.json")).payload()
    features: dict[str, Any] = window.features  # type: ignore[union-attr]
    read = {name: read_sketch(plain) for name, plain in features.items()}
    assert read == {"brightness": samples.NUMBERS, "top": samples.CLASSES}


def test_golden_steps_mean_what_was_written() -> None:
    details = b.read_details(golden("details-steps.json"))
    assert read_steps(details.preprocessing, what="preprocessing") == samples.BEFORE
    assert read_steps(details.postprocessing, what="postprocessing") == samples.AFTER


def test_golden_steps_are_all_that_there_are() -> None:
    written = {step_name(step) for step in (*samples.BEFORE, *samples.AFTER)}
    assert written == set(STEP_NAMES)


def test_release_keeps_its_digest() -> None:
    assert samples.RELEASE.digest == DIGESTS["release.json"]


def test_release_that_runs_nothing_keeps_its_digest() -> None:
    assert samples.EMPTY.digest == DIGESTS["release-empty.json"]


# ---------------------------------------------------------------------------------------- bundle


def test_golden_bundle_reads_whole() -> None:
    layout = BundleLayout(GOLDEN / "bundle")
    layout.verify()
    assert layout.digest == DIGESTS["index.json"]
    assert [variant.name for variant in layout.variants] == ["fp32", "int8"]


def test_golden_bundle_lays_out_the_files_that_went_in(tmp_path: Path) -> None:
    layout = BundleLayout(GOLDEN / "bundle")
    assert layout.materialize("fp32", tmp_path / "fp32") == tmp_path / "fp32" / "model.onnx"
    assert files(tmp_path / "fp32") == samples.FILES


def test_today_s_writer_writes_the_golden_bundle(tmp_path: Path) -> None:
    written = samples.write_bundle(tmp_path / "bundle")
    assert files(written.root) == files(GOLDEN / "bundle")


@pytest.mark.parametrize("name", ["index.json", "manifest.json", "details.json"])
def test_bundle_holds_the_golden_document(name: str) -> None:
    assert (GOLDEN / "bundle/blobs/sha256" / DIGESTS[name].removeprefix("sha256:")).exists()


# --------------------------------------------------------------------------------------- segment


def test_golden_segment_holds_the_golden_lines() -> None:
    with (GOLDEN / "segment.ndjson.zst").open("rb") as stream:
        lines = zstandard.ZstdDecompressor().stream_reader(stream).readall()
    assert lines.splitlines() == golden("segment.ndjson").splitlines()


def test_golden_segment_reads_as_the_events_that_went_in() -> None:
    with (GOLDEN / "segment.ndjson.zst").open("rb") as stream:
        events: list[Event] = list(read_segment(stream))
    assert events == list(samples.EVENTS.values())


# ---------------------------------------------------------------------------------------- future


@pytest.mark.parametrize("name", future.READERS)
def test_document_from_the_future_means_what_it_means_today(name: str) -> None:
    newer, today = (
        msgspec.to_builtins(future.READERS[name](golden(each))) for each in (f"future-{name}", name)
    )
    if name in {"index.json", "manifest.json"}:
        assert newer.pop("annotations") == {"org.example.hologram": "yes"}
    else:
        assert newer.pop("version") == future.VERSION > today.pop("version")
    assert newer == today


@pytest.mark.parametrize("name", future.READERS)
def test_document_that_requires_unknown_features_is_refused_by_their_names(name: str) -> None:
    with pytest.raises(UnknownFeatureError, match="delta-layers, holograms") as refusal:
        future.READERS[name](golden(f"future-requires-{name}"))
    assert refusal.value.features == future.FEATURES


def test_event_from_the_future_is_read_even_where_its_data_is_refused() -> None:
    event = read_event(golden("future-requires-event-alarm.json"))
    assert (event.kind, event.device) == ("alarm", "cam-07")
    assert event.plain()["data"]["requires"] == list(future.FEATURES)


def test_variant_that_requires_unknown_features_leaves_the_others_readable() -> None:
    index = json.loads(golden("index.json"))
    index["manifests"][0]["annotations"][b.REQUIRES_KEY] = "holograms"
    first, second = b.variants_of(b.read_index(json.dumps(index).encode()))
    assert (first.requires, second.requires) == (("holograms",), ())
