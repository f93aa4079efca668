"""Cost: rounding by billed unit, tiers, capacity by the month, and prices as data."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.analysis.bill import MONTH_S, Usage, bill_of, cost_of, units_of
from edgefleet.errors import InvalidInputError
from edgefleet.fleet import Fleet
from edgefleet.interfaces.pricing import FLOWS, Block, Meter, Prices, Tier, read_prices
from edgefleet.plugins import discovery
from edgefleet.protocol.documents import encode
from edgefleet.protocol.event import Alarm, new_event
from edgefleet.protocol.policy import DriftPolicy, Filter, TelemetryPolicy, WindowRule
from edgefleet.testing.kit import samples
from tests.analysis.recorded import fleet_in, home_of, write

DAYS = MONTH_S / 86_400
PAGE = {"source": "https://example.com/prices", "read": "2026-11-22"}
PAGE_OF = {"source": "https://example.com/prices", "read": date(2026, 11, 22)}
BOTH = frozenset({"telemetry", "delivery"})


def meter(**fields: object) -> Meter:
    given = {"name": "m", "role": "telemetry", "flows": ("hot",), **PAGE_OF, **fields}
    if "blocks" not in given:
        given.setdefault("tiers", (Tier(price=1.0),))
    return Meter.model_validate(given)


def usage(**flows: tuple[tuple[float, float], ...]) -> Usage:
    return Usage(devices=1, flows=flows)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with fleet_in(tmp_path) as opened:
        yield opened


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return home_of(tmp_path)


# ------------------------------------------------------------------------------------- rounding


@pytest.mark.parametrize("unit", [5120, 4096, 1024])
@pytest.mark.parametrize("over, units", [(-1, 1), (0, 1), (1, 2)])
def test_each_thing_is_rounded_up_to_billed_units_by_itself(
    unit: int, over: int, units: int
) -> None:
    found = units_of(meter(unit_bytes=unit), usage(hot=((unit + over, 10.0),)))
    assert found == 10 * units


def test_a_thing_of_no_size_is_one_unit() -> None:
    assert units_of(meter(unit_bytes=4096), usage(hot=((0, 3.0),))) == 3


def test_small_requests_are_billed_by_their_least_size() -> None:
    by_bytes = meter(measure="bytes", min_bytes=1000, times=2)
    assert units_of(by_bytes, usage(hot=((100, 5.0), (1500, 1.0)))) == 2 * (5 * 1000 + 1500)


def test_a_meter_adds_its_flows_and_a_flow_that_is_not_there_is_nothing() -> None:
    both = meter(flows=("hot", "report", "query"))
    assert units_of(both, usage(hot=((10, 2.0),), report=((10, 3.0),))) == 5


@given(
    st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 1000)), max_size=20),
    st.integers(1, 10_000),
)
def test_units_are_those_of_counting_one_by_one(things: list[tuple[int, int]], unit: int) -> None:
    flows = tuple((float(size), float(count)) for size, count in things)
    due = sum(max(1, -(-size // unit)) * count for size, count in things)
    assert units_of(meter(unit_bytes=unit), usage(hot=flows)) == due


# --------------------------------------------------------------------------------------- prices


@pytest.mark.parametrize(
    "units, cost", [(0, 0.0), (50, 0.0), (100, 0.0), (150, 5.0), (300, 20.0), (400, 25.0)]
)
def test_tiers_are_paid_each_for_what_lies_in_it(units: float, cost: float) -> None:
    tiers = (Tier(price=0.0, up_to=100), Tier(price=1.0, up_to=300), Tier(price=0.5))
    assert cost_of(meter(tiers=tiers, per=10), units)[0] == pytest.approx(cost)


@pytest.mark.parametrize(
    "per_day, cost, bought",
    [
        (0, 25.0, "1 x S1"),
        (400_000, 25.0, "1 x S1"),
        (400_001, 50.0, "2 x S1"),
        (4_000_001, 250.0, "1 x S2"),
        (6_000_001, 400.0, "16 x S1"),
        (8_000_001, 500.0, "2 x S2"),
    ],
)
def test_capacity_is_bought_whole_and_the_cheapest(
    per_day: float, cost: float, bought: str
) -> None:
    blocks = (
        Block(name="S1", per_day=400_000, price=25.0),
        Block(name="S2", per_day=6_000_000, price=250.0),
    )
    assert cost_of(meter(blocks=blocks), per_day * DAYS) == (cost, bought)


def test_only_the_roles_that_a_provider_serves_are_billed() -> None:
    prices = Prices(
        provider="p",
        region="r",
        currency="EUR",
        meters=(meter(name="a"), meter(name="b", role="delivery")),
    )
    bill = bill_of(usage(hot=((1, 7.0),)), [(prices, frozenset({"delivery"}))])
    assert [line.meter for line in bill.lines] == ["b"]
    assert bill.totals == {"EUR": 7.0}


def toml(**changes: str) -> bytes:
    fields = {
        "name": '"m"',
        "role": '"telemetry"',
        "flows": '["hot"]',
        "tiers": "[{ price = 1.0 }]",
        "source": '"https://example.com"',
        "read": "2026-11-22",
        **changes,
    }
    lines = "\n".join(f"{key} = {value}" for key, value in fields.items() if value)
    head = 'provider = "local"\nregion = "here"\ncurrency = "USD"\n'
    return f"{head}[[meters]]\n{lines}\n".encode()


def test_prices_are_read_with_where_they_are_from() -> None:
    found = read_prices(toml()).meters[0]
    assert (found.source, found.read) == ("https://example.com", date(2026, 11, 22))


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"flows": '["smoke"]'}, "counts 'smoke'"),
        ({"flows": "[]"}, "flows"),
        ({"tiers": ""}, "needs tiers or blocks"),
        ({"tiers": "[{ price = 1.0, up_to = 5 }]"}, "has no up_to"),
        ({"tiers": "[{ price = 1.0, up_to = 5 }, { price = 1, up_to = 2 }, { price = 0 }]"}, "asc"),
        ({"tiers": "[{ price = -1.0 }]"}, "price"),
        ({"tiers": "[{ price = nan }]"}, "price"),
        ({"measure": '"litres"'}, "measure"),
        ({"colour": '"red"'}, "colour"),
        ({"source": ""}, "source"),
        ({"read": ""}, "read"),
    ],
)
def test_prices_that_make_no_sense_are_refused(changes: dict[str, str], why: str) -> None:
    with pytest.raises(InvalidInputError, match=why):
        read_prices(toml(**changes))


def test_a_file_that_is_no_toml_is_refused_with_the_place() -> None:
    with pytest.raises(InvalidInputError, match="line 1"):
        read_prices(b"provider = \nregion = 1\n", name="mine.toml")


@pytest.mark.parametrize("name", ["aws", "azure", "gcp", "kubernetes", "local"])
def test_each_provider_says_what_it_charges_and_where_that_is_from(name: str) -> None:
    found = discovery.provider(name).prices()
    assert found is not None
    assert found.provider == name
    assert all(meter.source.startswith("https://") for meter in found.meters)
    assert bool(found.meters) == (name in {"aws", "azure", "gcp"})
    assert found.meters or found.note


def test_a_thousand_alarms_cost_what_the_pages_say() -> None:
    hot = usage(hot=((300.0, 1_000_000.0),), device=((0.0, 100.0),))
    found = discovery.provider("aws").prices()
    assert found is not None
    bill = bill_of(hot, [(found, BOTH)])
    cost = {line.meter: line.cost for line in bill.lines}
    assert cost["IoT Core messages, 5 KB"] == pytest.approx(1.0)
    assert cost["Greengrass core devices"] == pytest.approx(16.0)
    assert cost["S3 writes"] == pytest.approx(5.0)


def test_closing_segments_seldom_is_what_makes_a_talkative_fleet_cheap(fleet: Fleet) -> None:
    found = discovery.provider("aws").prices()
    assert found is not None
    totals = []
    for age_s in (60.0, 3600.0):
        policy = TelemetryPolicy(segment_max_age_s=age_s)
        used = fleet.cost(policy=policy, devices=10_000, predictions_per_s=0.1).usage
        totals.append(bill_of(used, [(found, BOTH)]).totals["USD"])
    assert totals[1] < 0.6 * totals[0]


# ----------------------------------------------------------------------------- measured, estimated


def test_what_is_measured_is_scaled_to_a_month(fleet: Fleet, home: Path) -> None:
    events = [samples.prediction(second) for second in range(60)]
    files = [write(home, "cam-1", events), write(home, "cam-2", events)]
    folder = home / "devices" / "cam-1" / "hot"
    folder.mkdir()
    alarm = new_event(Alarm(rule="r", message="m"), time=samples.MOMENT)
    (folder / "2026-11-21.ndjson").write_bytes(encode(alarm) + b"\n")
    since = samples.MOMENT
    found = fleet.cost(since=since, until=since + timedelta(days=1), keep_days=DAYS, reads=0).usage
    assert found.count("hot") == pytest.approx(DAYS)
    assert found.count("put") == pytest.approx(2 * DAYS)
    stored = sum(file.stat().st_size for file in files)
    assert found.size("put") == pytest.approx(stored * DAYS)
    assert found.size("stored") == pytest.approx(stored * DAYS)
    assert found.devices == 2
    assert any(
        len(encode(alarm)) <= size <= len(encode(alarm)) + 64 for size, _ in found.flows["hot"]
    )


def test_segments_of_other_days_are_no_part_of_the_span(fleet: Fleet, home: Path) -> None:
    """They are opened, because a device's clock, and so its date, may be off."""
    day = timedelta(days=1)
    for days in (-1, 0, 1):
        moved = (
            msgspec.structs.replace(one, time=one.time + days * day)
            for one in map(samples.prediction, range(60))
        )
        write(home, "cam-1", list(moved))
    since = samples.MOMENT
    found = fleet.cost(since=since, until=since + day, keep_days=DAYS, reads=0).usage
    assert found.count("put") == pytest.approx(DAYS)


