"""A good release looks for faster variants, and for engines built for this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from device_runtime.tests.reconciler.rig import Rig
from edgefleet.errors import InferenceError
from edgefleet.protocol.release import Budget, RuntimeSettings
from edgefleet_runtime.reconciler.timings import MAX_TRIES

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet.protocol.layout import BundleLayout
    from edgefleet.protocol.report import VariantReport

SLOW = {"factor": 2, "work": 20_000, "precision": "fp32"}
QUICK = {"factor": 2, "precision": "int8", "work": 0}
ENOUGH = 1_000_000


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def deployed(
    rig: Rig, *variants: dict[str, Any], trial_bytes: int = ENOUGH, **settings: Any
) -> BundleLayout:
    """Deploy a bundle of these variants and let the device do all that it may."""
    bundle = rig.repository.choice(*variants)
    chosen = RuntimeSettings(trial_bytes=trial_bytes, **settings)
    rig.deploy(rig.repository.release({"digits": bundle}, settings=chosen))
    rig.improve()
    return bundle


def known(rig: Rig) -> dict[str, VariantReport]:
    return {variant.variant: variant for variant in rig.model().variants}


def states(rig: Rig) -> dict[str, str]:
    return {name: variant.state for name, variant in known(rig).items()}


def test_a_clearly_faster_variant_takes_over(rig: Rig) -> None:
    deployed(rig, SLOW, QUICK)
    assert rig.model().variant == "int8"
    assert "faster here than fp32: " in (rig.model().why or "")
    assert states(rig) == {"int8": "chosen", "fp32": "measured"}
    slow, quick = known(rig)["fp32"], known(rig)["int8"]
    assert slow.p50_us is not None
    assert quick.p50_us is not None
    assert slow.p50_us > 1.1 * quick.p50_us
    assert rig.factor() == 2
    assert rig.driver.errors == ()


def test_a_slower_variant_stays_out_and_is_closed(rig: Rig) -> None:
    deployed(rig, {**QUICK, "precision": "fp32"}, {**SLOW, "precision": "int8"})
    assert rig.model().variant == "fp32"
    assert states(rig) == {"fp32": "chosen", "int8": "measured"}
    assert [model.closed for model in rig.engine.opened] == [False, True]


def test_a_variant_that_stays_out_makes_room_when_it_is_needed(rig: Rig) -> None:
    bundle = deployed(rig, {**QUICK, "precision": "fp32"}, {**SLOW, "precision": "int8"})
    rig.store.max_bytes = rig.store.used_bytes()
    rig.store.make_room(1)
    assert bundle.variant("fp32").manifest.digest in rig.store
    while bundle.variant("int8").manifest.digest in rig.store:
        rig.store.make_room(1)
        rig.store.max_bytes = rig.store.used_bytes()
    assert rig.factor() == 2


def test_without_bytes_for_trials_nothing_more_is_fetched(rig: Rig) -> None:
    deployed(rig, SLOW, QUICK, trial_bytes=0)
    assert rig.model().variant == "fp32"
    assert known(rig)["int8"].reason is not None
    assert len(rig.engine.opened) == 1
    bytes_before = rig.fetcher.bytes_fetched
    rig.improve()
    assert rig.fetcher.bytes_fetched == bytes_before


def test_the_devices_own_cap_counts_beside_the_policys(tmp_path: Path) -> None:
    rig = Rig(tmp_path, trial_max_bytes=0)
    deployed(rig, SLOW, QUICK)
    assert rig.model().variant == "fp32"


def test_the_fetch_of_a_trial_stays_within_its_bytes(rig: Rig) -> None:
    """The details' size is told by the manifest only, which is fetched first."""
    bundle = rig.repository.choice(SLOW, {**QUICK, "vectors": 60})
    variant = bundle.variant("int8")
    allowed = variant.bytes + variant.manifest.size
    settings = RuntimeSettings(trial_bytes=allowed)
    rig.deploy(rig.repository.release({"digits": bundle}, settings=settings))
    before = rig.fetcher.bytes_fetched
    rig.improve()
    assert 0 < rig.fetcher.bytes_fetched - before <= allowed
    assert rig.model().variant == "fp32"


def test_nothing_is_tried_before_the_release_counts_as_good(rig: Rig) -> None:
    bundle = rig.repository.choice(SLOW, QUICK)
    settings = RuntimeSettings(trial_bytes=ENOUGH)
    rig.deploy(rig.repository.release({"digits": bundle}, settings=settings))
    assert not rig.driver.improve()
    assert len(rig.engine.opened) == 1


def test_a_restart_takes_the_faster_variant_at_once(rig: Rig) -> None:
    deployed(rig, SLOW, QUICK)
    again = rig.restarted()
    assert again.model().variant == "int8"
    assert len(again.engine.opened) == 1
    again.improve()
    assert len(again.engine.opened) == 1


def test_a_device_that_knows_the_figures_fetches_the_faster_variant_alone(rig: Rig) -> None:
    bundle = deployed(rig, SLOW, QUICK)
    release = rig.repository.release({"digits": bundle}, version="2")
    for digest in rig.store.have():
        rig.store.discard(digest)
    rig.deploy(release)
    assert rig.model("2").variant == "int8"
    slow = bundle.variant("fp32").manifest.digest
    assert slow not in rig.store


