"""Documents under generations: stale, lost answers, too often, a bucket that goes away."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgefleet.errors import ConflictError, NotFoundError, ThrottledError
from edgefleet.testing.cloud.rules import Rule
from edgefleet_gcp.clients import Clients
from edgefleet_gcp.mock import GcpMock
from edgefleet_gcp.settings import GcpSettings
from edgefleet_gcp.state import GcsStateStore


@pytest.fixture
def state(clients: Clients, settings: GcpSettings) -> GcsStateStore:
    return GcsStateStore(clients, settings)


def test_a_stale_generation_writes_and_deletes_nothing(state: GcsStateStore) -> None:
    first = state.write("doc", b"1", expect=None)
    second = state.write("doc", b"2", expect=first)
    with pytest.raises(ConflictError, match="read it again"):
        state.write("doc", b"3", expect=first)
    with pytest.raises(ConflictError):
        state.delete("doc", expect=first)
    stored = state.read("doc")
    assert stored is not None
    assert (stored.data, stored.tag) == (b"2", second)


def test_the_same_bytes_written_again_have_another_tag(state: GcsStateStore) -> None:
    first = state.write("doc", b"1", expect=None)
    assert state.write("doc", b"1", expect=first) != first


@pytest.mark.parametrize("tag", ["no-tag", "0", "-1", ""])
def test_a_tag_that_is_none_of_ours_is_a_conflict(state: GcsStateStore, tag: str) -> None:
    state.write("doc", b"1", expect=None)
    with pytest.raises(ConflictError):
        state.write("doc", b"2", expect=tag)


def test_a_document_whose_making_lost_its_answer_finds_itself_done(
    cloud: GcpMock, state: GcsStateStore
) -> None:
    cloud.rules.add(Rule("storage.InsertObject", cut_answer_at=0))
    tag = state.write("doc", b"1", expect=None)
    found = state.read("doc")
    assert found is not None
    assert found.tag == tag


def test_a_document_is_written_once_a_second_at_most_and_later_all_the_same(
    cloud: GcpMock, make_settings: Callable[..., GcpSettings]
) -> None:
    cloud.stage.storage.writes_per_second = 1.0
    hasty = make_settings(max_attempts=1)
    store = GcsStateStore(Clients(hasty), hasty)
    tag = store.write("doc", b"1", expect=None)
    with pytest.raises(ThrottledError, match="rate limit for object mutation"):
        store.write("doc", b"2", expect=tag)
    store.close()
    patient = hasty.model_copy(update={"max_attempts": 8})
    store = GcsStateStore(Clients(patient), patient)
    store.write("doc", b"2", expect=tag)
    store.close()


def test_a_bucket_that_went_away_is_told_and_is_no_missing_document(
    cloud: GcpMock,
    make_settings: Callable[..., GcpSettings],
    make_clients: Callable[[GcpSettings], Clients],
) -> None:
    settings = make_settings(bucket="going-away")
    cloud.stage.emulator.create_bucket("going-away")
    state = GcsStateStore(make_clients(settings), settings)
    tag = state.write("doc", b"1", expect=None)
    cloud.stage.emulator.delete_bucket("going-away")
    with pytest.raises(NotFoundError, match="`bucket` of the profile"):
        state.read("doc")
    with pytest.raises(NotFoundError, match="`bucket` of the profile"):
        state.write("doc", b"2", expect=tag)


def test_documents_beyond_a_page_are_listed(
    cloud: GcpMock, state: GcsStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"many/{number:04}" for number in range(7)]
    for name in names:
        state.write(name, b"{}", expect=None)
    monkeypatch.setattr(cloud.stage.storage, "page", 3)
    assert list(state.keys("many/")) == names
