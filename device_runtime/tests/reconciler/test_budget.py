"""A release on trial that breaks its budget is taken back by the device itself, at once."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.tests.reconciler.rig import Rig, serving
from device_runtime.tests.support import FakeModel, X
from edgefleet.errors import InferenceError, InvalidInputError
from edgefleet.protocol.release import Budget, RuntimeSettings
from edgefleet_runtime.reconciler.budget import Window

ERRORS = Budget(max_error_share=0.1, window=20)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def on_trial(rig: Rig, budget: Budget = ERRORS, *, keep: bool = True) -> str:
    """Let a release with a budget serve after one that is good; returns its digest."""
    serving(rig)
    rig.clock.now += 60
    rig.settle()
    settings = RuntimeSettings(budget=budget, keep_previous=keep)
    digests = {"digits": rig.repository.fake(3)}
    release = rig.repository.release(digests, version="2", settings=settings)
    rig.deploy(release)
    assert rig.factor() == 3
    return release


def fail(rig: Rig, times: int, error: type[Exception] = InferenceError) -> None:
    """Let requests fail, as the models that are open do from now on."""

    def infer(self: FakeModel, *_: object) -> None:
        raise error("the model fails")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeModel, "infer", infer)
        for _ in range(times):
            with pytest.raises(error):
                rig.infer()


def test_errors_within_the_budget_change_nothing(rig: Rig) -> None:
    release = on_trial(rig)
    fail(rig, 2)
    rig.settle()
    assert rig.driver.state.running == release


def test_more_errors_than_the_budget_bring_the_release_before_back(rig: Rig) -> None:
    release = on_trial(rig)
    fail(rig, 3)
    rig.settle()
    assert rig.factor() == 2
    assert rig.condition == "rejected"
    model = rig.model("2")
    assert model.state == "rejected"
    assert model.reason == (
        "broke its budget on trial: 3 of its last 4 requests failed, the budget allows 10.00% of 20"
    )
    assert (model.inferences, model.failures) == (1, 3)
    assert rig.model("1").state == "active"
    assert rig.told[-1].what == "release-rejected"
    assert release[:14] in rig.told[-1].message.replace("release ", "release sha256:")


def test_the_reconciler_is_woken_by_the_request_that_breaks_the_budget(rig: Rig) -> None:
    on_trial(rig)
    rig.channel.changed = False
    fail(rig, 2)
    assert not rig.channel.changed
    fail(rig, 1)
    assert rig.channel.changed


def test_going_back_takes_less_than_100_ms(rig: Rig) -> None:
    on_trial(rig)
    fail(rig, 3)
    start = time.thread_time()  # what others do on this machine doesn't count
    rig.driver.poll()
    took_s = time.thread_time() - start
    assert rig.factor() == 2
    assert took_s < 0.1


def test_a_release_that_was_taken_back_stays_rejected_over_restarts(rig: Rig) -> None:
    on_trial(rig)
    fail(rig, 3)
    rig.settle()
    again = rig.restarted()
    again.settle()
    assert again.factor() == 2
    assert again.condition == "rejected"
    assert "broke its budget" in again.driver.errors[0]


def test_a_newer_pointer_gives_it_another_chance(rig: Rig) -> None:
    release = on_trial(rig)
    fail(rig, 3)
    rig.settle()
    rig.deploy(release)
    assert (rig.factor(), rig.condition) == (3, "active")


def test_without_a_kept_release_the_last_good_one_is_loaded_from_the_disk(rig: Rig) -> None:
    on_trial(rig, keep=False)
    fail(rig, 3)
    rig.settle()
    assert (rig.factor(), rig.condition) == (2, "rejected")


def test_after_a_restart_the_trial_goes_on_and_the_disk_has_the_good_one(rig: Rig) -> None:
    on_trial(rig)
    again = rig.restarted()
    assert again.factor() == 3
    fail(again, 3)
    again.settle()
    assert (again.factor(), again.condition) == (2, "rejected")


def test_the_first_release_of_all_goes_on_and_says_why(rig: Rig) -> None:
    settings = RuntimeSettings(budget=ERRORS)
    rig.deploy(rig.repository.release({"digits": rig.repository.fake(3)}, settings=settings))
    fail(rig, 3)
    rig.settle()
    assert (rig.factor(), rig.condition) == (3, "active")
    assert "there is none to go back to" in rig.driver.errors[0]


def test_slow_answers_break_a_latency_budget(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    on_trial(rig, Budget(max_p99_us=0.001, window=50))
    rig.infer()
    rig.settle()
    assert rig.factor() == 2
    assert "took longer than 0 us, the slowest" in (rig.model("2").reason or "")


def test_requests_that_ask_wrongly_do_not_count(rig: Rig) -> None:
    on_trial(rig)
    fail(rig, 10, InvalidInputError)
    rig.settle()
    assert rig.factor() == 3


def test_a_model_that_served_before_is_not_judged_again(rig: Rig) -> None:
    same = rig.repository.fake(2)
    rig.deploy(rig.repository.release({"digits": same}))
    settings = RuntimeSettings(budget=ERRORS)
    models = {"digits": same, "faces": rig.repository.fake(5)}
    release = rig.repository.release(models, settings=settings)
    rig.deploy(release)
    fail(rig, 10)
    rig.settle()
    assert rig.driver.state.running == release


def test_after_its_trial_a_release_is_left_alone(rig: Rig) -> None:
    release = on_trial(rig, Budget(max_error_share=0.0, trial_s=300))
    rig.clock.now += 299
    rig.settle()
    assert rig.driver.memory.good != release
    rig.clock.now += 2
    rig.settle()
    assert rig.driver.memory.good == release
    fail(rig, 10)
    rig.settle()
    assert rig.factor() == 3


def test_requests_from_many_threads_take_a_release_back_once(rig: Rig) -> None:
    on_trial(rig)
    barrier = threading.Barrier(4)

    def ask() -> None:
        barrier.wait(90)
        for _ in range(25):
            with rig.table.lease("digits") as served, pytest.raises(KeyError):
                served.infer({"other": X})

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rig.settle()
    assert rig.factor() == 2
    assert [event.what for event in rig.told].count("release-rejected") == 1


runs = st.lists(st.tuples(st.booleans(), st.floats(0, 2000)), max_size=60)


@given(
    runs,
    st.none() | st.floats(0, 1),
    st.none() | st.floats(1, 2000),
    st.integers(1, 20),
)
def test_a_window_says_what_counting_its_last_requests_says(
    requests: list[tuple[bool, float]], share: float | None, limit: float | None, size: int
) -> None:
    window = Window(Budget(max_error_share=share, max_p99_us=limit, window=size))
    for number, (failed, elapsed) in enumerate(requests, 1):
        last = requests[max(0, number - size) : number]
        failures = sum(bad for bad, _ in last)
        slow = sum(limit is not None and not bad and took > limit for bad, took in last)
        due = (share is not None and failures > share * size) or slow > 0.01 * size
        assert (window.count(elapsed, failed=failed) is not None) == due
