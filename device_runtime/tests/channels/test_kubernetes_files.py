"""Segments, samples and kept events in a device's own repository of an OCI registry."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from device_runtime.tests.channels.api_server import FakeApiServer
from edgefleet.errors import (
    AccessDeniedError,
    ConfigurationError,
    ThrottledError,
    UnavailableError,
)
from edgefleet.protocol.event import HealthEvent, new_event
from edgefleet.protocol.segment import SegmentName
from edgefleet.protocol.tags import content_of, path_of, tag_of
from edgefleet.testing.cloud.oci import Kind, OciRegistry, throttled
from edgefleet.testing.cloud.oci_tokens import PULL, PUSH, User
from edgefleet.testing.cloud.rules import Rule
from edgefleet_runtime.channels.kubernetes import channel as kubernetes_channel
from edgefleet_runtime.channels.kubernetes.channel import KubernetesChannel
from edgefleet_runtime.channels.kubernetes.segments import OciUploads
from edgefleet_runtime.channels.kubernetes.settings import Place, Settings

NODE = "edge-7.plant-a"
SEGMENT = SegmentName(
    day=date(2026, 11, 21), device=NODE, model="digits", id="00000000000000ff-0123abcd-7"
).below_device
PASSWORD = "a password"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[OciRegistry]:
    users = {"device": User(PASSWORD, PUSH), "reader": User(PASSWORD, PULL)}
    with OciRegistry(tmp_path / "registry", users=users) as running:
        yield running


@pytest.fixture
def segment(tmp_path: Path) -> Path:
    path = tmp_path / "segment"
    path.write_bytes(b"compressed events")
    return path


def credentials(registry: OciRegistry, folder: Path, user: str = "device") -> Path:
    path = folder / f"{user}.json"
    auth = base64.b64encode(f"{user}:{PASSWORD}".encode()).decode()
    path.write_text(json.dumps({"auths": {registry.host: {"auth": auth}}}), encoding="ascii")
    return path


def uploads(registry: OciRegistry, folder: Path, user: str = "device") -> OciUploads:
    address = f"oci://{registry.host}/fleet"
    return OciUploads(address, NODE, credentials(registry, folder, user))


def stored(registry: OciRegistry, name: str) -> bytes:
    """What a device's file of that name leads to."""
    repository = f"fleet/devices/{NODE}"
    _, _, manifest = registry.content.manifest(repository, tag_of(name))
    digest, size = content_of(manifest)
    data = registry.content.blob(repository, digest).read_bytes()
    assert len(data) == size
    return data


# ------------------------------------------------------------------------------------ the upload


@pytest.mark.parametrize("device", ["Edge-7", "edge_7"])
def test_a_device_that_is_named_like_no_node_is_told_at_the_start(device: str) -> None:
    with pytest.raises(ConfigurationError, match="Kubernetes names nodes"):
        OciUploads("oci://registry.test/fleet", device, None)


def test_a_segment_lies_in_the_devices_own_repository(
    registry: OciRegistry, tmp_path: Path, segment: Path
) -> None:
    uploads(registry, tmp_path).put(SEGMENT, segment)
    assert stored(registry, SEGMENT) == b"compressed events"
    assert list(registry.content.names()) == [f"fleet/devices/{NODE}"]


def test_the_same_again_sends_no_content(
    registry: OciRegistry, tmp_path: Path, segment: Path
) -> None:
    device = uploads(registry, tmp_path)
    device.put(SEGMENT, segment)
    assert len(registry.seen("EndUpload", "201")) == 2  # and the empty configuration
    device.put(SEGMENT, segment)
    assert len(registry.seen("EndUpload", "201")) == 2


def test_a_registry_that_redirects_downloads_takes_one_file_after_another(
    tmp_path: Path, segment: Path
) -> None:
    users = {"device": User(PASSWORD, PUSH)}
    with OciRegistry(tmp_path / "other", Kind(redirects=True), users=users) as moved:
        device = uploads(moved, tmp_path)
        device.put(SEGMENT, segment)
        device.put(SEGMENT, segment)
        assert len(moved.seen("EndUpload", "201")) == 2
        assert moved.seen("StoreGet", "200") == []
        assert stored(moved, SEGMENT) == b"compressed events"


def test_a_token_that_ends_in_between_is_renewed(
    registry: OciRegistry, tmp_path: Path, segment: Path
) -> None:
    device = uploads(registry, tmp_path)
    device.put(SEGMENT, segment)
    assert registry.access is not None
    registry.access.expire()
    segment.write_bytes(b"more events")
    device.put(SEGMENT.replace("-7.", "-8."), segment)
    assert stored(registry, SEGMENT.replace("-7.", "-8.")) == b"more events"


def test_a_credential_that_may_not_push_is_told_what_to_let(
    registry: OciRegistry, tmp_path: Path, segment: Path
) -> None:
    with pytest.raises(AccessDeniedError) as caught:
        uploads(registry, tmp_path, "reader").put(SEGMENT, segment)
    assert "push" in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_a_registry_that_breaks_off_means_later_and_leaves_no_tag(
    registry: OciRegistry, tmp_path: Path, segment: Path
) -> None:
    segment.write_bytes(b"x" * 300_000)
    registry.kind.drop_every = 100_000
    device = uploads(registry, tmp_path)
    with pytest.raises(UnavailableError):
        device.put(SEGMENT, segment)
    registry.kind.drop_every = None
    device.put(SEGMENT, segment)
    assert len(stored(registry, SEGMENT)) == 300_000


