"""Blobs from gateways: with the device's certificate, with ranges, and from where they redirect."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

from device_runtime.tests.channels.pull.conftest import Make
from device_runtime.tests.channels.pull.proxy import proxying
from device_runtime.tests.channels.pull.standin import Enrolled, StandIn, serving
from device_runtime.tests.store.loopback import BlobServer
from edgefleet.errors import (
    AccessDeniedError,
    EdgeFleetError,
    IntegrityError,
    NotFoundError,
    ThrottledError,
    UnavailableError,
)
from edgefleet.protocol.digest import blob_path, digest_of, hex_of
from edgefleet.protocol.gateway import BLOBS, OFFER_HEADER, Archive, RuntimeOffer
from edgefleet_runtime.channels.pull import https
from edgefleet_runtime.channels.pull.blobs import MAX_REDIRECTS
from edgefleet_runtime.channels.pull.from_gateway import GatewayChannel
from edgefleet_runtime.store.blobs import BlobStore
from edgefleet_runtime.store.fetch import Fetcher, Want
from edgefleet_runtime.store.sources import Source

CONTENT = bytes(range(256)) * 2000


def own_source(channel: GatewayChannel) -> Source:
    found = channel.source(channel.addresses()[0])
    assert found is not None
    return found


def read(source: Source, digest: str) -> bytes:
    with source.open(digest, 0) as stream:
        return b"".join(iter(lambda: stream.read(10_000), b""))


@pytest.fixture
def blob(gateway: StandIn) -> str:
    return gateway.put(CONTENT)


def test_a_blob_is_read_over_one_connection(gateway: StandIn, make: Make, blob: str) -> None:
    source = own_source(make())
    for _ in range(3):
        assert read(source, blob) == CONTENT
    assert gateway.handshakes == 1


def test_a_blob_goes_on_at_an_offset(make: Make, blob: str) -> None:
    source = own_source(make())
    with source.open(blob, 100_000) as stream:
        assert stream.start == 100_000
        assert stream.read(16) == CONTENT[100_000:100_016]


def test_beyond_the_end_it_begins_again(make: Make, blob: str) -> None:
    with own_source(make()).open(blob, len(CONTENT)) as stream:
        assert stream.start == 0


def test_other_addresses_are_none_of_the_channels(make: Make) -> None:
    channel = make()
    assert channel.source("https://elsewhere.example/v1") is None
    assert channel.source("oci://registry.example/fleet") is None


@pytest.mark.parametrize(
    "step, error",
    [
        ("404", NotFoundError),
        ("410", NotFoundError),
        ("403", AccessDeniedError),
        ("problem:403:revoked", AccessDeniedError),
        ("429;5", ThrottledError),
        ("503;5", ThrottledError),
        ("500", UnavailableError),
        ("redirect:http://plain.example/blob", UnavailableError),
        ("redirect:https://user@host.example/blob", UnavailableError),
        ("redirect:", UnavailableError),
    ],
)
def test_refusals_are_those_of_every_source(
    gateway: StandIn, make: Make, blob: str, step: str, error: type[Exception]
) -> None:
    gateway.script[:] = [step]
    source = own_source(make())
    with pytest.raises(error):
        source.open(blob, 0)
    assert read(source, blob) == CONTENT


def test_a_break_in_the_middle_is_told(gateway: StandIn, make: Make, blob: str) -> None:
    gateway.script[:] = ["half"]
    with pytest.raises(UnavailableError):
        read(own_source(make()), blob)


def test_what_was_fetched_before_a_break_is_not_fetched_again(
    gateway: StandIn, make: Make, blob: str, tmp_path: Path
) -> None:
    gateway.script[:] = ["half"]
    store = BlobStore(tmp_path / "device", 1 << 30)
    fetcher = Fetcher(store, pause=lambda _: None)
    fetcher.fetch([Want(digest=blob, name="model", max_bytes=len(CONTENT))], [own_source(make())])
    assert fetcher.bytes_fetched == len(CONTENT)
    assert "Range" in gateway.asked[-1].headers


def test_a_tampered_blob_of_a_mirror_is_refused_and_the_next_source_used(
    enrolled: Enrolled, gateway: StandIn, make: Make, blob: str, tmp_path: Path
) -> None:
    with serving(StandIn(enrolled.authority)) as mirror:
        mirror.blobs[blob] = b"x" + CONTENT[1:]
        channel = make(Enrolled(enrolled.authority, mirror.address, gateway.address))
        sources = [source for each in channel.addresses() if (source := channel.source(each))]
        store = BlobStore(tmp_path / "device", 1 << 30)
        want = Want(digest=blob, name="model", max_bytes=len(CONTENT))
        with pytest.raises(IntegrityError):
            Fetcher(store, pause=lambda _: None).fetch([want], sources[:1])
        assert blob not in store.have()
        Fetcher(store, pause=lambda _: None).fetch([want], sources)
        assert blob in store.have()
        assert len(mirror.asked) == 2


# ------------------------------------------------------------------------------------ redirects


@pytest.fixture
def store_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BlobServer]:
    """A CDN whose certificate the system believes, and the fleet's authority didn't sign."""
    public = trustme.CA()
    public.cert_pem.write_to_path(tmp_path / "system.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    public.issue_cert("localhost").configure_cert(context)
    server = BlobServer([CONTENT], tls=context)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_redirect_to_a_store_is_followed_with_the_range(
    gateway: StandIn, make: Make, store_elsewhere: BlobServer
) -> None:
    digest = digest_of(CONTENT)
    there = f"{store_elsewhere.address}/{blob_path(digest)}"
    gateway.script[:] = [f"redirect:{there}"] * 2
    source = own_source(make())
    assert read(source, digest) == CONTENT
    with source.open(digest, 5000) as stream:
        assert stream.start == 5000
        assert stream.read(10) == CONTENT[5000:5010]
    assert store_elsewhere.ranges == [None, "bytes=5000-"]


def test_a_redirect_is_followed_by_the_channels_own_proxy(
    gateway: StandIn, make: Make, store_elsewhere: BlobServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = digest_of(CONTENT)
    gateway.script[:] = [f"redirect:{store_elsewhere.address}/{blob_path(digest)}"]
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    with proxying() as proxy:
        assert read(own_source(make(proxy=proxy.address)), digest) == CONTENT
        there = urlsplit(store_elsewhere.address).netloc
        assert [f"CONNECT {there} " in seen for seen in proxy.seen] == [False, True]


def test_a_redirect_says_nothing_of_its_query(
    gateway: StandIn, make: Make, store_elsewhere: BlobServer
) -> None:
    digest = digest_of(CONTENT)
    for place in (
        f"{store_elsewhere.address}/absent",
        "https://localhost:1/x",
        "https://bad host/",
    ):
        gateway.script[:] = [f"redirect:{place}?signature=secret"]
        with pytest.raises(EdgeFleetError) as caught:
            own_source(make()).open(digest, 0)
        assert "secret" not in str(caught.value)


@pytest.fixture
def other(enrolled: Enrolled, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A server that the system believes."""
    context = enrolled.context()
    monkeypatch.setattr(https, "system_context", lambda: context)
    with serving(StandIn(enrolled.authority)) as found:
        yield found