def alarms(home: Path, *moments: datetime) -> None:
    """Hot events of those times, of a device."""
    folder = home / "devices" / "cam-1" / "hot"
    folder.mkdir(parents=True)
    events = (new_event(Alarm(rule="r", message="m"), time=moment) for moment in moments)
    (folder / "2026-11-21.ndjson").write_bytes(b"".join(encode(one) + b"\n" for one in events))


def test_without_a_time_the_last_month_is_measured_from_its_first_event_on(
    fleet: Fleet, home: Path
) -> None:
    """Neither a fleet's whole past nor a device's wrong clock stretches the span."""
    now = datetime.now(UTC)
    times = (now - timedelta(days=days) for days in (20_000, 400, 2, 1, 0, -20_000))
    alarms(home, *times)
    found = fleet.cost().usage
    assert found.count("hot") == pytest.approx(3 / 2 * DAYS)
    assert any("measured over 2 days" in told for told in found.assumptions)
    before = fleet.cost(until=now - timedelta(days=1, hours=1), since=now - timedelta(days=401))
    assert before.usage.count("hot") == pytest.approx(2 / 400 * DAYS, rel=0.01)


def test_what_is_older_than_a_month_is_measured_where_it_is_asked_for(
    fleet: Fleet, home: Path
) -> None:
    old = datetime.now(UTC) - timedelta(days=90)
    alarms(home, old, old + timedelta(days=1))
    with pytest.raises(InvalidInputError, match="to measure in 30 days") as told:
        fleet.cost()
    assert told.value.cure is not None
    assert "since" in told.value.cure
    assert fleet.cost(until=old + timedelta(days=2)).usage.count("hot") == pytest.approx(DAYS)


