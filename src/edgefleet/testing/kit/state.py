"""What a state store must do: whole documents, changed by compare-and-swap and no other way."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from edgefleet.errors import ConflictError, InvalidInputError, LimitExceededError
from edgefleet.interfaces.state import MAX_BYTES, StateStore
from edgefleet.testing.kit import samples
from edgefleet.testing.kit.gaps import Conformance

ATTACKS = (
    "",
    "/etc/passwd",
    "../other",
    "a/../../b",
    "a//b",
    "a/./b",
    "a\\b",
    "a\nb",
    "c:/x",
    "a/",
)
INCREMENTS = 5  # by each thread of the counting race


class StateStoreConformance(Conformance):
    """Fixture ``state``: an empty store of its own for each test."""

    @pytest.fixture
    def state(self) -> StateStore:
        """An empty store."""
        return self.lacks("state", "an empty state store for each test")

    def test_a_document_reads_back_as_written(self, state: StateStore) -> None:
        """If this fails, the store recodes or trims: documents are bytes, not text or JSON."""
        for key, data in (("a/empty", b""), ("a/bytes", bytes(range(256))), ("b", b" {} \n")):
            tag = state.write(key, data, expect=None)
            stored = state.read(key)
            assert stored is not None
            assert (stored.data, stored.tag) == (data, tag)

    def test_a_missing_document_reads_as_none(self, state: StateStore) -> None:
        """If this fails, your vendor's "not found" reaches the caller instead of None."""
        assert state.read("groups/line-3.json") is None

    def test_creating_needs_absence(self, state: StateStore) -> None:
        """If this fails, ``expect=None`` isn't sent as "only if absent" (If-None-Match: *)."""
        state.write("doc", b"first", expect=None)
        with pytest.raises(ConflictError):
            state.write("doc", b"second", expect=None)
        assert _data(state, "doc") == b"first"

    def test_replacing_needs_the_tag_that_was_read(self, state: StateStore) -> None:
        """If this fails, the tag isn't sent along as a condition (If-Match), or isn't renewed."""
        old = state.write("doc", b"first", expect=None)
        new = state.write("doc", b"second", expect=old)
        assert new != old
        with pytest.raises(ConflictError):
            state.write("doc", b"third", expect=old)
        assert _data(state, "doc") == b"second"
        state.write("doc", b"third", expect=new)

    def test_replacing_a_document_that_is_gone_conflicts(self, state: StateStore) -> None:
        """If this fails, a conditional write to a missing document creates it."""
        tag = state.write("doc", b"first", expect=None)
        state.delete("doc", expect=tag)
        with pytest.raises(ConflictError):
            state.write("doc", b"second", expect=tag)
        assert state.read("doc") is None

    def test_deleting_needs_the_tag_that_was_read(self, state: StateStore) -> None:
        """If this fails, delete is unconditional: many vendors' is, unless told otherwise."""
        old = state.write("doc", b"first", expect=None)
        state.write("doc", b"second", expect=old)
        with pytest.raises(ConflictError):
            state.delete("doc", expect=old)
        assert _data(state, "doc") == b"second"

    def test_deleting_twice_conflicts(self, state: StateStore) -> None:
        """If this fails, deleting what isn't there succeeds, and a lost race goes unseen."""
        tag = state.write("doc", b"first", expect=None)
        state.delete("doc", expect=tag)
        with pytest.raises(ConflictError):
            state.delete("doc", expect=tag)
        state.write("doc", b"again", expect=None)

    def test_of_many_creators_one_wins(self, state: StateStore) -> None:
        """If this fails, two writers at once both believe that they were first."""

        def create(number: int) -> bool:
            try:
                state.write("doc", b"%d" % number, expect=None)
            except ConflictError:
                return False
            return True

        won = samples.at_once([partial(create, n) for n in range(samples.THREADS)])
        assert won.count(True) == 1
        assert _data(state, "doc") == b"%d" % won.index(True)

    def test_racing_updates_lose_none(self, state: StateStore) -> None:
        """If this fails, reading the tag and writing aren't one atomic step in the store."""

        def count(_: int) -> None:
            for _ in range(INCREMENTS):
                _insistently(state, "counter", lambda data: b"%d" % (int(data or b"0") + 1))

        samples.at_once([partial(count, n) for n in range(samples.THREADS)])
        assert _data(state, "counter") == b"%d" % (samples.THREADS * INCREMENTS)

    def test_a_reader_never_sees_half_a_document(self, state: StateStore) -> None:
        """If this fails, a document is written in place instead of being replaced whole."""
        versions = [bytes([letter]) * 100_000 for letter in b"ab"]
        done = threading.Event()

        def write() -> None:
            tag = None
            try:
                for turn in range(10):
                    tag = state.write("doc", versions[turn % 2], expect=tag)
            finally:
                done.set()

        def read() -> None:
            while not done.is_set():
                stored = state.read("doc")
                assert stored is None or stored.data in versions

        samples.at_once([write, read])

    def test_update_gives_back_what_it_wrote(self, state: StateStore) -> None:
        """If this fails, your store overrides something that `StateStore` already does."""
        assert state.update("doc", lambda data: (data or b"") + b"x") == b"x"
        assert state.update("doc", lambda data: (data or b"") + b"x") == b"xx"
        assert _data(state, "doc") == b"xx"

    def test_keys_are_those_below_the_prefix_in_order(self, state: StateStore) -> None:
        """If this fails, a listing matches by text (``groups/`` finds ``groupsx``), stops after the
        first page, or gives folders.
        """
        below = ["groups/a/x.json", "groups/a.json", "groups/b/c/d.json", "groups/Z.json"]
        for key in [*below, "group", "groupsx/a.json", "other/groups/a.json"]:
            state.write(key, b"{}", expect=None)
        assert list(state.keys("groups/")) == sorted(below)
        assert list(state.keys("groups/a/")) == ["groups/a/x.json"]
        assert list(state.keys("nothing/")) == []

    def test_a_deleted_document_is_not_listed(self, state: StateStore) -> None:
        """If this fails, a listing shows tombstones or comes from a stale cache."""
        tag = state.write("groups/a.json", b"{}", expect=None)
        state.delete("groups/a.json", expect=tag)
        assert list(state.keys("groups/")) == []

    def test_keys_that_differ_in_case_are_two(self, state: StateStore) -> None:
        """If this fails, two groups that differ in case share a record: encode capitals."""
        state.write("groups/edge/Line-3.json", b"big", expect=None)
        state.write("groups/edge/line-3.json", b"small", expect=None)
        assert _data(state, "groups/edge/Line-3.json") == b"big"
        assert _data(state, "groups/edge/line-3.json") == b"small"

    def test_a_document_of_the_largest_size_fits(self, state: StateStore) -> None:
        """If this fails, your vendor holds less than `MAX_BYTES`: split it, or compress."""
        data = samples.noise(MAX_BYTES, 1)
        state.write("doc", data, expect=None)
        stored = state.read("doc")
        assert stored is not None
        assert samples.Content.of(stored.data) == samples.Content.of(data)

    def test_a_larger_one_is_refused_before_it_is_sent(self, state: StateStore) -> None:
        """If this fails, your store overrides a check that `StateStore` makes."""
        with pytest.raises(LimitExceededError):
            state.write("doc", bytes(MAX_BYTES + 1), expect=None)
        assert state.read("doc") is None

    @pytest.mark.parametrize("key", ATTACKS)
    def test_a_key_that_leads_elsewhere_is_refused(self, state: StateStore, key: str) -> None:
        """If this fails, a name from outside reaches your vendor's paths unchecked."""
        with pytest.raises(InvalidInputError):
            state.read(key)
        with pytest.raises(InvalidInputError):
            state.write(key, b"{}", expect=None)
        with pytest.raises(InvalidInputError):
            state.delete(key, expect="tag")
        with pytest.raises(InvalidInputError):
            list(state.keys(f"{key}/" if key else key))

    def test_closing_twice_is_no_error(self, state: StateStore) -> None:
        """If this fails, `close` gives something back that it has given back before."""
        state.write("doc", b"{}", expect=None)
        state.close()
        state.close()


def _data(state: StateStore, key: str) -> bytes | None:
    stored = state.read(key)
    return None if stored is None else stored.data


def _insistently(state: StateStore, key: str, change: samples.Change) -> None:
    """`StateStore.update`, repeated where others kept winning: it promises only to lose none."""
    while True:
        try:
            state.update(key, change)
        except ConflictError:
            continue
        return
