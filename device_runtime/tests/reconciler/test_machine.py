from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from device_runtime.tests.support import FLEET, ISSUED, OTHER_FLEET
from edgefleet.errors import DocumentError
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.pointer import Cohort, Next, Pointer
from edgefleet.protocol.report import RolledBack
from edgefleet_runtime.reconciler import machine as m

RELEASES = tuple(digest_of(name.encode()) for name in ("one", "two", "three"))
ONE, TWO, THREE = RELEASES
KEYS: tuple[m.Key, ...] = (("digits", "active"), ("faces", "active"))
NOW = datetime(2026, 11, 22, tzinfo=UTC)


def pointer(number: int, current: str = ONE, *, fleet: str = FLEET, **more: object) -> Pointer:
    return Pointer(
        fleet=fleet,
        epoch=0,
        number=number,
        current=current,
        sources=(),
        issued=ISSUED,
        **more,  # type: ignore[arg-type]
    )


def order_of(release: str) -> RolledBack:
    return RolledBack(release=release, by="ada", at=datetime(2026, 11, 21, tzinfo=UTC))


def offered(state: m.State, offer: Pointer) -> m.State:
    return m.offer(state, offer, now=NOW)


def start(current: str = ONE) -> m.State:
    return offered(m.State(device="cam-07"), pointer(1, current))


def finished(state: m.State) -> m.State:
    """Everything goes well until there is nothing left to do."""
    while True:
        match m.decide(state):
            case m.Fetch(release):
                state = m.apply(state, m.Fetched(release, KEYS))
            case m.Advance(release, model, to):
                state = m.apply(state, m.Reached(release, model, to))
            case m.Swap(release):
                state = m.apply(state, m.Swapped(release, state.running))
            case m.Reject(release, reason):
                state = m.apply(state, m.Rejected(release, reason))
            case m.GoBack(release, reason):
                state = m.apply(state, m.WentBack(release, reason, state.kept))
            case m.Unload(release):
                state = m.apply(state, m.Unloaded(release))
            case m.Reload(release):
                state = m.apply(state, m.Reloaded(release, release))
            case _:
                return state


def test_a_release_takes_every_stage_of_every_model_and_then_serves() -> None:
    state, steps = start(), []
    while True:
        action = m.decide(state)
        match action:
            case m.Fetch(release):
                state = m.apply(state, m.Fetched(release, KEYS))
                steps.append("fetch")
            case m.Advance(release, model, to):
                state = m.apply(state, m.Reached(release, model, to))
                steps.append(f"{to.name} {model[0]}")
            case m.Swap(release):
                state = m.apply(state, m.Swapped(release))
                steps.append("swap")
            case _:
                break
    assert steps == [
        "fetch",
        *(f"{stage.name} {key[0]}" for stage in tuple(m.Stage)[1:] for key in KEYS),
        "swap",
    ]
    assert state.running == ONE
    assert m.condition(state) == "active"


def test_a_release_without_models_serves_nothing_at_once() -> None:
    state = m.apply(start(), m.Fetched(ONE, ()))
    assert m.decide(state) == m.Swap(ONE)


def test_without_a_pointer_there_is_nothing_to_do() -> None:
    state = m.State(device="cam-07")
    assert m.decide(state) == m.Rest()
    assert m.condition(state) == "idle"


@pytest.mark.parametrize(
    "offer,message",
    [
        (pointer(1, TWO), "older"),
        (pointer(9, TWO, fleet=OTHER_FLEET), "another fleet"),
        (pointer(2, TWO), "two different pointers"),
        (pointer(9, TWO, expires=NOW - timedelta(seconds=1)), "expired"),
    ],
)
def test_pointers_that_break_the_rules_are_refused(offer: Pointer, message: str) -> None:
    held = offered(m.State(device="cam-07"), pointer(2))
    with pytest.raises(DocumentError, match=message):
        offered(held, offer)


def test_a_device_enrolled_in_a_fleet_refuses_the_first_pointer_of_another() -> None:
    with pytest.raises(DocumentError, match="another fleet"):
        offered(m.State(device="cam-07", fleet=OTHER_FLEET), pointer(1))


def test_a_held_pointer_that_expires_goes_on_counting() -> None:
    held = offered(m.State(device="a"), pointer(2, expires=NOW + timedelta(seconds=1)))
    later = m.offer(
        held, pointer(2, expires=NOW + timedelta(seconds=1)), now=NOW + timedelta(days=1)
    )
    assert later == held


