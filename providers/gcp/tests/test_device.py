"""Devices and Google Cloud: sources, segments, events, and where their tokens come from."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgefleet.errors import (
    AccessDeniedError,
    AccessExpiredError,
    ConfigurationError,
    InvalidInputError,
    MissingExtraError,
    NotFoundError,
    ThrottledError,
    UnavailableError,
)
from edgefleet.testing.cloud.calls import Refused
from edgefleet.testing.cloud.rules import Rule
from edgefleet.testing.kit import samples
from edgefleet.testing.kit.samples import Content, noise
from edgefleet_gcp.blobs import GcsBlobStore
from edgefleet_gcp.clients import Clients
from edgefleet_gcp.cloud.calls import throttled
from edgefleet_gcp.mock import PROJECT, GcpMock
from edgefleet_gcp.permissions import DEVICE
from edgefleet_gcp.settings import GcpSettings
from edgefleet_gcp.telemetry import GcsTelemetry
from edgefleet_runtime.channels import pubsub
from edgefleet_runtime.channels.pubsub import PubSubSender
from edgefleet_runtime.store.addresses import sources_for
from edgefleet_runtime.store.blobs import BlobStore
from edgefleet_runtime.store.fetch import Fetcher, Want
from edgefleet_runtime.store.gcs import GcsSource
from edgefleet_runtime.store.gcs_upload import GcsUploads
from edgefleet_runtime.store.google import GoogleTokens

Tokens = Callable[[str], GoogleTokens]
DATA = noise(600_000, 3)


@pytest.fixture
def digest(clients: Clients, settings: GcpSettings) -> str:
    """Of a blob that is in the registry."""
    return GcsBlobStore(clients, settings).put_bytes(DATA, "").digest


def _read(address: str, digest: str, tokens: GoogleTokens, offset: int = 0) -> tuple[int, Content]:
    with GcsSource(address, tokens).open(digest, offset) as stream:
        data = b"".join(iter(lambda: stream.read(1 << 16), b""))
        return stream.start, Content.of(data)


# Sources


def test_a_device_reads_blobs_from_an_offset_and_nothing_else(
    settings: GcpSettings, digest: str, device_tokens: Tokens, clients: Clients
) -> None:
    tokens = device_tokens("cam-1")
    assert _read(settings.root, digest, tokens) == (0, Content.of(DATA))
    assert _read(settings.root, digest, tokens, 1000) == (1000, Content.of(DATA[1000:]))
    clients.bucket.blob(f"{settings.prefix}/other/blobs/sha256/{'0' * 64}").upload_from_string("x")
    with pytest.raises(AccessDeniedError, match=r"role with storage\.objects\.get"):
        _read(f"{settings.root}/other", f"sha256:{'0' * 64}", tokens)


def test_gs_is_a_source_that_every_device_knows(settings: GcpSettings) -> None:
    [source] = sources_for([settings.root])
    assert source.address == settings.root


@pytest.mark.parametrize("address", ["gs://", "gs:///models", "s3://bucket/models"])
def test_an_address_without_a_bucket_is_refused(address: str) -> None:
    with pytest.raises(InvalidInputError, match="gs://BUCKET/PREFIX"):
        GcsSource(address)


def test_a_blob_that_is_not_there_is_told(settings: GcpSettings, device_tokens: Tokens) -> None:
    with pytest.raises(NotFoundError):
        _read(settings.root, f"sha256:{'0' * 64}", device_tokens("cam-1"))


def test_a_download_goes_on_after_lost_connections_and_an_ended_token(
    cloud: GcpMock,
    settings: GcpSettings,
    digest: str,
    device_tokens: Tokens,
    tmp_path: Path,
) -> None:
    cloud.rules.add(Rule("storage.XmlGetObject", cut_answer_at=200_000))
    cloud.rules.add(Rule("storage.XmlGetObject", skip=1, cut_answer_at=100_000))
    store = BlobStore(tmp_path / "store", 1 << 30)
    wanted = Want(digest=digest, name="weights", max_bytes=len(DATA), exact=True)
    source = GcsSource(settings.root, device_tokens("cam-1"))
    before = len(list(cloud.seen()))
    # Each pause is after a lost connection, and no token is good any more then.
    fetcher = Fetcher(store, pause=lambda _: cloud.stage.identities.end_tokens())
    fetcher.fetch([wanted], [source])
    asked = [line for line in list(cloud.seen())[before:] if "XmlGetObject" in line]
    answers = [line.rsplit(" ", 1)[1] for line in asked]
    assert [one for one in answers if one != "cut"] == ["200", "401", "206", "401", "206"]
    assert Content.of(store.path_of(digest).read_bytes()) == Content.of(DATA)


def test_a_token_that_is_taken_no_more_is_told_and_not_shown(
    cloud: GcpMock, settings: GcpSettings, digest: str, device_tokens: Tokens
) -> None:
    tokens = device_tokens("cam-1")
    _read(settings.root, digest, tokens)
    ended = Refused(401, "authError", "Invalid Credentials")
    cloud.rules.add(Rule("storage.XmlGetObject", times=2, fault=ended))
    with pytest.raises(AccessExpiredError, match="GOOGLE_APPLICATION_CREDENTIALS") as raised:
        _read(settings.root, digest, tokens)
    assert "ya29" not in str(raised.value)
    assert _read(settings.root, digest, tokens) == (0, Content.of(DATA))


def test_a_busy_store_tells_when_to_come_back(
    cloud: GcpMock, settings: GcpSettings, digest: str, device_tokens: Tokens
) -> None:
    cloud.rules.add(Rule("storage.XmlGetObject", fault=throttled(7)))
    with pytest.raises(ThrottledError) as raised:
        _read(settings.root, digest, device_tokens("cam-1"))
    assert raised.value.retry_after_s == 7


# Where tokens come from

_WHO = """
import sys
from edgefleet_runtime.store.gcs import GcsSource
with GcsSource(sys.argv[1]).open(sys.argv[2], 0) as stream:
    print(len(b"".join(iter(lambda: stream.read(65536), b""))))