def test_a_restart_without_sources_serves_what_is_whole(rig: Rig) -> None:
    bundle = deployed(rig, SLOW, QUICK)
    rig.store.discard(bundle.variant("int8").manifest.digest)
    again = rig.restarted()
    assert again.model().variant == "fp32"
    assert again.factor() == 2


def test_a_variant_that_fails_its_self_test_is_not_tried_again(rig: Rig) -> None:
    deployed(rig, SLOW, {**QUICK, "factor": 3, "recorded": 2})
    assert rig.model().variant == "fp32"
    told = known(rig)["int8"]
    assert told.state == "failed"
    assert told.reason is not None
    assert "self-test case 1 failed" in told.reason
    assert rig.condition == "active"
    again = rig.restarted()
    again.improve()
    assert len(again.engine.opened) == 1


def test_a_variant_without_recorded_inputs_is_not_tried(rig: Rig) -> None:
    deployed(rig, {**SLOW, "vectors": 0}, QUICK)
    assert len(rig.engine.opened) == 1


def test_a_variant_that_does_not_fit_into_memory_is_not_tried(tmp_path: Path) -> None:
    rig = Rig(tmp_path, memory_max_bytes=300)
    deployed(rig, SLOW, QUICK)
    assert rig.model().variant == "fp32"
    assert len(rig.engine.opened) == 1


def test_a_variant_that_breaks_the_budget_is_taken_back(rig: Rig) -> None:
    bundle = rig.repository.choice(SLOW, QUICK)
    settings = RuntimeSettings(
        trial_bytes=ENOUGH, budget=Budget(max_error_share=0.1, window=10, trial_s=100)
    )
    rig.deploy(rig.repository.release({"digits": bundle}, settings=settings))
    rig.clock.now += 200
    rig.driver.poll()
    while rig.model().variant != "int8":
        assert rig.driver.improve()
    rig.engine.opened[-1].content["fails"] = True
    for _ in range(2):
        with pytest.raises(InferenceError):
            rig.infer()
    assert rig.driver.improve()
    assert rig.factor() == 2
    assert (rig.model().variant, known(rig)["int8"].state) == ("fp32", "failed")
    assert rig.engine.opened[-1].closed


def test_a_variant_that_brings_the_process_down_is_given_up(rig: Rig) -> None:
    bundle = rig.repository.choice(SLOW, QUICK)
    settings = RuntimeSettings(trial_bytes=ENOUGH)
    release = rig.repository.release({"digits": bundle}, settings=settings)
    rig.deploy(release)
    for _ in range(MAX_TRIES):
        rig.clock.now += 30
        rig.driver.poll()
        while len(rig.engine.opened) < 2:
            assert rig.driver.improve()
        rig = rig.restarted()  # died with the second model loaded
        assert rig.model().variant == "fp32"
    rig.improve()
    assert known(rig)["int8"].reason == "the runtime ended 3 times while it tried this"
    assert len(rig.engine.opened) == 1


def test_a_stop_in_order_is_no_crash_of_the_variant(rig: Rig) -> None:
    bundle = rig.repository.choice(SLOW, QUICK)
    settings = RuntimeSettings(trial_bytes=ENOUGH)
    rig.deploy(rig.repository.release({"digits": bundle}, settings=settings))
    rig.clock.now += 30
    rig.driver.poll()
    while len(rig.engine.opened) < 2:
        assert rig.driver.improve()
    rig.driver.close()
    assert rig.timings.get(bundle.variant("int8").manifest.digest).tries == 0
    assert rig.engine.opened[-1].closed


def test_a_newer_release_ends_a_trial(rig: Rig) -> None:
    bundle = rig.repository.choice(SLOW, QUICK)
    settings = RuntimeSettings(trial_bytes=ENOUGH)
    rig.deploy(rig.repository.release({"digits": bundle}, settings=settings))
    rig.clock.now += 30
    rig.driver.poll()
    while len(rig.engine.opened) < 2:
        assert rig.driver.improve()
    tried = rig.engine.opened[-1]
    rig.deploy(rig.repository.release({"digits": rig.repository.fake(5.0)}))
    assert rig.factor() == 5
    assert tried.closed


def test_a_trial_that_cannot_fetch_waits_and_goes_on(rig: Rig) -> None:
    bundle = rig.repository.choice(SLOW, QUICK)
    settings = RuntimeSettings(trial_bytes=ENOUGH)
    rig.deploy(rig.repository.release({"digits": bundle}, settings=settings))
    source = rig.repository.source
    source.rename(source.with_name("away"))
    rig.clock.now += 30
    rig.driver.poll()
    while rig.driver.improve():
        pass
    assert rig.driver.errors == ()
    assert rig.model().variant == "fp32"
    source.with_name("away").rename(source)
    rig.improve()
    assert rig.model().variant == "int8"


def test_the_previous_release_can_still_come_back(rig: Rig) -> None:
    first = rig.repository.release({"digits": rig.repository.fake(7.0)})
    rig.deploy(first)
    rig.improve()
    deployed(rig, SLOW, QUICK)
    rig.deploy(first)
    assert rig.factor() == 7
    assert [model.closed for model in rig.engine.opened] == [False, True, False]