@pytest.mark.parametrize("permille,wanted", [(0, ONE), (1000, TWO)])
def test_the_next_release_is_wanted_by_its_cohort(permille: int, wanted: str) -> None:
    ahead = Next(release=TWO, cohort=Cohort(salt="wave", permille=permille))
    state = offered(m.State(device="cam-07"), pointer(1, next=ahead))
    assert state.wanted == wanted


def test_a_failed_release_is_rejected_once_and_the_old_one_stays() -> None:
    state = finished(start())
    state = offered(state, pointer(2, TWO))
    state = m.apply(state, m.Failed(TWO, "broken"))
    assert m.decide(state) == m.Reject(TWO, "broken")
    state = finished(state)
    assert state.running == ONE
    assert m.condition(state) == "rejected"
    assert m.decide(m.apply(state, m.Retry())) == m.Rest()
    assert m.decide(offered(state, pointer(3, TWO))) == m.Fetch(TWO)


def test_what_waits_goes_on_when_something_outside_changed() -> None:
    state = m.apply(start(), m.Failed(ONE, "no network", waits=True))
    assert m.decide(state) == m.Wait("no network")
    assert m.condition(state) == "waiting"
    assert m.decide(m.apply(state, m.Retry())) == m.Fetch(ONE)


def test_a_waiting_release_keeps_how_far_it_got() -> None:
    state = m.apply(m.apply(start(), m.Fetched(ONE, KEYS)), m.Failed(ONE, "no room", waits=True))
    assert m.decide(m.apply(state, m.Retry())) == m.Advance(ONE, KEYS[0], m.Stage.VERIFIED)


def test_damage_is_fetched_again_but_not_for_ever() -> None:
    state = start()
    for _ in range(m.MAX_REPAIRS):
        state = m.apply(state, m.Fetched(ONE, KEYS))
        state = m.apply(state, m.Damaged(ONE, "weights.bin is damaged"))
        assert m.decide(state) == m.Fetch(ONE)
    state = m.apply(state, m.Damaged(ONE, "weights.bin is damaged"))
    assert m.decide(state) == m.Reject(ONE, "weights.bin is damaged")


def test_the_release_that_was_kept_comes_back_without_another_step() -> None:
    state = finished(offered(finished(start()), pointer(2, TWO)))
    assert (state.running, state.kept) == (TWO, ONE)
    state = offered(state, pointer(3, ONE))
    assert m.decide(state) == m.Swap(ONE)
    assert m.decide(m.apply(state, m.Unkept())) == m.Fetch(ONE)


def test_a_release_that_breaks_its_budget_is_taken_back_and_rejected() -> None:
    state = finished(offered(finished(start()), pointer(2, TWO)))
    state = m.apply(state, m.Broke(TWO, "too slow"))
    assert m.decide(state) == m.GoBack(TWO, "too slow")
    state = m.apply(state, m.WentBack(TWO, "too slow", ONE))
    assert (state.running, state.kept, state.rejected) == (ONE, None, (TWO, "too slow"))
    assert m.condition(state) == "rejected"
    assert m.decide(m.apply(state, m.Retry())) == m.Rest()
    assert m.decide(offered(state, pointer(3, TWO))) == m.Fetch(TWO)


def test_a_release_that_is_ordered_back_goes_and_stays_away_until_a_newer_pointer() -> None:
    state = finished(offered(finished(start()), pointer(2, TWO)))
    order = order_of(TWO)
    state = m.apply(state, m.Ordered(order))
    assert m.decide(state) == m.GoBack(TWO, str(order))
    state = m.apply(state, m.WentBack(TWO, str(order), ONE))
    assert (state.running, state.order, m.condition(state)) == (ONE, order, "rejected")
    assert m.decide(state) == m.Rest()
    state = offered(state, pointer(3, TWO))
    assert state.order is None
    assert m.condition(finished(state)) == "active"


def test_a_release_on_its_way_that_is_ordered_back_is_rejected() -> None:
    state = offered(finished(start()), pointer(2, TWO))
    order = order_of(TWO)
    assert m.decide(m.apply(state, m.Ordered(order))) == m.Reject(TWO, str(order))


def test_with_nothing_to_go_back_to_the_release_goes_on() -> None:
    state = m.apply(finished(start()), m.Broke(ONE, "too slow"))
    state = m.apply(state, m.WentBack(ONE, "too slow", None))
    assert (state.running, m.decide(state)) == (ONE, m.Rest())


