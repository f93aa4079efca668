"""An operator has variants measured that no release names: beside what serves, leaving nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from device_runtime.tests.reconciler.rig import Rig, serving
from device_runtime.tests.support import MemoryChannel, Repository
from edgefleet.errors import ConflictError, LimitExceededError, NotFoundError
from edgefleet.protocol.orders import TrialAnswer, TrialOrder
from edgefleet.protocol.release import RuntimeSettings

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet.protocol.layout import BundleLayout

ORDER = "order-0001"


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    rig = Rig(tmp_path)
    serving(rig)
    return rig


def candidates(repository: Repository, **faults: Any) -> BundleLayout:
    """A bundle of two variants; what is said of ``int8`` goes for that one."""
    return repository.choice(
        {"factor": 7.0, "precision": "fp32"}, {"factor": 7.0, "precision": "int8", **faults}
    )


def ordered(rig: Rig, bundle: BundleLayout, **more: Any) -> TrialAnswer:
    return rig.driver.try_out(TrialOrder(id=ORDER, bundle=bundle.digest, **more))


def told(rig: Rig) -> TrialAnswer:
    return rig.driver.try_out(TrialOrder(id=ORDER))


def turn(rig: Rig) -> bool:
    """One turn, after the release that serves has come to count as good."""
    rig.clock.now += 30.0
    rig.driver.poll()
    return rig.driver.step() or rig.driver.improve()


def until_measuring(rig: Rig, number: int = 1) -> None:
    """Turn until so many measurements were begun."""
    for _ in range(50):
        if len(rig.tryouts) == number:
            return
        turn(rig)
    raise AssertionError(f"nothing is measured: {told(rig)}")


def until_over(rig: Rig) -> TrialAnswer:
    for _ in range(50):
        if told(rig).over:
            return told(rig)
        turn(rig)
        for tryout in rig.tryouts:
            tryout.ready = True
    raise AssertionError(f"never over: {told(rig)}")


def blobs(rig: Rig) -> frozenset[str]:
    folders = [path.name for path in (rig.root / "materialized").iterdir()]
    return rig.store.have() | rig.store.begun() | frozenset(folders)


def test_every_variant_is_tested_and_timed_in_order(rig: Rig) -> None:
    assert ordered(rig, candidates(rig.repository)).state == "waiting"
    answer = until_over(rig)
    assert (answer.state, answer.machine) == ("done", "this machine")
    assert [found.variant for found in answer.figures] == ["fp32", "int8"]
    for found in answer.figures:
        assert (found.outcome, found.providers) == ("measured", ("FakeExecutionProvider",))
        assert found.self_test is not None
        assert found.self_test.passed
        assert found.calls == 200
        assert found.p50_us is not None
        assert found.p99_us is not None
        assert found.p50_us <= found.p99_us


def test_only_the_variants_named_are_tried(rig: Rig) -> None:
    ordered(rig, candidates(rig.repository), variants=("int8",))
    assert [found.variant for found in until_over(rig).figures] == ["int8"]


def test_what_serves_goes_on_and_nothing_is_left(rig: Rig) -> None:
    before = blobs(rig)
    bundle = candidates(rig.repository)
    ordered(rig, bundle)
    until_measuring(rig)
    assert bundle.digest in blobs(rig)
    assert rig.factor() == 2
    until_over(rig)
    assert (blobs(rig), rig.factor()) == (before, 2)


def test_what_a_release_has_of_it_stays(rig: Rig) -> None:
    bundle = candidates(rig.repository)
    rig.deploy(rig.repository.release({"digits": bundle}, version="2"))
    before = blobs(rig)
    ordered(rig, bundle)
    assert until_over(rig).state == "done"
    assert blobs(rig) == before
    assert rig.factor() == 7


def test_a_variant_waits_until_the_one_before_is_gone(rig: Rig) -> None:
    ordered(rig, candidates(rig.repository))
    until_measuring(rig)
    first = blobs(rig)
    rig.tryouts[0].ready = True
    until_measuring(rig, 2)
    assert len(blobs(rig)) == len(first)
    assert told(rig).variant == "int8"


def test_it_waits_until_the_release_that_serves_counts_as_good(rig: Rig) -> None:
    ordered(rig, candidates(rig.repository))
    rig.driver.poll()
    assert not rig.driver.improve()
    assert told(rig).state == "waiting"


@pytest.mark.parametrize(
    "faults, reason",
    [
        ({"broken": True}, "the file is broken"),
        ({"raises": True}, "the engine's own trouble"),
        ({"fails": True}, "the model fails"),
        ({"recorded": 8.0}, "out of tolerance"),
    ],
)
def test_a_variant_that_does_not_work_is_told_and_the_rest_go_on(
    rig: Rig, faults: dict[str, Any], reason: str
) -> None:
    ordered(rig, candidates(rig.repository, **faults), variants=("int8", "fp32"))
    answer = until_over(rig)
    failed, measured = answer.figures
    assert (answer.state, failed.outcome, measured.outcome) == ("done", "failed", "measured")
    assert reason in failed.reason


def test_a_variant_without_an_engine_is_skipped_and_not_fetched(rig: Rig) -> None:
    bundle = rig.repository.bundle_of(
        [({"model.json": b"x" * 5000}, candidates(rig.repository).details("fp32"), "fp32", ())],
        model_format="tflite",
    )
    before = rig.fetcher.bytes_fetched
    ordered(rig, bundle)
    (found,) = until_over(rig).figures
    assert found.outcome == "skipped"
    assert "tflite" in found.reason
    assert rig.fetcher.bytes_fetched - before < 5000


def large(repository: Repository) -> BundleLayout:
    return repository.choice({"factor": 7.0, "precision": "fp32", "padding": "x" * 100_000})


@pytest.mark.parametrize("who", ["the order", "the device"])
def test_a_variant_that_costs_more_bytes_than_allowed_is_skipped(tmp_path: Path, who: str) -> None:
    rig = Rig(tmp_path, trial_max_bytes=50_000 if who == "the device" else None)
    serving(rig)
    before = rig.fetcher.bytes_fetched
    ordered(rig, large(rig.repository), max_bytes=None if who == "the device" else 50_000)
    (found,) = until_over(rig).figures
    assert found.outcome == "skipped"
    assert "bytes to fetch" in found.reason
    assert rig.fetcher.bytes_fetched - before < 50_000


def test_a_device_that_may_fetch_nothing_for_trials_fetches_nothing(tmp_path: Path) -> None:
    rig = Rig(tmp_path, trial_max_bytes=0)
    serving(rig)
    before = rig.fetcher.bytes_fetched
    ordered(rig, candidates(rig.repository))
    answer = until_over(rig)
    assert (answer.state, answer.figures) == ("failed", ())
    assert "--trial-bytes" in answer.reason
    assert rig.fetcher.bytes_fetched == before


def test_a_variant_that_does_not_fit_into_memory_beside_what_serves_is_skipped(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path, memory_max_bytes=100_000)
    serving(rig)
    ordered(rig, large(rig.repository))
    (found,) = until_over(rig).figures
    assert found.outcome == "skipped"
    assert "bytes of memory" in found.reason
    assert rig.tryouts == []


def test_a_variant_that_does_not_fit_under_the_stores_cap_is_skipped(tmp_path: Path) -> None:
    rig = Rig(tmp_path, store_max_bytes=50_000)
    serving(rig)
    ordered(rig, large(rig.repository))
    (found,) = until_over(rig).figures
    assert found.outcome == "skipped"
    assert "do not fit into the store" in found.reason


def test_the_same_order_again_begins_nothing(rig: Rig) -> None:
    bundle = candidates(rig.repository)
    ordered(rig, bundle)
    done = until_over(rig)
    assert ordered(rig, bundle) == done
    assert not turn(rig)
    assert len(rig.tryouts) == 2


def test_a_second_trial_is_refused_while_one_goes_on(rig: Rig) -> None:
    bundle = candidates(rig.repository)
    ordered(rig, bundle, by="ada")
    other = TrialOrder(id="order-0002", bundle=bundle.digest)
    with pytest.raises(LimitExceededError, match="ordered by ada, goes on"):
        rig.driver.try_out(other)
    until_over(rig)
    assert rig.driver.try_out(other).state == "waiting"


def test_a_trial_that_is_not_remembered_is_told_as_that(rig: Rig) -> None:
    with pytest.raises(NotFoundError, match="no trial order-0001 is remembered"):
        told(rig)
    with pytest.raises(NotFoundError, match="no trial is remembered"):
        rig.driver.try_out(TrialOrder())


def test_a_device_without_a_pointer_takes_none(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    with pytest.raises(ConflictError, match="no sources to fetch from"):
        ordered(rig, candidates(rig.repository))


def test_cancelled_it_ends_at_once_and_leaves_nothing(rig: Rig) -> None:
    before = blobs(rig)
    ordered(rig, candidates(rig.repository))
    until_measuring(rig)
    rig.driver.try_out(TrialOrder(id=ORDER, cancel=True, by="ada"))
    turn(rig)
    assert (told(rig).state, told(rig).reason) == ("cancelled", "by ada")
    assert rig.tryouts[0].stopped
    assert blobs(rig) == before


def test_it_ends_when_its_time_is_up(rig: Rig) -> None:
    ordered(rig, candidates(rig.repository), within_s=100.0)
    until_measuring(rig)
    for _ in range(4):
        turn(rig)
    assert told(rig).state == "failed"
    assert "within 100 seconds" in told(rig).reason
    assert rig.tryouts[0].stopped


def test_a_new_release_goes_first_and_the_variant_in_hand_begins_anew(rig: Rig) -> None:
    ordered(rig, candidates(rig.repository))
    until_measuring(rig)
    release = rig.repository.release({"digits": rig.repository.fake(3)}, version="2")
    rig.deploy(release)
    assert rig.factor() == 3
    assert rig.tryouts[0].stopped
    answer = until_over(rig)
    assert [found.variant for found in answer.figures] == ["fp32", "int8"]
    assert rig.tryouts[1].request.variant == "fp32"
    assert rig.factor() == 3


def test_a_rollback_goes_first(rig: Rig) -> None:
    rig.deploy(rig.repository.release({"digits": rig.repository.fake(3)}, version="2"))
    ordered(rig, candidates(rig.repository))
    until_measuring(rig)
    answer = rig.driver.roll_back(by="ada", reason="")
    rig.driver.poll()
    assert answer.done()
    assert rig.factor() == 2
    assert until_over(rig).state == "done"


def test_after_a_power_cut_it_was_interrupted_and_nothing_is_left(rig: Rig) -> None:
    turn(rig)
    before = blobs(rig)
    ordered(rig, candidates(rig.repository))
    until_measuring(rig, 1)
    rig.tryouts[0].ready = True
    until_measuring(rig, 2)
    assert blobs(rig) > before
    rig = rig.restarted()
    assert blobs(rig) == before
    assert told(rig).state == "interrupted"
    assert [found.variant for found in told(rig).figures] == ["fp32"]
    assert rig.factor() == 2
    assert rig.driver.try_out(
        TrialOrder(id="order-0002", bundle=candidates(rig.repository).digest)
    ).id


def test_what_half_came_is_cleared_after_a_power_cut(rig: Rig) -> None:
    bundle = candidates(rig.repository)
    turn(rig)
    before = blobs(rig)
    ordered(rig, bundle)
    until_measuring(rig)
    with rig.store.partial("sha256:" + "0" * 64) as partial:
        partial.write(b"half of it")
    rig = rig.restarted()
    assert blobs(rig) == before


def test_an_orderly_end_interrupts_it(rig: Rig) -> None:
    before = blobs(rig)
    ordered(rig, candidates(rig.repository))
    until_measuring(rig)
    rig.driver.close()
    assert rig.tryouts[0].stopped
    assert blobs(rig) == before
    assert told(rig.restarted()).reason == "the runtime was stopped"


def test_damage_at_the_source_fails_it_with_what_was_damaged(rig: Rig) -> None:
    bundle = candidates(rig.repository)
    rig.repository.blob(bundle.digest).write_bytes(b"damaged")
    ordered(rig, bundle)
    answer = until_over(rig)
    assert answer.state == "failed"
    assert "trial:1" in answer.reason


def test_a_variant_that_the_bundle_lacks_fails_it(rig: Rig) -> None:
    ordered(rig, candidates(rig.repository), variants=("fp64",))
    assert until_over(rig).reason == "the bundle has no variant fp64"


def test_it_fetches_before_no_one_and_waits_for_a_release_that_is_refused_access(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path, channel=MemoryChannel())
    serving(rig)
    rig.deploy(
        rig.repository.release(
            {"digits": rig.repository.fake(3)}, version="2", settings=RuntimeSettings()
        ),
        sources=["file:///nowhere"],
    )
    assert rig.condition == "waiting"
    ordered(rig, candidates(rig.repository))
    rig.driver.poll()
    assert not rig.driver.improve()
    assert told(rig).state == "waiting"