"""


def _as_a_device(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _WHO, *arguments],
        env={"PATH": "/usr/bin:/bin", **environment},
        timeout=240,
        check=False,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() or done.stderr


def _reader(cloud: GcpMock, settings: GcpSettings, name: str) -> None:
    cloud.add_account(name, {"bucket": DEVICE["read"]}, folder=f"{settings.prefix}/blobs")


def test_a_machine_with_a_service_account_asks_the_metadata_server(
    cloud: GcpMock, settings: GcpSettings, digest: str
) -> None:
    _reader(cloud, settings, "machine")
    environment = cloud.environment
    del environment["GOOGLE_APPLICATION_CREDENTIALS"]
    cloud.stage.tokens.machine = "machine"
    assert _as_a_device(environment, settings.root, digest) == str(len(DATA))
    cloud.stage.tokens.machine = None
    assert "AccessExpiredError" in _as_a_device(environment, settings.root, digest)


def test_a_federation_file_exchanges_somebody_elses_token(
    cloud: GcpMock, settings: GcpSettings, digest: str, tmp_path: Path
) -> None:
    _reader(cloud, settings, "federated")
    subject = tmp_path / "projected-token"
    subject.write_text("a token of the cluster")
    file = cloud.stage.federated_file("federated", subject)
    environment = {**cloud.environment, "GOOGLE_APPLICATION_CREDENTIALS": str(file)}
    assert _as_a_device(environment, settings.root, digest) == str(len(DATA))
    subject.write_text("of another cluster")
    assert "AccessExpiredError" in _as_a_device(environment, settings.root, digest)


def test_a_device_that_nothing_is_known_of_is_told_what_to_give_it(
    cloud: GcpMock, settings: GcpSettings, digest: str
) -> None:
    environment = {
        "STORAGE_EMULATOR_HOST": cloud.environment["STORAGE_EMULATOR_HOST"],
        "NO_GCE_CHECK": "true",
    }
    told = _as_a_device(environment, settings.root, digest)
    assert "service account" in told


def test_without_google_auth_the_extra_is_named(
    settings: GcpSettings, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "google.auth", None)
    with pytest.raises(MissingExtraError, match=r"edgefleet-runtime\[gcs\]"):
        _read(settings.root, digest, GoogleTokens())


def test_a_token_never_leaves_this_machine_unencrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://gcs.plant:4443")
    with pytest.raises(ConfigurationError, match="unencrypted"):
        GcsSource("gs://bucket/models")


# Segments and events


def test_a_segment_is_created_once_and_lies_below_the_devices_folder(
    settings: GcpSettings, device_tokens: Tokens, clients: Clients, tmp_path: Path
) -> None:
    file = tmp_path / "segment"
    file.write_bytes(b"first")
    uploads = GcsUploads(settings.root, "cam-1", device_tokens("cam-1"))
    uploads.put("segments/a b.zst", file)
    file.write_bytes(b"other")
    uploads.put("segments/a b.zst", file)  # the same name has the same content
    blob = clients.bucket.blob(f"{settings.prefix}/devices/cam-1/segments/a b.zst")
    assert blob.download_as_bytes() == b"first"


def test_who_may_replace_replaces_no_segment_either(
    settings: GcpSettings, clients: Clients, tmp_path: Path
) -> None:
    file = tmp_path / "segment"
    uploads = GcsUploads(settings.root, "cam-1")  # as the operator
    for content in (b"first", b"other"):
        file.write_bytes(content)
        uploads.put("segments/a.zst", file)
    blob = clients.bucket.blob(f"{settings.prefix}/devices/cam-1/segments/a.zst")
    assert blob.download_as_bytes() == b"first"


@pytest.mark.parametrize("name", ["../victim/a", "/a", "a/../../victim/b"])
def test_a_name_that_leaves_the_folder_is_refused(
    settings: GcpSettings, tmp_path: Path, name: str
) -> None:
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(InvalidInputError):
        GcsUploads(settings.root, "cam-1").put(name, tmp_path / "a")


def test_another_devices_folder_is_closed(
    settings: GcpSettings, device_tokens: Tokens, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(AccessDeniedError, match=r"role with storage\.objects\.create"):
        GcsUploads(settings.root, "victim", device_tokens("thief")).put("a", tmp_path / "a")


@pytest.mark.parametrize("fault", ["cut", "busy"])
def test_a_segment_that_could_not_be_sent_is_sent_later(
    cloud: GcpMock, settings: GcpSettings, device_tokens: Tokens, tmp_path: Path, fault: str
) -> None:
    (tmp_path / "a").write_bytes(noise(100_000, 1))
    rule = Rule("storage.XmlPutObject", fault=throttled(1))
    if fault == "cut":
        rule = Rule("storage.XmlPutObject", cut_request_at=10)
    cloud.rules.add(rule)
    uploads = GcsUploads(settings.root, "cam-1", device_tokens("cam-1"))
    with pytest.raises(UnavailableError) as raised:
        uploads.put("a", tmp_path / "a")
    assert raised.value.retryable
    uploads.put("a", tmp_path / "a")


@pytest.mark.parametrize("address", ["pubsub://", "pubsub://p", "pubsub://p/a/b", "https://p/t"])
def test_an_address_without_a_topic_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="pubsub://PROJECT/TOPIC"):
        PubSubSender(address, "cam-1")


def test_a_device_publishes_to_its_fleets_topic_only(
    make_settings: Callable[..., GcpSettings], settings: GcpSettings, device_tokens: Tokens
) -> None:
    other = make_settings()
    sender = PubSubSender(f"pubsub://{PROJECT}/{other.topic}", "cam-1", device_tokens("cam-1"))
    with pytest.raises(AccessDeniedError, match=r"role with pubsub\.topics\.publish"):
        sender.send([samples.alarm(1)])


def test_more_events_than_a_request_takes_go_in_several(
    cloud: GcpMock,
    settings: GcpSettings,
    device_tokens: Tokens,
    make_clients: Callable[[GcpSettings], Clients],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pubsub, "MAX_MESSAGES", 2)
    before = len(list(cloud.seen()))
    sender = PubSubSender(f"pubsub://{PROJECT}/{settings.topic}", "cam-1", device_tokens("cam-1"))
    sent = [samples.alarm(second) for second in range(5)]
    sender.send(sent)
    assert sum("pubsub.Publish" in line for line in list(cloud.seen())[before:]) == 3
    trusting = settings.model_copy(update={"trust_senders": True})
    found = GcsTelemetry(make_clients(trusting), trusting).query(kind="alarm")
    assert {event.id for event in found} == {event.id for event in sent}


def test_an_event_that_is_refused_for_what_it_is_holds_up_no_other(
    cloud: GcpMock,
    settings: GcpSettings,
    device_tokens: Tokens,
    make_clients: Callable[[GcpSettings], Clients],
) -> None:
    cloud.rules.add(Rule("pubsub.Publish", fault=Refused(400, "", "Too large.")))
    cloud.rules.add(Rule("pubsub.Publish", fault=Refused(400, "", "Too large.")))
    sender = PubSubSender(f"pubsub://{PROJECT}/{settings.topic}", "cam-1", device_tokens("cam-1"))
    sender.send([samples.alarm(1), kept := samples.alarm(2)])
    trusting = settings.model_copy(update={"trust_senders": True})
    found = GcsTelemetry(make_clients(trusting), trusting).query(kind="alarm")
    assert [event.id for event in found] == [kept.id]


def test_a_redirect_shows_no_token_to_anybody_and_loses_nothing(
    cloud: GcpMock, settings: GcpSettings, device_tokens: Tokens
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.setblocking(False)
        place = {"Location": f"http://127.0.0.1:{elsewhere.getsockname()[1]}/"}
        cloud.rules.add(Rule("pubsub.Publish", fault=Refused(302, "", headers=place)))
        sender = PubSubSender(
            f"pubsub://{PROJECT}/{settings.topic}", "cam-1", device_tokens("cam-1")
        )
        with pytest.raises(UnavailableError):
            sender.send([samples.alarm(1)])
        with pytest.raises(BlockingIOError):  # nobody came
            elsewhere.accept()


def test_a_topic_that_cannot_be_reached_loses_nothing(
    cloud: GcpMock, settings: GcpSettings, device_tokens: Tokens
) -> None:
    cloud.rules.add(Rule("pubsub.Publish", cut_request_at=10))
    sender = PubSubSender(f"pubsub://{PROJECT}/{settings.topic}", "cam-1", device_tokens("cam-1"))
    with pytest.raises(UnavailableError) as raised:
        sender.send([samples.alarm(1)])
    assert raised.value.retryable