def test_segments_that_cannot_be_read_are_told_with_the_bill(fleet: Fleet, home: Path) -> None:
    write(home, "cam-1", [samples.prediction(second) for second in range(60)])
    torn = write(home, "cam-2", [samples.prediction(second) for second in range(60)])
    torn.write_bytes(torn.read_bytes()[:40])
    with pytest.warns(RuntimeWarning, match="set aside"):
        bill = fleet.cost(since=samples.MOMENT, until=samples.MOMENT + timedelta(days=1))
    assert f"1 segments that couldn't be read are missing: {torn.relative_to(home)}" in str(bill)


def test_without_events_there_is_nothing_to_measure(fleet: Fleet, home: Path) -> None:
    with pytest.raises(InvalidInputError, match="no events of a span"):
        fleet.cost()
    alarms(home, datetime.now(UTC))
    with pytest.raises(InvalidInputError, match="no events of a span"):
        fleet.cost()


def estimate(fleet: Fleet, policy: TelemetryPolicy, **given: float) -> Usage:
    return fleet.cost(policy=policy, devices=100, **given).usage  # type: ignore[arg-type]


def test_an_estimate_grows_with_predictions_and_devices(fleet: Fleet) -> None:
    policy = TelemetryPolicy()
    slow, fast = (estimate(fleet, policy, predictions_per_s=rate) for rate in (0.001, 1.0))
    assert fast.size("put") > 100 * slow.size("put")
    ten_times = fleet.cost(policy=policy, devices=1000, predictions_per_s=1.0).usage
    assert ten_times.size("put") == pytest.approx(10 * fast.size("put"))
    assert ten_times.count("report") == pytest.approx(1000 * DAYS)


def test_a_fraction_a_filter_and_a_window_make_it_cheaper(fleet: Fleet) -> None:
    whole = estimate(fleet, TelemetryPolicy()).size("put")
    tenth = estimate(fleet, TelemetryPolicy(prediction_fraction=0.1)).size("put")
    filtered = TelemetryPolicy(filters=(Filter(name="some", model="digits", fraction=0.1),))
    reduced = TelemetryPolicy(windows=(WindowRule(name="minute", model="digits", size_s=60.0),))
    assert tenth == pytest.approx(whole / 10)
    assert estimate(fleet, filtered).size("put") == pytest.approx(whole / 10)
    assert estimate(fleet, reduced).size("put") < whole / 20


