from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.errors import (
    AccessExpiredError,
    CancelledError,
    EdgeFleetError,
    IntegrityError,
    NotFoundError,
    StorageFullError,
    ThrottledError,
    UnavailableError,
)
from edgefleet.protocol.digest import CHUNK_BYTES, digest_of
from edgefleet_runtime.retry import pauses
from edgefleet_runtime.store.blobs import BlobStore
from edgefleet_runtime.store.fetch import Fetcher, Want, plan
from edgefleet_runtime.store.sources import BlobStream, Source

DATA = bytes(range(256)) * (CHUNK_BYTES // 64)  # four chunks
WANT = Want(digest=digest_of(DATA), name="weights.bin of digits:1", max_bytes=len(DATA))


class Scripted(Source):
    """A source that does what a list says, one entry a call: bytes to serve, or an error."""

    def __init__(
        self, address: str, *script: bytes | EdgeFleetError, cut: int | None = None
    ) -> None:
        self.address = address
        self.script = list(script)
        self.cut = cut
        self.offsets: list[int] = []

    def open(self, digest: str, offset: int) -> BlobStream:
        self.offsets.append(offset)
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, EdgeFleetError):
            raise step
        return ScriptedStream(step, offset, self)


class ScriptedStream(BlobStream):
    def __init__(self, data: bytes, start: int, source: Scripted) -> None:
        self.start, self.data, self.source, self.sent = start, data[start:], source, 0

    def read(self, max_bytes: int) -> bytes:
        cut = self.source.cut
        if cut is not None and self.sent >= cut:
            self.source.cut = None
            raise UnavailableError("the connection broke")
        chunk, self.data = self.data[:max_bytes], self.data[max_bytes:]
        self.sent += len(chunk)
        return chunk

    def close(self) -> None:
        pass


class Rig:
    def __init__(self, root: Path) -> None:
        self.store = BlobStore(root, 1 << 30)
        self.pauses: list[float] = []
        self.check: Callable[[], None] = lambda: None
        self.fetcher = Fetcher(
            self.store,
            pause=self.pauses.append,
            check=lambda: self.check(),  # noqa: PLW0108 - a test sets another one
            jitter=random.Random(1),
        )

    def fetch(self, *sources: Source, want: Want = WANT) -> None:
        self.fetcher.fetch([want], sources)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_a_blob_comes_from_the_first_source_that_has_it(rig: Rig) -> None:
    second = Scripted("b", DATA)
    rig.fetch(Scripted("a", NotFoundError("no")), second, Scripted("c", UnavailableError("no")))
    assert WANT.digest in rig.store
    assert rig.fetcher.bytes_fetched == len(DATA)
    assert rig.pauses == []


def test_what_is_here_is_not_fetched_again(rig: Rig) -> None:
    rig.fetch(Scripted("a", DATA))
    source = Scripted("b", UnavailableError("never asked"))
    rig.fetch(source)
    assert source.offsets == []


def test_a_broken_connection_is_continued_where_it_stopped(rig: Rig) -> None:
    source = Scripted("a", DATA, cut=CHUNK_BYTES)
    rig.fetch(source)
    assert source.offsets == [0, CHUNK_BYTES]
    assert rig.fetcher.bytes_fetched == len(DATA)


def test_a_source_that_cannot_begin_in_the_middle_begins_at_the_start(rig: Rig) -> None:
    class FromStart(Scripted):
        def open(self, digest: str, offset: int) -> BlobStream:
            return super().open(digest, 0)

    with rig.store.partial(WANT.digest) as partial:
        partial.write(DATA[:100])
    rig.fetch(FromStart("a", DATA))
    assert WANT.digest in rig.store


def test_all_sources_without_the_blob_end_the_fetch_at_once(rig: Rig) -> None:
    sources = [Scripted(name, NotFoundError("404")) for name in "abc"]
    with pytest.raises(NotFoundError, match=r"weights\.bin of digits:1.*a: 404; b: 404; c: 404"):
        rig.fetch(*sources)
    assert [source.offsets for source in sources] == [[0], [0], [0]]
    assert rig.pauses == []


def test_pauses_between_tries_grow_and_the_tries_end(rig: Rig) -> None:
    source = Scripted("a", UnavailableError("down"))
    with pytest.raises(UnavailableError, match="down"):
        rig.fetch(source)
    assert len(source.offsets) == 6
    assert len(rig.pauses) == 5
    assert all(
        earlier < later * 1.01 for earlier, later in zip(rig.pauses, rig.pauses[2:], strict=False)
    )


