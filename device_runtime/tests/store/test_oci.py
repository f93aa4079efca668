"""Blobs from an OCI registry: tokens, redirects, connections that break, and what is refused."""

from __future__ import annotations

import base64
import json
import logging
import os
import random
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest
import trustme

from edgefleet.errors import (
    AccessDeniedError,
    AccessExpiredError,
    InvalidInputError,
    NotFoundError,
    StorageFullError,
    ThrottledError,
    UnavailableError,
)
from edgefleet.protocol.bundle import INDEX_MEDIA_TYPE
from edgefleet.protocol.digest import digest_of
from edgefleet.testing.cloud.calls import Refused
from edgefleet.testing.cloud.oci import Kind, OciRegistry, throttled
from edgefleet.testing.cloud.oci_tokens import PULL, User
from edgefleet.testing.cloud.rules import Rule
from edgefleet_runtime.store.addresses import builtin_source
from edgefleet_runtime.store.blobs import BlobStore
from edgefleet_runtime.store.fetch import Fetcher, Want
from edgefleet_runtime.store.oci import CREDENTIALS_VARIABLE, OciSource
from edgefleet_runtime.store.partial import Partial

NAME = "plant/models"
DATA = random.Random(7).randbytes(12_000_000)
SMALL = random.Random(8).randbytes(1000)
PASSWORD = "a password"
READER = {"reader": User(PASSWORD, PULL)}


