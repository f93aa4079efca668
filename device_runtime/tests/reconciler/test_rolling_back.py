"""An operator orders a release back: the device serves the one before until a higher pointer."""

from __future__ import annotations

import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from device_runtime.tests.reconciler.rig import Rig, serving
from edgefleet.errors import ConflictError, NotFoundError
from edgefleet.protocol.orders import RollbackAnswer
from edgefleet.protocol.release import RuntimeSettings
from edgefleet_runtime.reconciler.memory import FILE


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def two(rig: Rig, *, keep_previous: bool = True) -> tuple[str, str]:
    """Let a second release serve after a first one; returns their digests."""
    first, made = serving(rig), rig.repository.fake(3)
    settings = RuntimeSettings(keep_previous=keep_previous)
    second = rig.repository.release({"digits": made}, version="2", settings=settings)
    rig.deploy(second)
    assert rig.factor() == 3
    return first, second


def ordered(rig: Rig) -> Future[RollbackAnswer]:
    return rig.driver.roll_back(by="ada", reason="it sees ghosts")


def rolled_back(rig: Rig) -> RollbackAnswer:
    answer = ordered(rig)
    rig.settle()
    return answer.result(0)


def test_the_release_before_serves_again_without_being_loaded(rig: Rig) -> None:
    first, second = two(rig)
    opened = len(rig.engine.opened)
    answer = rolled_back(rig)
    assert (rig.factor(), rig.condition, len(rig.engine.opened)) == (2, "rejected", opened)
    assert (answer.changed, answer.wanted, answer.running) == (True, second, first)
    assert answer.rolled_back is not None
    assert (answer.rolled_back.by, answer.rolled_back.reason) == ("ada", "it sees ghosts")
    assert answer.remembered
    assert rig.driver.state.pointer is not None
    assert (answer.epoch, answer.number) == rig.driver.state.pointer.pair


def test_following_it_takes_less_than_100_ms(rig: Rig) -> None:
    two(rig)
    answer = ordered(rig)
    start = time.thread_time()  # what others do on this machine doesn't count
    rig.driver.poll()
    took_s = time.thread_time() - start
    assert answer.done()
    assert took_s < 0.1


def test_it_is_followed_before_the_channel_is_asked_anything(rig: Rig) -> None:
    two(rig)
    answer = ordered(rig)
    rig.channel.latest = b"garbage"  # read after it
    rig.driver.poll()
    assert answer.done()
    assert rig.factor() == 2


def test_the_rejected_models_and_an_event_say_who_and_why(rig: Rig) -> None:
    two(rig)
    rolled_back(rig)
    model = rig.model("2")
    assert model.state == "rejected"
    assert "was rolled back on this device by ada at" in (model.reason or "")
    assert (model.reason or "").endswith("UTC: it sees ghosts")
    assert rig.told[-1].what == "release-rolled-back"


def test_it_holds_over_restarts(rig: Rig) -> None:
    two(rig)
    order = rolled_back(rig).rolled_back
    again = rig.restarted()
    again.settle()
    assert (again.factor(), again.condition) == (2, "rejected")
    assert again.driver.state.order == order


def test_the_same_again_changes_nothing(rig: Rig) -> None:
    two(rig)
    first = rolled_back(rig)
    again = rig.driver.roll_back(by="bob", reason="me too")
    rig.settle()
    second = again.result(0)
    assert (second.changed, second.rolled_back) == (False, first.rolled_back)
    assert rig.factor() == 2


def test_orders_that_come_together_are_one(rig: Rig) -> None:
    two(rig)
    answers = [ordered(rig), ordered(rig)]
    rig.settle()
    assert [answer.result(0).changed for answer in answers] == [True, False]


def test_a_higher_pointer_ends_it_even_to_the_same_release(rig: Rig) -> None:
    _, second = two(rig)
    rolled_back(rig)
    rig.deploy(second)
    assert (rig.factor(), rig.condition) == (3, "active")
    assert rig.driver.state.order is None
    again = rig.restarted()
    again.settle()
    assert (again.factor(), again.condition) == (3, "active")