def test_a_broken_budget_does_not_reject_what_is_wanted_by_now() -> None:
    state = finished(offered(finished(start()), pointer(2, TWO)))
    state = offered(state, pointer(3, THREE))
    state = m.apply(m.apply(state, m.Broke(TWO, "slow")), m.WentBack(TWO, "slow", ONE))
    assert (state.running, m.decide(state)) == (ONE, m.Fetch(THREE))


def alone() -> m.State:
    """A release that fits into memory only alone, while another one runs."""
    state = m.apply(offered(finished(start()), pointer(2, TWO)), m.Fetched(TWO, KEYS, alone=True))
    for key in KEYS:
        assert m.decide(state) == m.Advance(TWO, key, m.Stage.VERIFIED)
        state = m.apply(state, m.Reached(TWO, key, m.Stage.VERIFIED))
    return state


def test_a_release_that_fits_only_alone_unloads_the_other_once_its_files_are_verified() -> None:
    state = alone()
    assert m.decide(state) == m.Unload(TWO)
    state = m.apply(state, m.Unloaded(TWO))
    assert (state.running, state.parked) == (None, ONE)
    assert m.decide(state) == m.Advance(TWO, KEYS[0], m.Stage.LOADED)
    state = finished(state)
    assert (state.running, state.kept, state.parked) == (TWO, None, None)


@pytest.mark.parametrize("waits", [False, True])
def test_the_release_that_made_room_comes_back_when_the_new_one_cannot_go_on(
    *, waits: bool
) -> None:
    state = m.apply(m.apply(alone(), m.Unloaded(TWO)), m.Failed(TWO, "no", waits=waits))
    if not waits:
        assert m.decide(state) == m.Reject(TWO, "no")
        state = m.apply(state, m.Rejected(TWO, "no"))
    assert m.decide(state) == m.Reload(ONE)
    state = m.apply(state, m.Reloaded(ONE, ONE))
    assert state.running == ONE
    assert m.condition(state) == ("waiting" if waits else "rejected")


def test_the_release_that_made_room_comes_back_when_it_is_wanted_again() -> None:
    state = offered(m.apply(alone(), m.Unloaded(TWO)), pointer(3, ONE))
    assert m.decide(state) == m.Reload(ONE)
    assert m.condition(m.apply(state, m.Reloaded(ONE, ONE))) == "active"


def test_news_of_a_release_that_is_no_longer_wanted_changes_nothing() -> None:
    state = offered(start(), pointer(2, TWO))
    for event in (
        m.Fetched(ONE, KEYS),
        m.Reached(ONE, KEYS[0], m.Stage.VERIFIED),
        m.Failed(ONE, "late"),
        m.Damaged(ONE, "late"),
        m.Rejected(ONE, "late"),
        m.Swapped(ONE),
    ):
        assert m.apply(state, event) == state


def test_stages_cannot_be_skipped() -> None:
    state = m.apply(start(), m.Fetched(ONE, KEYS))
    assert m.apply(state, m.Reached(ONE, KEYS[0], m.Stage.TESTED)) == state