def test_a_source_that_lacks_it_is_not_asked_again_while_another_recovers(rig: Rig) -> None:
    lacking = Scripted("a", NotFoundError("404"))
    rig.fetch(lacking, Scripted("b", UnavailableError("down"), UnavailableError("down"), DATA))
    assert lacking.offsets == [0]
    assert WANT.digest in rig.store


def test_a_busy_source_is_given_the_time_it_asks_for(rig: Rig) -> None:
    busy = ThrottledError("429")
    busy.retry_after_s = 7.0
    rig.fetch(Scripted("a", busy, DATA))
    assert rig.pauses == [7.0]


def test_wrong_bytes_make_the_next_source_serve(rig: Rig) -> None:
    rig.fetch(Scripted("a", DATA[:-1] + b"?"), Scripted("b", DATA))
    assert WANT.digest in rig.store


def test_wrong_bytes_everywhere_name_the_file_and_the_sources(rig: Rig) -> None:
    with pytest.raises(IntegrityError, match=r"weights\.bin.*a: .*b: "):
        rig.fetch(Scripted("a", DATA[:-1] + b"?"), Scripted("b", DATA + b"?"))
    assert rig.store.have() == frozenset()
    assert rig.pauses == []


def test_a_blob_cut_short_at_the_source_is_damage_not_trouble(rig: Rig) -> None:
    with pytest.raises(IntegrityError):
        rig.fetch(Scripted("a", DATA[:1000]))


def test_a_spoilt_partial_blob_is_begun_anew_at_the_same_source(rig: Rig) -> None:
    with rig.store.partial(WANT.digest) as partial:
        partial.write(b"\0" * 100)  # what a power cut may leave
    source = Scripted("a", DATA)
    rig.fetch(source)
    assert source.offsets == [100, 0]
    assert WANT.digest in rig.store


def test_a_partial_blob_that_is_whole_needs_no_source(rig: Rig) -> None:
    with rig.store.partial(WANT.digest) as partial:
        partial.write(DATA)
    source = Scripted("a", UnavailableError("down"))
    rig.fetch(source)
    assert source.offsets == []
    assert WANT.digest in rig.store


def test_expired_access_tells_more_than_a_missing_blob(rig: Rig) -> None:
    with pytest.raises(AccessExpiredError):
        rig.fetch(Scripted("a", AccessExpiredError("expired")), Scripted("b", NotFoundError("404")))


def test_a_check_that_raises_stops_the_fetch_and_keeps_what_came(rig: Rig) -> None:
    def check() -> None:
        if rig.store.partial_bytes(WANT.digest):
            raise CancelledError("the pointer changed")

    rig.check = check
    with pytest.raises(CancelledError):
        rig.fetch(Scripted("a", DATA))
    assert rig.store.partial_bytes(WANT.digest) == CHUNK_BYTES


def test_what_exceeds_the_cap_is_refused_before_a_byte_is_fetched(rig: Rig) -> None:
    rig.store.max_bytes = len(DATA) - 1
    source = Scripted("a", DATA)
    with pytest.raises(StorageFullError) as caught:
        rig.fetch(source)
    assert source.offsets == []
    assert not caught.value.retryable


def test_a_document_of_unknown_size_ends_where_the_source_ends(rig: Rig) -> None:
    want = Want(digest=digest_of(b"short"), name="release", max_bytes=100, exact=False)
    rig.fetch(Scripted("a", b"short"), want=want)
    assert want.digest in rig.store


def test_a_document_over_its_limit_is_refused(rig: Rig) -> None:
    want = Want(digest=digest_of(b"x" * 101), name="release", max_bytes=100, exact=False)
    with pytest.raises(IntegrityError, match="longer than 100 bytes"):
        rig.fetch(Scripted("a", b"x" * 101), want=want)


digests = st.binary(max_size=2).map(digest_of)
wants = st.lists(
    st.builds(Want, digest=digests, name=st.just("blob"), max_bytes=st.integers(0, 99))
)


@given(st.frozensets(digests), wants)
def test_a_plan_is_what_is_missing_each_once_and_no_byte_more(
    have: frozenset[str], want: list[Want]
) -> None:
    decided = plan(have, want)
    assert {item.digest for item in decided.missing} == {item.digest for item in want} - have
    assert len({item.digest for item in decided.missing}) == len(decided.missing)
    assert decided.bytes == sum(item.max_bytes for item in decided.missing)


@given(st.randoms(use_true_random=False))
def test_pauses_stay_within_their_limits(chance: random.Random) -> None:
    given_pauses = pauses(chance, first_s=1.0, longest_s=8.0)
    for due in (1.0, 2.0, 4.0, 8.0, 8.0):
        assert due / 2 <= next(given_pauses) <= due