def test_it_works_after_a_restart_from_the_disk_alone(rig: Rig) -> None:
    two(rig)
    rig.clock.now += 30
    rig.settle()  # the second one counts as good
    again = rig.restarted()
    again.settle()
    again.repository.source.joinpath("blobs").rename(again.root / "unplugged")
    assert rolled_back(again).changed
    assert again.factor() == 2


def test_it_works_where_the_release_before_is_not_kept_loaded(rig: Rig) -> None:
    two(rig, keep_previous=False)
    assert rolled_back(rig).changed
    assert rig.factor() == 2


def test_without_a_release_before_it_is_refused_and_the_trial_goes_on(rig: Rig) -> None:
    release = serving(rig)
    answer = ordered(rig)
    rig.settle()
    with pytest.raises(NotFoundError, match="no release ran on this device before") as caught:
        answer.result(0)
    assert "edgefleet rollback" in str(caught.value.cure)
    assert (rig.factor(), rig.condition, rig.driver.errors) == (2, "active", ())
    rig.clock.now += 30
    rig.settle()
    assert rig.driver.memory.good == release


def test_without_a_pointer_it_is_refused(rig: Rig) -> None:
    answer = ordered(rig)
    rig.settle()
    with pytest.raises(NotFoundError, match="no pointer"):
        answer.result(0)


def test_a_release_before_that_is_damaged_leaves_what_serves(rig: Rig) -> None:
    two(rig, keep_previous=False)
    kept = rig.repository.fake(2).blobs("fp32")
    for blob in kept:
        (rig.root / "blobs" / "sha256" / blob.digest.partition(":")[2]).unlink(missing_ok=True)
    answer = ordered(rig)
    rig.settle()
    with pytest.raises(NotFoundError, match="can't be loaded any more"):
        answer.result(0)
    assert (rig.factor(), rig.condition) == (3, "active")
    assert rig.model("2").reason is None
    assert rig.driver.state.order is None


def test_a_release_on_its_way_is_given_up_and_not_tried_again(rig: Rig) -> None:
    serving(rig)
    release = rig.repository.release({"digits": rig.repository.fake(3)}, version="2")
    rig.channel.offer(rig.repository.pointer(release))
    rig.driver.poll()
    rig.driver.step()  # it is fetched
    assert rolled_back(rig).changed
    assert (rig.factor(), rig.condition) == (2, "rejected")
    again = rig.restarted()
    again.settle()
    assert (again.factor(), again.condition) == (2, "rejected")


def test_a_release_that_was_rejected_by_itself_stays_so(rig: Rig) -> None:
    first = serving(rig)
    broken = rig.repository.fake(3, broken=True)
    rig.deploy(rig.repository.release({"digits": broken}, version="2"))
    answer = rolled_back(rig)
    assert (answer.changed, answer.running, answer.rolled_back) == (False, first, None)


def test_a_withdrawn_order_is_not_followed(rig: Rig) -> None:
    two(rig)
    assert ordered(rig).cancel()
    rig.settle()
    assert (rig.factor(), rig.condition) == (3, "active")


def test_a_newer_pointer_that_comes_first_ends_the_order(rig: Rig) -> None:
    two(rig, keep_previous=False)
    release = rig.repository.release({"digits": rig.repository.fake(4)}, version="3")
    answer = ordered(rig)
    rig.channel.offer(rig.repository.pointer(release))
    rig.driver.poll()  # breaks the loading off, and reads the pointer
    with pytest.raises(ConflictError, match="came meanwhile"):
        answer.result(0)
    rig.settle()
    assert (rig.factor(), rig.condition) == (4, "active")


def test_a_full_disk_rolls_back_and_says_that_it_forgets(rig: Rig) -> None:
    two(rig)
    (rig.root / f".{FILE}.partial").symlink_to("/dev/full")
    answer = rolled_back(rig)
    assert (answer.changed, answer.remembered) == (True, False)
    assert rig.factor() == 2


def test_what_was_rolled_back_is_not_what_a_restart_serves(rig: Rig) -> None:
    first, _ = two(rig)
    rolled_back(rig)
    assert rig.driver.memory.running == first
    assert rig.driver.memory.previous is None