def test_sketches_cost_room_and_conditions_are_assumed_to_hold(fleet: Fleet) -> None:
    quiet = TelemetryPolicy(prediction_fraction=0.0)
    assert estimate(fleet, quiet).size("put") == 0
    sketched = msgspec.structs.replace(quiet, drift=DriftPolicy(window_s=3600.0))
    assert estimate(fleet, sketched, features=4).size("put") == pytest.approx(
        100 * DAYS * 24 * 4 * 6_800
    )
    rule = TelemetryPolicy(filters=(Filter(name="unsure", model="m", when="score < 0.5"),))
    assert any("unsure" in one for one in estimate(fleet, rule).assumptions)


def test_devices_that_write_all_the_time_close_a_segment_when_it_is_old_enough(
    fleet: Fleet,
) -> None:
    policy = TelemetryPolicy(segment_max_age_s=3600.0)
    found = estimate(fleet, policy, predictions_per_s=0.1)
    assert found.count("put") == pytest.approx(100 * DAYS * 24, rel=0.05)


@pytest.mark.parametrize(
    "wrong",
    [
        {"devices": 0},
        {"devices": 5, "predictions_per_s": -1.0},
        {"devices": 5, "alarms_per_day": math.nan},
        {"devices": 5, "keep_days": -1.0},
        {"devices": 5, "model_bytes": -1},
        {"policy": TelemetryPolicy()},
    ],
)
def test_senseless_numbers_are_refused(fleet: Fleet, wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError):
        fleet.cost(**wrong)  # type: ignore[arg-type]


def test_nothing_is_billed_on_this_machine_until_a_file_says_so(
    fleet: Fleet, tmp_path: Path
) -> None:
    free = fleet.cost(devices=10)
    assert free.totals == {}
    assert "nothing is billed" in str(free)
    (tmp_path / "mine.toml").write_bytes(toml(flows='["device"]', assumed="true", note='"rent"'))
    bill = fleet.cost(devices=10, prices=tmp_path / "mine.toml")
    assert bill.totals == {"USD": 10.0}
    assert "10 devices: 10.00 USD a month" in str(bill)
    assert "assumed" in str(bill)
    assert "m: rent" in str(bill)


def test_a_provider_that_tells_no_prices_is_named(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery.provider("local"), "prices", lambda: None)
    bill = fleet.cost(devices=10)
    assert bill.unpriced == ("local",)
    assert "prices of local are not known" in str(bill)
    assert "10 devices: an unknown sum a month" in str(bill)
    meters = (meter(flows=("device",), tiers=(Tier(price=1.0),)),)
    priced = Prices(provider="other", region="r", currency="USD", meters=meters)
    partly = bill_of(bill.usage, [(priced, BOTH)]).model_copy(update={"unpriced": ("local",)})
    assert "10 devices: 10.00 USD a month, without what local cost\n" in str(partly)


def test_a_file_replaces_the_meters_that_it_names(fleet: Fleet, tmp_path: Path) -> None:
    known = Prices(
        provider="local",
        region="r",
        currency="USD",
        meters=(meter(name="m", tiers=(Tier(price=9.0),)), meter(name="other")),
    )
    over = read_prices(toml()).over(known)
    assert {one.name: one.tiers[0].price for one in over.meters} == {"m": 1.0, "other": 1.0}
    euros = known.model_copy(update={"currency": "EUR"})
    with pytest.raises(InvalidInputError, match="EUR"):
        read_prices(toml()).over(euros)


def test_prices_of_a_provider_that_the_profile_lacks_are_refused(
    fleet: Fleet, tmp_path: Path
) -> None:
    (tmp_path / "other.toml").write_bytes(toml().replace(b'"local"', b'"cloud"'))
    with pytest.raises(InvalidInputError, match="no provider 'cloud'"):
        fleet.cost(devices=1, prices=tmp_path / "other.toml")


def test_a_bill_shows_itself(fleet: Fleet, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = discovery.provider("azure").prices()
    assert found is not None
    bill = bill_of(fleet.cost(devices=10_000).usage, [(found, BOTH)])
    assert "<table>" in bill._repr_html_()
    assert set(json.loads(bill.to_json())["usage"]["flows"]) == set(FLOWS)
    assert "S1" in str(bill)
    assert bill.plot(tmp_path / "bill.png").png.startswith(b"\x89PNG")
    assert bill_of(bill.usage, []).plot().png.startswith(b"\x89PNG")