class Rig:
    """A store that is filled from one registry."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = BlobStore(root, 1 << 30)
        self.pauses: list[float] = []
        self.now = 0.0
        self.fetcher = Fetcher(self.store, pause=self._pause, jitter=random.Random(1))

    def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += 1000

    def fetch(self, source: OciSource, data: bytes) -> None:
        want = Want(digest=digest_of(data), name="weights", max_bytes=len(data))
        self.fetcher.fetch([want], [source])
        assert want.digest in self.store


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "store")


@pytest.fixture
def make_registry(tmp_path: Path) -> Iterator[Callable[..., OciRegistry]]:
    started: list[OciRegistry] = []

    def make(*blobs: bytes, **options: object) -> OciRegistry:
        registry = OciRegistry(tmp_path / f"registry-{len(started)}", **options)  # type: ignore[arg-type]
        for data in blobs:
            _put(registry, data)
        registry.start()
        started.append(registry)
        return registry

    yield make
    for registry in started:
        registry.stop()


def _put(registry: OciRegistry, data: bytes) -> None:
    upload = registry.content.begin(NAME)
    registry.content.upload(NAME, upload).add(data)
    registry.content.finish(NAME, upload, digest_of(data))


def _source(registry: OciRegistry, credentials: Path | None = None) -> OciSource:
    return OciSource(f"oci://{registry.host}/{NAME}", credentials=credentials)


def _config(
    path: Path, registry: OciRegistry, password: str = PASSWORD, user: str = "reader"
) -> Path:
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    path.write_text(json.dumps({"auths": {registry.host: {"auth": auth}}}))
    return path


def _read(source: OciSource, data: bytes, offset: int = 0) -> bytes:
    with source.open(digest_of(data), offset) as stream:
        start = stream.start
        return data[:start] + b"".join(iter(lambda: stream.read(1 << 20), b""))


def test_an_address_of_a_registry_needs_no_channel(
    make_registry: Callable[..., OciRegistry],
) -> None:
    registry = make_registry(SMALL)
    source = builtin_source(f"oci://{registry.host}/{NAME}")
    assert isinstance(source, OciSource)
    assert _read(source, SMALL) == SMALL


@pytest.mark.parametrize(
    "address", ["oci://host", "oci://host/Large", "oci:///a/b", "oci://h/a/.."]
)
def test_what_names_no_repository_is_refused(address: str) -> None:
    with pytest.raises(InvalidInputError, match="REPOSITORY"):
        OciSource(address)


def test_a_manifest_is_read_like_a_blob(make_registry: Callable[..., OciRegistry]) -> None:
    registry = make_registry()
    index = json.dumps(
        {"schemaVersion": 2, "mediaType": INDEX_MEDIA_TYPE, "manifests": []}
    ).encode()
    registry.content.put_manifest(NAME, "digits-V1", INDEX_MEDIA_TYPE, index)
    assert _read(_source(registry), index) == index
    assert _read(_source(registry), index, offset=5) == index


def test_a_registry_that_drops_the_connection_is_continued_by_range(
    make_registry: Callable[..., OciRegistry], rig: Rig
) -> None:
    registry = make_registry(DATA, kind=Kind(drop_every=5_000_000))
    rig.fetch(_source(registry), DATA)
    assert len(registry.seen("GetBlob")) == 3
    assert len(registry.seen("GetBlob", "206")) == 2
    assert rig.fetcher.bytes_fetched == len(DATA)


def test_a_store_behind_the_registry_that_drops_it_is_continued_by_range(
    make_registry: Callable[..., OciRegistry], rig: Rig
) -> None:
    registry = make_registry(DATA, kind=Kind(drop_every=5_000_000, redirects=True))
    rig.fetch(_source(registry), DATA)
    assert len(registry.seen("GetBlob", "307")) == 3
    assert len(registry.seen("StoreGet", "206")) == 2
    assert rig.fetcher.bytes_fetched == len(DATA)


def test_a_blob_that_is_nowhere_ends_the_fetch_at_once(
    make_registry: Callable[..., OciRegistry], rig: Rig
) -> None:
    registry = make_registry(SMALL)
    with pytest.raises(NotFoundError):
        rig.fetch(_source(registry), DATA)
    assert len(registry.seen("GetBlob")) == len(registry.seen("GetManifest")) == 1
    assert rig.pauses == []


def test_a_full_disk_stops_the_fetch_and_leaves_nothing_half(
    make_registry: Callable[..., OciRegistry], rig: Rig
) -> None:
    class OnFullDisk(Partial):
        def __enter__(self) -> Self:
            super().__enter__()
            self._stream.close()
            self._stream = os.fdopen(os.open("/dev/full", os.O_RDWR), "r+b", buffering=0)
            return self

    class FullStore(BlobStore):
        def partial(self, digest: str) -> Partial:
            there = super().partial(digest)
            return OnFullDisk(digest, there._path, there._target)

    registry = make_registry(SMALL)
    full = FullStore(rig.root / "full", 1 << 30)
    want = Want(digest=digest_of(SMALL), name="weights", max_bytes=len(SMALL))
    with pytest.raises(StorageFullError):
        Fetcher(full, pause=rig.pauses.append).fetch([want], [_source(registry)])
    assert len(registry.seen("GetBlob")) == 1
    assert full.have() == frozenset()
    assert full.partial_bytes(want.digest) == 0
    rig.fetch(_source(registry), SMALL)


def test_a_token_is_got_with_mounted_credentials(
    make_registry: Callable[..., OciRegistry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = make_registry(SMALL, users=READER)
    mounted = tmp_path / "secret"
    mounted.mkdir()
    _config(mounted / ".dockerconfigjson", registry)
    monkeypatch.setenv(CREDENTIALS_VARIABLE, str(mounted))
    assert _read(_source(registry), SMALL) == SMALL


def test_a_token_serves_until_it_ends(
    make_registry: Callable[..., OciRegistry], tmp_path: Path
) -> None:
    registry = make_registry(SMALL, users=READER)
    source = _source(registry, _config(tmp_path / "config.json", registry))
    for _ in range(3):
        _read(source, SMALL)
    assert len(registry.seen("GetToken")) == 1


def test_a_token_that_ends_in_mid_download_is_renewed(
    make_registry: Callable[..., OciRegistry], rig: Rig, tmp_path: Path
) -> None:
    registry = make_registry(
        DATA, users=READER, kind=Kind(drop_every=5_000_000), clock=lambda: rig.now
    )
    source = _source(registry, _config(tmp_path / "config.json", registry))
    rig.fetch(source, DATA)
    assert len(registry.seen("GetToken")) == 3
    assert rig.fetcher.bytes_fetched == len(DATA)


def test_a_public_repository_gives_tokens_to_anybody(
    make_registry: Callable[..., OciRegistry],
) -> None:
    registry = make_registry(SMALL, users={"": User("", PULL)})
    assert _read(_source(registry), SMALL) == SMALL


def test_a_registry_without_tokens_is_shown_the_password(
    make_registry: Callable[..., OciRegistry], tmp_path: Path
) -> None:
    registry = make_registry(SMALL, users=READER, bearer=False)
    assert _read(_source(registry, _config(tmp_path / "c", registry)), SMALL) == SMALL


def test_an_identity_token_is_exchanged(
    make_registry: Callable[..., OciRegistry], tmp_path: Path
) -> None:
    registry = make_registry(SMALL, users=READER)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"auths": {registry.host: {"identitytoken": PASSWORD}}}))
    assert _read(_source(registry, path), SMALL) == SMALL


@pytest.mark.parametrize("shown", ["tokens", "passwords"])
def test_credentials_that_are_not_taken_are_access_that_ended(
    make_registry: Callable[..., OciRegistry], tmp_path: Path, shown: str
) -> None:
    registry = make_registry(SMALL, users=READER, bearer=shown == "tokens")
    path = _config(tmp_path / "c", registry, "another")
    source = _source(registry, path)
    for _ in range(2):
        with pytest.raises(AccessExpiredError, match="renew"):
            _read(source, SMALL)
    _config(path, registry)  # the mounted secret is renewed in place
    assert _read(source, SMALL) == SMALL


def test_no_credentials_are_told_with_where_they_belong(
    make_registry: Callable[..., OciRegistry],
) -> None:
    registry = make_registry(SMALL, users=READER, bearer=False)
    with pytest.raises(AccessDeniedError, match="give the device credentials") as raised:
        _read(_source(registry), SMALL)
    assert not isinstance(raised.value, AccessExpiredError)


def test_credentials_that_may_not_pull_are_denied_without_a_loop(
    make_registry: Callable[..., OciRegistry], tmp_path: Path
) -> None:
    registry = make_registry(SMALL, users={"reader": User(PASSWORD, frozenset())})
    with pytest.raises(AccessDeniedError, match="pull") as raised:
        _read(_source(registry, _config(tmp_path / "c", registry)), SMALL)
    assert not isinstance(raised.value, AccessExpiredError)
    assert len(registry.seen("GetBlob")) == 2


def test_no_credential_helper_is_run(
    make_registry: Callable[..., OciRegistry], tmp_path: Path
) -> None:
    registry = make_registry(SMALL, users=READER)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"credHelpers": {registry.host: "gcloud"}}))
    with pytest.raises(AccessDeniedError, match="devices run none"):
        _read(_source(registry, path), SMALL)


def test_secrets_are_in_no_message_and_no_log(
    make_registry: Callable[..., OciRegistry],
    rig: Rig,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    registry = make_registry(SMALL, users=READER)
    path = _config(tmp_path / "config.json", registry, "quite-secret")
    source = _source(registry, path)
    with pytest.raises(AccessExpiredError) as raised:
        rig.fetch(source, SMALL)
    path.write_text('{"auths": "quite-secret')
    with pytest.raises(AccessDeniedError) as broken:
        rig.fetch(source, SMALL)
    encoded = base64.b64encode(b"reader:quite-secret").decode()
    for text in (caplog.text, repr(raised.value), repr(broken.value), repr(source.__dict__)):
        assert "quite-secret" not in text
        assert encoded not in text


def test_what_authorizes_goes_to_no_other_host(
    make_registry: Callable[..., OciRegistry], tmp_path: Path
) -> None:
    """The store refuses who shows it more than the signed address, as S3 does."""
    registry = make_registry(SMALL, users=READER, kind=Kind(redirects=True))
    assert _read(_source(registry, _config(tmp_path / "c", registry)), SMALL) == SMALL
    assert len(registry.seen("StoreGet", "200")) == 1


def test_a_redirect_whose_address_ended_is_resolved_again(
    make_registry: Callable[..., OciRegistry],
) -> None:
    registry = make_registry(SMALL, kind=Kind(redirects=True))
    registry.rules.add(Rule("oci.StoreGet", fault=Refused(403, "DENIED", "expired")))
    assert _read(_source(registry), SMALL) == SMALL
    assert len(registry.seen("GetBlob", "307")) == 2


def test_addresses_that_are_always_ended_do_not_loop(
    make_registry: Callable[..., OciRegistry],
) -> None:
    registry = make_registry(SMALL, kind=Kind(redirects=True, signed_s=0))
    with pytest.raises(UnavailableError, match="gave it away, but"):
        _read(_source(registry), SMALL)
    assert len(registry.seen("StoreGet", "403")) == 2


@pytest.mark.parametrize("operation", ["GetBlob", "GetToken"])
def test_a_busy_registry_is_left_alone_for_as_long_as_it_asks(
    make_registry: Callable[..., OciRegistry], rig: Rig, tmp_path: Path, operation: str
) -> None:
    registry = make_registry(SMALL, users=READER)
    registry.rules.add(Rule(f"oci.{operation}", fault=throttled(120)))
    rig.fetch(_source(registry, _config(tmp_path / "c", registry)), SMALL)
    assert rig.pauses == [120.0]


def test_how_long_to_wait_is_told(make_registry: Callable[..., OciRegistry]) -> None:
    registry = make_registry(SMALL)
    registry.rules.add(Rule("oci.GetBlob", fault=throttled(7)))
    with pytest.raises(ThrottledError) as raised:
        _read(_source(registry), SMALL)
    assert raised.value.retry_after_s == 7


def test_a_registry_is_trusted_by_its_certificate_only(
    make_registry: Callable[..., OciRegistry],
) -> None:
    authority = trustme.CA()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(serving)
    registry = make_registry(SMALL, tls=serving)
    address = f"oci://{registry.host}/{NAME}"
    with pytest.raises(UnavailableError, match="certificate"):
        _read(OciSource(address, origin=registry.url), SMALL)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    assert _read(OciSource(address, origin=registry.url, context=trusting), SMALL) == SMALL
