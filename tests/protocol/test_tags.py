"""How a device's files are named in an OCI registry."""

from __future__ import annotations

import json
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.errors import DocumentError, InvalidInputError
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.segment import SegmentName
from edgefleet.protocol.tags import (
    EMPTY_DATA,
    EMPTY_DIGEST,
    content_of,
    device_repository,
    manifest_of,
    path_of,
    tag_of,
)

SEGMENT = SegmentName(
    day=date(2026, 11, 21), device="edge-7", model="digits", id="00000000000000ff-0123abcd-7"
).below_device


@pytest.mark.parametrize(
    "path",
    [
        SEGMENT,
        SEGMENT.replace("digits", "_none"),
        SEGMENT.replace("digits", "a.b__c-d"),
        SEGMENT.replace("digits", "m" * 63),
        "hot/2026-11-21/00000000000000ff-0123abcd.json",
        "samples/sha256/" + "0f" * 32,
    ],
)
def test_a_tag_says_what_a_path_says(path: str) -> None:
    assert path_of(tag_of(path)) == path


@pytest.mark.parametrize("path", ["", "report.json", "hot/today.json", "samples/sha256/0f"])
def test_other_files_have_no_tag(path: str) -> None:
    with pytest.raises(InvalidInputError):
        tag_of(path)


@given(st.text(max_size=130) | st.from_regex(r"s\.\d{4}-\d{2}-\d{2}\.[0-9a-z-]+\..+"))
def test_whatever_a_registry_lists_is_a_path_of_ours_or_none(tag: str) -> None:
    path = path_of(tag)
    assert path is None or len(tag) > 128 or tag_of(path) == tag


@given(st.binary(max_size=200))
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(DocumentError):
        content_of(data)


def test_a_manifest_leads_to_its_content() -> None:
    digest = digest_of(b"content")
    assert content_of(manifest_of(SEGMENT, digest, 7)) == (digest, 7)
    assert digest_of(EMPTY_DATA) == EMPTY_DIGEST


@pytest.mark.parametrize("device", ["Edge-7", "edge_7", "edge..7", "", "a/b"])
def test_a_name_that_no_node_has_makes_no_repository(device: str) -> None:
    with pytest.raises(InvalidInputError):
        device_repository("fleet", device)


def test_these_bytes_are_on_the_wire() -> None:
    assert tag_of(SEGMENT) == "s.2026-11-21.00000000000000ff-0123abcd-7.digits"
    assert device_repository("plant/telemetry", "edge-7.plant-a") == (
        "plant/telemetry/devices/edge-7.plant-a"
    )
    manifest = json.loads(manifest_of(SEGMENT, digest_of(b"x"), 1))
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert manifest["artifactType"] == "application/vnd.edgefleet.device.file.v1"
    assert manifest["config"] == {
        "mediaType": "application/vnd.oci.empty.v1+json",
        "digest": EMPTY_DIGEST,
        "size": 2,
    }
    (layer,) = manifest["layers"]
    assert layer["annotations"] == {"org.opencontainers.image.title": SEGMENT}
