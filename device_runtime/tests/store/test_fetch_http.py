"""Fetching over real connections that break, from servers that are busy, lie or aren't trusted."""

from __future__ import annotations

import random
import ssl
import threading
from pathlib import Path

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.tests.store.loopback import serving_blobs
from device_runtime.tests.support import Clock
from edgefleet.errors import CancelledError, IntegrityError, NotFoundError, UnavailableError
from edgefleet.protocol.digest import digest_of
from edgefleet_runtime.retry import LONGEST_ASKED_S
from edgefleet_runtime.store.bandwidth import Bandwidth
from edgefleet_runtime.store.blobs import BlobStore
from edgefleet_runtime.store.fetch import Fetcher, Want
from edgefleet_runtime.store.http import HttpSource

DATA = random.Random(7).randbytes(300_000)
BLOBS = [random.Random(number).randbytes(50_000 + number) for number in range(8)]


def want(data: bytes) -> Want:
    return Want(digest=digest_of(data), name="weights.bin of digits:1", max_bytes=len(data))


class Rig:
    def __init__(self, root: Path, *, limit: Bandwidth | None = None, workers: int = 4) -> None:
        self.store = BlobStore(root, 1 << 30)
        self.pauses: list[float] = []
        self.fetcher = Fetcher(
            self.store,
            pause=self.pauses.append,
            jitter=random.Random(1),
            bandwidth=limit,
            workers=workers,
        )

    def fetch(self, *addresses: str, blobs: list[bytes] | None = None) -> None:
        wants = [want(data) for data in ([DATA] if blobs is None else blobs)]
        self.fetcher.fetch(wants, [HttpSource(address) for address in addresses])


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_a_dropped_connection_is_continued_by_range_and_no_byte_comes_twice(rig: Rig) -> None:
    with serving_blobs(DATA) as server:
        server.script = ["drop", "drop"]
        rig.fetch(server.address)
    assert server.ranges == [None, "bytes=150000-", "bytes=225000-"]
    assert rig.fetcher.bytes_fetched == len(DATA) == server.sent


def test_another_source_continues_what_the_first_one_began(rig: Rig) -> None:
    with serving_blobs(DATA) as first, serving_blobs(DATA) as second:
        first.script = ["drop", *["500"] * 20]
        rig.fetch(first.address, second.address)
    assert second.ranges == ["bytes=150000-"]
    assert rig.fetcher.bytes_fetched == len(DATA)


def test_404_everywhere_ends_the_fetch_at_once(rig: Rig) -> None:
    with serving_blobs() as first, serving_blobs() as second, pytest.raises(NotFoundError):
        rig.fetch(first.address, second.address)
    assert len(first.ranges) == len(second.ranges) == 1
    assert rig.pauses == []


@pytest.mark.parametrize("status", ["429", "503"])
def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(rig: Rig, status: str) -> None:
    with serving_blobs(DATA) as server:
        server.script = [f"{status};120"]
        rig.fetch(server.address)
    assert rig.pauses == [120.0]


def test_a_server_cannot_ask_to_be_left_alone_for_ever(rig: Rig) -> None:
    with serving_blobs(DATA) as server:
        server.script = ["503;999999999"]
        rig.fetch(server.address)
    assert rig.pauses == [LONGEST_ASKED_S]


def test_while_one_source_is_busy_the_other_is_asked_and_only_the_other(rig: Rig) -> None:
    with serving_blobs(DATA) as busy, serving_blobs(DATA) as flaky:
        busy.script = ["429;120"]
        flaky.script = ["500", "500"]
        rig.fetch(busy.address, flaky.address)
    assert len(busy.ranges) == 1
    assert len(flaky.ranges) == 3
    assert sum(rig.pauses) < 120


def test_a_liar_is_asked_once_and_the_honest_source_serves(rig: Rig) -> None:
    with serving_blobs(DATA) as liar, serving_blobs(DATA) as honest:
        liar.script = ["lie"] * 9
        rig.fetch(liar.address, honest.address)
    assert len(liar.ranges) == 1
    assert want(DATA).digest in rig.store


def test_a_range_that_was_not_asked_for_is_not_taken(rig: Rig) -> None:
    with serving_blobs(DATA) as liar:
        liar.script = ["drop", *["shift"] * 9]
        with pytest.raises(IntegrityError, match="asked from byte 150000, answered from 150001"):
            rig.fetch(liar.address)
    assert rig.store.partial_bytes(want(DATA).digest) == 150_000