def test_a_redirect_may_lead_on_without_naming_the_host_again(
    gateway: StandIn, make: Make, other: StandIn
) -> None:
    digest = other.put(CONTENT)
    gateway.script[:] = [f"redirect:{other.address}{BLOBS}/old/a?signature=b"]
    other.script[:] = [f"redirect:../new/{hex_of(digest)}"]
    assert read(own_source(make()), digest) == CONTENT
    assert other.paths() == [f"{BLOBS}/old/a?signature=b", f"{BLOBS}/new/{hex_of(digest)}"]


def test_redirects_in_a_circle_end(gateway: StandIn, make: Make, other: StandIn, blob: str) -> None:
    other.script[:] = [f"redirect:{other.address}/round"] * 50
    gateway.script[:] = [f"redirect:{other.address}/round"]
    with pytest.raises(UnavailableError, match="too many redirects"):
        own_source(make()).open(blob, 0)
    assert len(other.asked) == MAX_REDIRECTS


# ------------------------------------------------------------------------------------ runtimes


def test_a_runtime_that_is_offered_is_told_once_and_can_be_read(
    gateway: StandIn, make: Make
) -> None:
    told: list[str] = []
    channel = make()
    channel.on_offer = lambda: told.append("offered")
    channel.pointer()
    assert channel.offered_runtime() is None
    archive = Archive(digest=gateway.put(CONTENT), size=len(CONTENT))
    gateway.offer = ('"1"', RuntimeOffer(runtime="2.0", archives={"linux-x86_64": archive}))
    channel.poller.turn()
    channel.poller.turn()
    assert told == ["offered"]
    assert gateway.asked[-1].headers[OFFER_HEADER] == '"1"'
    found = channel.offered_runtime()
    assert found is not None
    assert read(channel.archives()[0], found.archives["linux-x86_64"].digest) == CONTENT
    assert gateway.paths()[-1].startswith("/v1/archives/sha256/")
    gateway.offer = None
    channel.poller.turn()
    assert told == ["offered"] * 2
