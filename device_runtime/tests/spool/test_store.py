"""What the store keeps, drops and counts, and that its cap holds at every moment."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from device_runtime.tests.spool.rig import (
    DAY,
    MIB,
    Device,
    alarm,
    prediction,
    reading,
    sample,
    window,
)
from edgefleet.protocol.event import HealthEvent
from edgefleet.protocol.policy import TelemetryPolicy
from edgefleet_runtime.spool.worth import Shelf


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def fill(device: Device, count: int = 2000, batch: int = 50, score: float = 0.9) -> None:
    for _ in range(0, count, batch):
        device.put(*(prediction(n % 10, score, filler=400) for n in range(batch)))
        device.turn()


def test_the_cap_holds_when_far_more_comes_than_fits(device: Device) -> None:
    fill(device, 6000)
    assert device.most > MIB // 2
    assert sum(device.store.dropped.values()) > 3000


def test_everything_that_came_was_sent_or_counted_as_dropped_by_class_and_score(
    device: Device,
) -> None:
    for number in range(3000):
        device.put(prediction(number % 3, 0.65 + number % 4 / 10, filler=400))
    device.put(*(alarm(str(n)) for n in range(119)))
    device.drain()
    seen, dropped = device.counted("prediction")
    assert seen == 3000
    assert dropped == 3000 - device.arrived("prediction") > 1000
    assert device.counted("alarm") == (119, 0)
    [account] = device.accounts.values()
    bands = {(t.top, t.band) for t in account.tallies if t.kind == "prediction"}
    assert bands == {(top, band) for top in range(3) for band in (6, 7, 8, 9)}


def test_alarms_outlive_everything_else(device: Device) -> None:
    device.put(*(alarm(str(n)) for n in range(100)))
    fill(device, 4000, score=0.1)
    for number in range(60):
        device.put(*(sample(number * 50 + n) for n in range(50)))
    device.drain()
    assert device.arrived("alarm") == 100
    assert device.store.dropped["alarms"] == 0
    assert device.store.dropped["samples"] > 0


def test_what_is_on_a_lower_shelf_goes_first(device: Device) -> None:
    fill(device, 1000)
    for number in range(16):
        device.put(*(window(number * 50 + n) for n in range(50)))
    assert device.store.waiting["ordinary"] < 1000
    assert device.store.dropped["windows"] == 0
    before = device.store.waiting["windows"]
    fill(device, 1000)
    assert device.store.waiting["windows"] == before


def test_hard_and_rare_predictions_are_kept_before_ordinary_ones(device: Device) -> None:
    fill(device, 1000)
    device.put(*(prediction(1, 0.2) for _ in range(50)), *(prediction(77, 0.95) for _ in range(5)))
    fill(device, 3000)
    assert device.store.waiting["hard"] == 55
    assert device.store.dropped["hard"] == 0


def test_what_is_kept_is_a_fair_sample_of_the_whole_time(device: Device) -> None:
    counts = [0] * 10
    for tenth in range(10):
        device.time = DAY + timedelta(days=tenth)
        for _ in range(20):
            device.put(*(prediction(0, 0.9, filler=400) for _ in range(50)))
    device.drain()
    for data in device.accounts.values():
        [tally] = data.tallies
        day = (DAY.fromisoformat(f"{data.day}T12:00:00+00:00") - DAY).days
        counts[day] = tally.seen - tally.dropped
    kept = sum(counts)
    assert 200 < kept < 5000
    # Ten draws of one share: each is within six standard deviations of the mean.
    mean = kept / 10
    assert all(abs(count - mean) < 6 * mean**0.5 for count in counts)


def test_unsure_answers_of_one_shelf_are_kept_more_often(device: Device) -> None:
    for _ in range(80):
        device.put(
            *(prediction(n % 2, 0.62 if n % 2 else 0.99, filler=400) for n in range(50)),
        )
    device.drain()
    [account] = device.accounts.values()
    kept = {t.top: (t.seen - t.dropped) / t.seen for t in account.tallies}
    assert kept[1] > 2 * kept[0]


def test_what_is_worth_too_little_is_counted_without_touching_the_disk(device: Device) -> None:
    fill(device, 4000)
    device.turn(after_s=100)
    log = device.store.database.log_path  # type: ignore[union-attr]
    before = (log.stat().st_mtime_ns, log.stat().st_size)
    turned_away = 0
    for _ in range(200):
        entry = device.store.rater.entry(device.event(prediction(0, 0.99)))
        if entry.place < (Shelf.ORDINARY, device.store._doors[Shelf.ORDINARY]):
            assert device.store.put([entry]) == [False]
            turned_away += 1
    assert turned_away > 0
    assert (log.stat().st_mtime_ns, log.stat().st_size) == before


def test_alarms_that_do_not_fit_drop_the_oldest(device: Device) -> None:
    message = "x" * 4000
    for number in range(300):
        device.put(alarm(f"{number:03d}{message}"))
    kept = [int(event.payload().message[:3]) for event in device.send_hot(1000)]  # type: ignore[union-attr]
    assert kept == list(range(299, 299 - len(kept), -1))
    assert device.store.dropped["alarms"] == 300 - len(kept) > 0


def test_an_event_over_the_limit_is_counted_and_harms_no_other(device: Device) -> None:
    large = prediction(filler=device.store.budget.event_bytes)
    assert device.put(reading(1), large, reading(2)) == [True, False, True]
    assert device.store.too_large == 1
    device.drain()
    assert (device.counted("reading"), device.counted("prediction")) == ((2, 0), (1, 1))


def test_space_is_given_back_after_sending(tmp_path: Path) -> None:
    device = Device(tmp_path, 32 * MIB)
    fill(device, 20_000, batch=1000)
    full = device.store.used_bytes
    device.drain()
    for _ in range(20):
        device.turn()
    device.turn(finish=True)
    assert device.store.used_bytes < full / 8


def test_a_smaller_cap_is_kept_to_from_the_next_turn_on(tmp_path: Path) -> None:
    device = Device(tmp_path, 8 * MIB)
    fill(device, 8000, batch=500)
    device.put(*(alarm(str(n)) for n in range(50)))
    assert device.store.used_bytes > 2 * MIB
    device.samples.put(bytes(MIB // 2))
    device.max_bytes = 2 * MIB
    device.store.policy = TelemetryPolicy()
    device.store.follow(TelemetryPolicy(), 2 * MIB)
    device.store.turn(1)
    device.check()
    assert device.store.used_bytes <= 2 * MIB
    assert device.store.waiting["alarms"] == 50


def test_samples_and_events_share_the_cap(device: Device) -> None:
    fill(device, 3000)
    for number in range(100):
        device.turn()
        device.samples.put(number.to_bytes(4, "big") * 1024)
        device.check()
    assert device.samples.used_bytes > MIB // 3
    fill(device, 1000)


def test_one_account_a_day_holds_and_its_numbers_rise(device: Device) -> None:
    device.put(prediction())
    device.drain()
    device.put(prediction())
    device.drain()
    [account] = device.accounts.values()
    assert (account.number, account.tallies[0].seen) == (2, 2)


def test_accounts_wait_for_their_time_while_little_happens(device: Device) -> None:
    device.policy = TelemetryPolicy(segment_max_age_s=10)
    device.store.follow(device.policy, MIB)
    device.put(prediction())
    device.turn(after_s=20)
    assert device.send(everything=False) == 1
    assert device.accounts == {}
    device.turn(after_s=3600)
    assert device.send(everything=False) == 1
    assert len(device.accounts) == 1
    device.put(prediction(filler=device.store.budget.event_bytes))
    device.turn(after_s=59)
    assert device.send(everything=False) == 0
    device.turn(after_s=1)
    assert device.send(everything=False) == 1
    assert device.counted("prediction") == (2, 1)


def test_classes_beyond_many_count_together(tmp_path: Path) -> None:
    device = Device(tmp_path, 64 * MIB)
    device.put(*(prediction(top) for top in range(1000)))
    device.drain()
    [account] = device.accounts.values()
    assert len(account.tallies) == 257
    assert next(t for t in account.tallies if t.top is None).seen == 744


def test_days_beyond_many_are_forgotten_once_they_are_settled_and_may_come_again(
    device: Device,
) -> None:
    times = [DAY + timedelta(days=n) for n in range(1200)]
    for time in times:
        device.time = time
        device.put(reading())
        device.drain()
    device.turn(after_s=10, finish=True)
    assert device.store.tallies.total < 600
    device.time = DAY
    device.put(reading(), reading())
    device.drain()
    assert device.counted("reading") == (1202, 0)
    spools = {spool for spool, day in device.accounts if day == "2026-11-21"}
    assert len(spools) == 2


def test_events_of_days_of_their_own_all_leave(tmp_path: Path) -> None:
    device = Device(tmp_path, 4 * MIB)
    days = [DAY + timedelta(days=number) for number in range(-2000, 2000)]
    for first in range(0, 4000, 100):
        device.put_events([device.event(reading(), day) for day in days[first : first + 100]])
        device.turn()
    check, device.check = device.check, lambda: None  # type: ignore[method-assign]
    device.drain()  # a segment for each
    check()
    assert device.arrived("reading") == 4000
    assert device.counted("reading") == (4000, 0)


def test_a_clock_that_jumps_for_years_loses_nothing(device: Device) -> None:
    for year in (1970, 2099, 2026, 1970, 2038):
        device.time = DAY.replace(year=year)
        device.put(alarm(str(year)), prediction())
        device.turn()
    order = [event.time.year for event in device.send_hot()]
    assert order == [2038, 1970, 2026, 2099, 1970]
    device.drain()
    assert device.arrived("prediction") == 5
    assert {day[:4] for _, day in device.accounts} == {"1970", "2099", "2026", "2038"}


def test_a_batch_is_due_by_age_by_size_or_when_everything_goes(device: Device) -> None:
    device.policy = TelemetryPolicy(segment_max_age_s=60, segment_max_bytes=20_000)
    device.store.follow(device.policy, MIB)
    device.put(prediction())
    device.turn(after_s=59)
    assert device.send(everything=False) == 0
    device.turn(after_s=1)
    assert device.send(everything=False) == 1
    device.put(*(prediction(filler=1000) for _ in range(20)))
    assert device.send(everything=False) == 1
    device.put(prediction())
    assert device.send(everything=False) == 0
    assert device.send(everything=True) > 0


def test_the_best_go_first(tmp_path: Path) -> None:
    device = Device(tmp_path, MIB)
    fill(device, 500)
    device.put(sample(), window(), prediction(3, 0.1))
    batch = device.outgoing.batch(4000, lean=False, everything=True)
    assert batch is not None
    for segment in batch.segments:
        device.upload(segment)
    kinds = {device.put_[identity] for identity in device.came}
    assert {"sample", "window", "prediction"} == kinds
    assert len(device.came) < 20


def test_over_a_link_that_costs_samples_and_sketches_stay(device: Device) -> None:
    device.put(sample(), window())
    while device.send(lean=True):
        pass
    assert [device.put_[identity] for identity in device.came] == ["window"]
    device.drain()
    assert len(device.came) == 2


def test_subjects_that_are_no_models_names_make_no_path(device: Device) -> None:
    event = device.event(HealthEvent(what="x", message="y"))
    device.put_events([event])
    strange = device.event(prediction(model="../../etc"))
    device.put_events([strange])
    batch = device.outgoing.batch(1 << 20, lean=False, everything=True)
    assert batch is not None
    assert all("/model=_none/" in segment.name for segment in batch.segments)