def test_blobs_come_at_once_as_many_as_there_are_workers(rig: Rig) -> None:
    with serving_blobs(*BLOBS) as server:
        server.together = threading.Barrier(4)  # no reply begins before four were asked for
        rig.fetch(server.address, blobs=BLOBS)
    assert rig.store.have() == {digest_of(data) for data in BLOBS}
    assert rig.fetcher.bytes_fetched == sum(map(len, BLOBS))


def test_a_blob_that_is_nowhere_ends_the_others(rig: Rig) -> None:
    with serving_blobs(*BLOBS[1:]) as server, pytest.raises(NotFoundError):
        rig.fetch(server.address, blobs=BLOBS)


def test_a_change_outside_ends_all_transfers_and_keeps_what_came(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, 1 << 30)

    def check() -> None:
        if fetcher.bytes_fetched > 100_000:
            raise CancelledError("the pointer changed")

    fetcher = Fetcher(store, pause=lambda _: None, check=check)
    with serving_blobs(*BLOBS) as server:
        with pytest.raises(CancelledError, match="the pointer changed"):
            fetcher.fetch([want(data) for data in BLOBS], [HttpSource(server.address)])
        here = fetcher.bytes_fetched
        assert 100_000 < here < sum(map(len, BLOBS))
        again = Fetcher(store, pause=lambda _: None)
        again.fetch([want(data) for data in BLOBS], [HttpSource(server.address)])
    assert here + again.bytes_fetched == sum(map(len, BLOBS))


@settings(max_examples=15, deadline=None)
@given(
    script=st.lists(st.sampled_from(["drop", "500", "503", "429;3"]), max_size=5),
    workers=st.integers(1, 4),
)
def test_through_any_trouble_each_byte_comes_once(
    tmp_path_factory: pytest.TempPathFactory, script: list[str], workers: int
) -> None:
    rig = Rig(tmp_path_factory.mktemp("device"), workers=workers)
    with serving_blobs(*BLOBS[:3]) as server:
        server.script = list(script)
        rig.fetch(server.address, blobs=BLOBS[:3])
    assert rig.fetcher.bytes_fetched == server.sent == sum(map(len, BLOBS[:3]))


def test_bandwidth_is_shared_by_all_transfers(tmp_path: Path) -> None:
    clock = Clock()
    rig = Rig(tmp_path, limit=Bandwidth(10_000, clock), workers=1)

    def pause(seconds: float) -> None:
        clock.now += seconds

    rig.fetcher._pause = pause
    before = clock.now
    with serving_blobs(*BLOBS) as server:
        rig.fetch(server.address, blobs=BLOBS)
    assert clock.now - before == pytest.approx(sum(map(len, BLOBS)) / 10_000)


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 50_000)), min_size=1))
def test_bandwidth_never_lets_more_through_than_its_limit(steps: list[tuple[float, int]]) -> None:
    clock = Clock()
    limit = Bandwidth(10_000, clock)
    start, total = clock.now, 0
    for idle, count in steps:
        clock.now += idle
        total += count
        clock.now += limit.spend(count)
        assert total <= (clock.now - start) * 10_000 * 1.000001 + 1


# -------------------------------------------------------------------------------------------- TLS


def tls_of(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_tls_is_taken_from_whom_the_context_trusts(rig: Rig) -> None:
    authority = trustme.CA()
    with serving_blobs(DATA, tls=tls_of(authority, "localhost")) as server:
        source = HttpSource(server.address, context=trusting(authority))
        rig.fetcher.fetch([want(DATA)], [source])
    assert want(DATA).digest in rig.store


@pytest.mark.parametrize("name,known", [("localhost", False), ("elsewhere.example", True)])
def test_tls_of_an_unknown_authority_or_another_name_is_refused(
    rig: Rig, name: str, *, known: bool
) -> None:
    authority = trustme.CA()
    with serving_blobs(DATA, tls=tls_of(authority, name)) as server:
        context = trusting(authority if known else trustme.CA())
        source = HttpSource(server.address, context=context)
        with pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            rig.fetcher.fetch([want(DATA)], [source])
    assert rig.fetcher.bytes_fetched == server.sent == 0