def test_a_busy_registry_says_when_to_come_back(
    registry: OciRegistry, tmp_path: Path, segment: Path
) -> None:
    registry.rules.add(Rule("oci.PutManifest", fault=throttled(7)))
    with pytest.raises(ThrottledError) as caught:
        uploads(registry, tmp_path).put(SEGMENT, segment)
    assert caught.value.retry_after_s == 7


def test_a_registry_that_is_away_means_later(
    registry: OciRegistry, tmp_path: Path, segment: Path
) -> None:
    device = uploads(registry, tmp_path)
    registry.stop()
    with pytest.raises(UnavailableError):
        device.put(SEGMENT, segment)
    registry.start()


# ------------------------------------------------------------------------------- through a channel


@pytest.fixture
def channel(api: FakeApiServer, registry: OciRegistry, tmp_path: Path) -> KubernetesChannel:
    settings = Settings(
        reports=Place("edgefleet-reports", "edgefleet"),
        pointer=tmp_path / "pointer.json",
        token=api.folder,
        segments=f"oci://{registry.host}/fleet",
        segments_credentials=credentials(registry, tmp_path),
    )
    return KubernetesChannel(NODE, settings, api.client())


def hot(registry: OciRegistry) -> list[str]:
    """Messages of the events that are kept."""
    found = []
    for name in registry.content.repository(f"fleet/devices/{NODE}").tags:
        path = path_of(name)
        if path is not None and path.startswith("hot/"):
            found += [
                one["data"]["message"] for one in json.loads(stored(registry, path))["events"]
            ]
    return found


def test_hot_events_without_an_address_are_kept_beside_the_segments(
    channel: KubernetesChannel, registry: OciRegistry
) -> None:
    events = [new_event(HealthEvent(what="hot", message=f"m{n}")) for n in range(3)]
    channel.send_hot(events)
    assert hot(registry) == ["m0", "m1", "m2"]


def away(api: FakeApiServer, registry: OciRegistry, tmp_path: Path) -> Settings:
    """Settings of a device whose events nobody takes now."""
    return Settings(
        reports=Place("edgefleet-reports", "edgefleet"),
        pointer=tmp_path / "pointer.json",
        token=api.folder,
        events="http://127.0.0.1:9/events",  # nobody listens to what is discarded
        segments=f"oci://{registry.host}/fleet",
        segments_credentials=credentials(registry, tmp_path),
    )


def test_events_whose_address_is_away_are_kept_once_and_sent_again(
    api: FakeApiServer, registry: OciRegistry, tmp_path: Path
) -> None:
    channel = KubernetesChannel(NODE, away(api, registry, tmp_path), api.client())
    first, second = (new_event(HealthEvent(what="hot", message=text)) for text in ("m0", "m1"))
    for events in ([first], [first, second]):
        with pytest.raises(UnavailableError):
            channel.send_hot(events)
    assert sorted(hot(registry)) == ["m0", "m1"]


def test_events_that_newer_ones_push_aside_are_kept_once_too(
    api: FakeApiServer, registry: OciRegistry, tmp_path: Path
) -> None:
    channel = KubernetesChannel(NODE, away(api, registry, tmp_path), api.client())
    events = [new_event(HealthEvent(what="hot", message=f"m{n}")) for n in range(4)]
    for start in (0, 1, 2, 1, 0):
        with pytest.raises(UnavailableError):
            channel.send_hot(events[start : start + 2])
    assert sorted(hot(registry)) == ["m0", "m1", "m2", "m3"]


def test_what_is_remembered_as_kept_is_bounded(
    api: FakeApiServer, registry: OciRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_channel, "MAX_REMEMBERED", 3)
    channel = KubernetesChannel(NODE, away(api, registry, tmp_path), api.client())
    for number in range(8):  # dropped for want of room, each of them
        with pytest.raises(UnavailableError):
            channel.send_hot([new_event(HealthEvent(what="hot", message=f"m{number}"))])
    assert len(channel._kept) <= 4


def test_without_a_folder_for_it_events_wait_and_the_cure_is_told(
    channel: KubernetesChannel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(UnavailableError, match="emptyDir"):
        channel.send_hot([new_event(HealthEvent(what="hot", message="m"))])


def test_a_segment_goes_through_the_channel(
    channel: KubernetesChannel, registry: OciRegistry, segment: Path
) -> None:
    channel.upload(SEGMENT, segment)
    assert stored(registry, SEGMENT) == b"compressed events"


def test_segments_that_are_refused_stand_in_the_access(
    channel: KubernetesChannel, registry: OciRegistry, segment: Path
) -> None:
    assert registry.access is not None
    registry.access.users["device"] = User(PASSWORD, PULL)
    with pytest.raises(AccessDeniedError):
        channel.upload(SEGMENT, segment)
    assert "segments" in (channel.access().detail or "")