class Reconciling(RuleBasedStateMachine):
    """Pointers, successes, failures and stale news in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.state = m.State(device="cam-07")
        self.highest = (0, 0)
        self.tested: dict[str, set[m.Key]] = {}
        self.complete: set[str] = set()
        self.before: str | None = None
        self.lost = False
        self.rejected: tuple[tuple[int, int], str] | None = None

    @rule(
        number=st.integers(1, 12),
        current=st.sampled_from(RELEASES),
        ahead=st.none() | st.tuples(st.sampled_from(RELEASES), st.integers(0, 1000)),
        fleet=st.sampled_from([FLEET, FLEET, FLEET, OTHER_FLEET]),
    )
    def point(self, number: int, current: str, ahead: tuple[str, int] | None, fleet: str) -> None:
        following = ahead and Next(release=ahead[0], cohort=Cohort(salt="s", permille=ahead[1]))
        offer = pointer(number, current, fleet=fleet, next=following)
        before = self.state
        try:
            self.state = offered(before, offer)
        except DocumentError:
            assert self.state == before
        assert self.state.running == before.running
        if self.state.pointer != before.pointer:
            assert self.state.pointer is not None
            assert self.state.pointer.pair > self.highest
            assert before.pointer is None or self.state.pointer.fleet == before.pointer.fleet
            self.highest = self.state.pointer.pair
            self.rejected = None

    @rule(
        outcome=st.sampled_from(["works", "works", "works", "works", "fails", "waits", "damaged"])
    )
    def act(self, outcome: str) -> None:
        before, action = self.state, m.decide(self.state)
        if isinstance(action, m.Rest | m.Wait):
            return
        if isinstance(action, m.Reload):
            assert before.running is None
            running = action.release if outcome != "fails" else None
            self.lost = running is None
            self.state = m.apply(before, m.Reloaded(action.release, running))
            assert self.state.running == running
            return
        if isinstance(action, m.GoBack):
            self.go_back(action, found=outcome == "works")
            return
        assert action.release == before.wanted
        assert (self.highest, action.release) != self.rejected
        if isinstance(action, m.Reject):
            self.state = m.apply(before, m.Rejected(action.release, action.reason))
            self.rejected = (self.highest, action.release)
            rest = m.Rest() if before.parked is None else m.Reload(before.parked)
            assert m.decide(self.state) == rest
        elif outcome == "works":
            self.works(action)
        elif outcome == "damaged":
            self.state = m.apply(before, m.Damaged(action.release, "damaged"))
        else:
            self.state = m.apply(before, m.Failed(action.release, "no", waits=outcome == "waits"))
        if not isinstance(action, m.Swap | m.Unload):
            assert self.state.running == before.running

    def works(self, action: m.Fetch | m.Advance | m.Swap | m.Unload) -> None:
        match action:
            case m.Unload(release):
                self.state = m.apply(self.state, m.Unloaded(release))
                assert self.state.running is None
                self.before = None
            case m.Fetch(release):
                self.tested[release] = set()
                self.state = m.apply(self.state, m.Fetched(release, KEYS, release == THREE))
            case m.Advance(release, model, to):
                if to is m.Stage.TESTED:
                    self.tested[release].add(model)
                self.state = m.apply(self.state, m.Reached(release, model, to))
            case m.Swap(release):
                assert self.tested[release] == set(KEYS)
                self.complete.add(release)
                self.before, self.lost = self.state.running, False
                self.state = m.apply(self.state, m.Swapped(release, self.state.running))

    def go_back(self, action: m.GoBack, *, found: bool) -> None:
        before, to = self.state, self.before if found else None
        assert action.release == before.running
        self.state = m.apply(before, m.WentBack(action.release, action.reason, to))
        assert self.state.running == (to or before.running)
        assert self.state.broken is None
        if to is not None:
            self.before = None
            if action.release == before.wanted:
                self.rejected = (self.highest, action.release)
                assert m.decide(self.state) == m.Rest()

    @rule(release=st.sampled_from(RELEASES))
    def breaks(self, release: str) -> None:
        before, self.state = self.state, m.apply(self.state, m.Broke(release, "slow"))
        if release != before.running:
            assert self.state == before

    @rule(release=st.sampled_from(RELEASES))
    def orders(self, release: str) -> None:
        before = self.state
        self.state = m.apply(before, m.Ordered(order_of(release)))
        assert self.state.running == before.running
        if release != before.wanted or (before.rejected or ("",))[0] == release:
            assert self.state == before
        elif before.running or before.parked:
            assert not isinstance(m.decide(self.state), m.Rest | m.Wait | m.Fetch | m.Swap)

    @rule(release=st.sampled_from(RELEASES), key=st.sampled_from(KEYS))
    @precondition(lambda self: self.state.pointer is not None)
    def stale(self, release: str, key: m.Key) -> None:
        if release == self.state.wanted:
            return
        for event in (
            m.Swapped(release),
            m.Failed(release, "stale"),
            m.Reached(release, key, m.Stage.TESTED),
        ):
            assert m.apply(self.state, event) == self.state

    @rule()
    def retry(self) -> None:
        self.state = m.apply(self.state, m.Retry())

    @rule()
    def unkept(self) -> None:
        self.state = m.apply(self.state, m.Unkept())

    @invariant()
    def what_runs_was_tested(self) -> None:
        assert self.state.running is None or self.state.running in self.complete

    @invariant()
    def something_runs_or_can_be_loaded_again(self) -> None:
        if self.complete and not self.lost:
            assert (self.state.running is None) != (self.state.parked is None)

    @invariant()
    def the_report_says_active_only_of_what_is_wanted(self) -> None:
        if m.condition(self.state) == "active":
            assert self.state.running == self.state.wanted

    def teardown(self) -> None:
        if self.state.pointer is None:
            return
        self.state = finished(m.apply(self.state, m.Retry()))
        rejected = self.state.rejected is not None
        assert self.state.running == self.state.wanted or rejected


TestReconciling = Reconciling.TestCase
