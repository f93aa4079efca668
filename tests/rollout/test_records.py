"""A group's record: whatever is done to it, numbers rise and going back means a new pointer."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.errors import NotFoundError, PolicyError
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.pointer import check_successor, in_cohort
from edgefleet.protocol.release import EMPTY
from edgefleet.rollout import records
from edgefleet.rollout.records import GroupRecord, Stamp

FLEET = "6f1e7a52-0c5d-4c0e-9d53-0c2a4f1b7f00"
A, B, C = (digest_of(text) for text in (b"a", b"b", b"c"))


def stamp(number: int, *, epoch: int = 0) -> Stamp:
    return Stamp(
        fleet=FLEET,
        epoch=epoch,
        number=number,
        at=datetime(2026, 1, 1, tzinfo=UTC),
        actor="ada",
        sources=("file:///models",),
    )


def deployed(*releases: str) -> GroupRecord:
    record = GroupRecord()
    for number, release in enumerate(releases, 1):
        record = records.with_release(
            record, release, stamp(number), action="deploy", models=("digits:1",)
        )
    return record


def test_a_new_group_wants_the_empty_release() -> None:
    assert GroupRecord().current == EMPTY.digest


def test_deploying_makes_the_release_current() -> None:
    record = deployed(A, B)
    assert record.current == B
    assert record.pointer is not None
    assert record.pointer.current == B


def test_rolling_back_is_a_higher_pointer_to_the_earlier_release() -> None:
    record = records.rolled_back(deployed(A, B), stamp(3), models=())
    assert record.pointer is not None
    assert (record.pointer.number, record.pointer.current) == (3, A)


def test_a_second_rollback_goes_further_back() -> None:
    record = records.rolled_back(deployed(A, B, C), stamp(4), models=())
    assert records.rolled_back(record, stamp(5), models=()).current == A


def test_rolling_back_skips_what_is_the_same_release_again() -> None:
    assert records.rolled_back(deployed(A, B, B), stamp(4), models=()).current == A


@pytest.mark.parametrize("record", [deployed(A), deployed(A, A)])
def test_rolling_back_the_first_deployment_leads_to_the_empty_release(record: GroupRecord) -> None:
    after = records.rolled_back(record, stamp(3), models=())
    assert after.current == EMPTY.digest
    assert after.pointer is not None
    assert after.pointer.current == EMPTY.digest


def test_there_must_be_something_to_roll_back_to() -> None:
    record = records.rolled_back(deployed(A), stamp(2), models=())
    with pytest.raises(PolicyError, match="no other release"):
        records.rolled_back(record, stamp(3), models=())


def test_a_new_group_has_nothing_to_roll_back_to() -> None:
    record = GroupRecord()
    with pytest.raises(PolicyError, match="no other release"):
        records.rolled_back(record, stamp(9), models=())


def test_a_candidate_reaches_only_its_cohort() -> None:
    record = records.with_candidate(deployed(A), B, 300, stamp(2), models=())
    assert record.pointer is not None
    assert record.pointer.next is not None
    names = [f"cam-{n}" for n in range(200)]
    got = {name for name in names if record.pointer.release_for(name) == B}
    assert got == {name for name in names if in_cohort(record.pointer.next.cohort, name)}
    assert 30 < len(got) < 90
    assert record.current == A


def test_a_wider_cohort_keeps_every_device_of_the_narrower_one() -> None:
    narrow = records.with_candidate(deployed(A), B, 100, stamp(2), models=())
    wide = records.with_candidate(narrow, B, 500, stamp(3), models=())
    assert narrow.pointer is not None
    assert wide.pointer is not None
    names = [f"cam-{n}" for n in range(300)]
    first = {n for n in names if narrow.pointer.release_for(n) == B}
    assert first <= {n for n in names if wide.pointer.release_for(n) == B}


def test_promoting_gives_the_candidate_to_all() -> None:
    record = records.with_candidate(deployed(A), B, 100, stamp(2), models=())
    record = records.promoted(record, stamp(3), models=())
    assert (record.current, record.candidate) == (B, None)
    assert record.pointer is not None
    assert record.pointer.next is None


def test_promoting_needs_a_candidate() -> None:
    with pytest.raises(NotFoundError, match="candidate"):
        records.promoted(deployed(A), stamp(2), models=())


def test_cancelling_takes_the_candidate_from_every_device_by_permille_0() -> None:
    record = records.with_candidate(deployed(A), B, 1000, stamp(2), models=())
    record = records.cancelled(record, stamp(3), models=())
    assert record.pointer is not None
    assert record.pointer.next is not None
    assert record.pointer.next.cohort.permille == 0
    assert record.pointer.release_for("cam-1") == A
    assert record.candidate is None


def test_cancelling_without_a_candidate_rolls_back() -> None:
    assert records.cancelled(deployed(A, B), stamp(3), models=()).current == A


def test_a_record_survives_the_state_store() -> None:
    record = records.with_candidate(deployed(A), B, 100, stamp(2), models=("digits:2",))
    assert records.read_record(records.encode_record(record)) == record


def test_a_long_life_stays_small() -> None:
    record = deployed(*(digest_of(str(n).encode()) for n in range(1000)))
    assert len(records.encode_record(record)) < records.MAX_BYTES


Step = st.tuples(
    st.sampled_from(["deploy", "canary", "promote", "cancel", "rollback"]),
    st.sampled_from([A, B, C]),
    st.integers(0, 1000),
)


@given(st.lists(Step, max_size=30))
def test_a_device_accepts_every_pointer_that_any_history_makes(
    steps: list[tuple[str, str, int]],
) -> None:
    record, held = GroupRecord(), None
    for number, (what, release, permille) in enumerate(steps, 1):
        at = stamp(number)
        try:
            if what == "deploy":
                record = records.with_release(record, release, at, action="deploy", models=())
            elif what == "canary":
                record = records.with_candidate(record, release, permille, at, models=())
            elif what == "promote":
                record = records.promoted(record, at, models=())
            elif what == "cancel":
                record = records.cancelled(record, at, models=())
            else:
                record = records.rolled_back(record, at, models=())
        except (PolicyError, NotFoundError):
            continue
        assert record.pointer is not None
        assert check_successor(held, record.pointer)
        assert record.pointer.current == record.current
        held = record.pointer


def test_a_lost_record_is_recovered_from_the_pointer() -> None:
    record = records.with_candidate(deployed(A, B), C, 100, stamp(3), models=())
    assert record.pointer is not None
    again = records.recovered(record.pointer)
    assert (again.current, again.candidate, again.pointer) == (B, C, record.pointer)
    cancelled = records.cancelled(record, stamp(4), models=())
    assert cancelled.pointer is not None
    assert records.recovered(cancelled.pointer).candidate is None
