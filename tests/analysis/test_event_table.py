"""Events as an Ibis table: the same rows as iterating gives, read where they lie."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgefleet.errors import InvalidInputError
from edgefleet.fleet import Fleet
from edgefleet.interfaces.event_columns import FIELDS, HEAD, row_of
from edgefleet.interfaces.event_table import arrow_schema, ibis_schema
from edgefleet.protocol.documents import encode
from edgefleet.protocol.event import Event, Reading, Window, new_event
from edgefleet.testing.kit import samples
from edgefleet_local.telemetry import LocalTelemetry
from tests.analysis.recorded import START, drawn, fleet_in, home_of, window, write

ibis = pytest.importorskip("ibis")
sqlglot = pytest.importorskip("sqlglot")
DIALECTS = ("athena", "bigquery", "databricks", "trino")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with fleet_in(tmp_path) as opened:
        yield opened


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return home_of(tmp_path)


def hot(home: Path, device: str, *events: Event) -> None:
    path = home / "devices" / device / "hot" / "2026-11-21.ndjson"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(encode(event) + b"\n" for event in events))


def rows(table: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = table.to_pyarrow().to_pylist()
    return sorted(found, key=lambda row: (row["device"], row["id"]))


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its data as values: text of JSON may be formatted otherwise."""
    return row | {"data": msgspec.json.decode(row["data"])}


def every_kind(home: Path) -> None:
    reading = new_event(Reading(stream="reefer", key="c1", values={"t": 1.5}), time=samples.MOMENT)
    reduced = Window(
        rule="minute", start=START, end=START + timedelta(minutes=1), count=1, values={}, key="c1"
    )
    write(home, "cam-1", [samples.prediction(second) for second in range(3)])
    write(home, "cam-2", [reading, new_event(reduced, time=samples.MOMENT)])
    write(home, "cam-2", [samples.metric(1, 21.5)], name="1")
    write(home, "cam-3", [window("sha256:" + "0" * 64, 0, first=drawn(1), own="watch")])
    hot(home, "cam-1", samples.alarm(1))


def test_the_table_has_the_rows_that_iterating_gives(fleet: Fleet, home: Path) -> None:
    every_kind(home)
    query = fleet.telemetry.query()
    due = sorted((row_of(event) for event in query), key=lambda row: (row["device"], row["id"]))
    assert len(due) == 8
    assert list(map(plain, rows(query.to_ibis()))) == list(map(plain, due))
    assert list(map(plain, rows(_arrow(query)))) == list(map(plain, due))


class _Arrow:
    def __init__(self, table: Any) -> None:
        self._table = table

    def to_pyarrow(self) -> Any:
        return self._table


def _arrow(query: Any) -> _Arrow:
    return _Arrow(query.to_arrow())


def test_typed_columns_tell_of_predictions_windows_and_sketches(fleet: Fleet, home: Path) -> None:
    every_kind(home)
    found = {row["kind"]: row for row in rows(fleet.telemetry.query().to_ibis())}
    assert found["prediction"]["latency_us"] == 120.0
    assert found["prediction"]["bundle"].startswith("sha256:")
    assert (found["window"]["rule"], found["window"]["key"]) == ("minute", "c1")
    assert found["reading"]["stream"] == "reefer"
    assert found["sketch"]["verdict"] == "watch"
    assert found["alarm"]["rule"] == "stuck"


@pytest.mark.parametrize(
    "asked",
    [
        {"kind": "prediction"},
        {"kind": "alarm"},
        {"device": "cam-2"},
        {"model": "digits"},
        {"since": samples.MOMENT + timedelta(seconds=1)},
        {"until": samples.MOMENT + timedelta(seconds=1)},
    ],
)
def test_the_table_keeps_to_what_the_query_was_asked(
    fleet: Fleet, home: Path, asked: dict[str, Any]
) -> None:
    every_kind(home)
    query = fleet.telemetry.query(**asked)
    due = {event.id for event in query}
    assert due
    assert {row["id"] for row in rows(query.to_ibis())} == due


def test_an_event_that_was_sent_twice_is_there_once(fleet: Fleet, home: Path) -> None:
    events = [samples.prediction(second) for second in range(4)]
    write(home, "cam-1", events[:3], name="0")
    write(home, "cam-1", events[1:], name="1")
    write(home, "cam-2", events[:1])
    found = rows(fleet.telemetry.query().to_ibis())
    assert [row["device"] for row in found] == ["cam-1"] * 4 + ["cam-2"]


def test_the_device_is_the_path_s_and_not_the_event_s(fleet: Fleet, home: Path) -> None:
    forged = msgspec.structs.replace(samples.prediction(0), source="/devices/victim")
    write(home, "thief", [forged])
    assert [row["device"] for row in rows(fleet.telemetry.query().to_ibis())] == ["thief"]


def test_segments_are_read_when_the_table_is_used(fleet: Fleet, home: Path) -> None:
    path = write(home, "cam-1", [samples.prediction(0)])
    table = fleet.telemetry.query().to_ibis()
    path.unlink()
    with pytest.raises(Exception, match="No files found"):
        table.count().to_pyarrow().as_py()


@pytest.mark.parametrize("cut", [20, 200])
def test_a_segment_that_is_cut_short_is_set_aside_and_what_came_before_is_kept(
    fleet: Fleet, home: Path, cut: int
) -> None:
    write(home, "cam-1", [samples.prediction(0)])
    torn = write(home, "cam-2", [samples.prediction(second) for second in range(500)])
    torn.write_bytes(torn.read_bytes()[:-cut])
    query = fleet.telemetry.query()
    with pytest.warns(RuntimeWarning, match="set aside"):
        table = query.to_ibis()
    assert list(query.unreadable) == [torn.relative_to(home).as_posix()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        due = {(event.device, event.id) for event in query}
    assert {(row["device"], row["id"]) for row in rows(table)} == due


def test_a_folder_whose_name_looks_like_a_pattern_is_read(tmp_path: Path) -> None:
    home = tmp_path / "fleet [a*b?] 'c'"
    write(home, "cam-1", [samples.prediction(0)])
    write(tmp_path / "fleet axb 'c'", "cam-9", [samples.prediction(1)])
    table = LocalTelemetry(home).query().to_ibis()
    assert [row["device"] for row in rows(table)] == ["cam-1"]


def test_foreign_data_is_kept_as_it_is(fleet: Fleet, home: Path) -> None:
    odd = [
        msgspec.structs.replace(
            samples.prediction(number), type="com.example.x", data=msgspec.Raw(data)
        )
        for number, data in enumerate(
            (b'[1, "\xc3\xa9"]', b'{"latency_us": "no", "outputs": [], "key": 5}', b"null")
        )
    ]
    write(home, "cam-1", odd)
    query = fleet.telemetry.query()
    due = sorted(map(row_of, query), key=lambda row: row["id"])
    assert list(map(plain, rows(query.to_ibis()))) == list(map(plain, due))
    assert {row["kind"] for row in due} == {"com.example.x"}


def test_an_empty_fleet_has_an_empty_table(fleet: Fleet) -> None:
    table = fleet.telemetry.query().to_ibis()
    assert table.columns == (*HEAD, *(field.name for field in FIELDS))
    assert table.count().to_pyarrow().as_py() == 0


def test_tables_of_one_connection_can_be_joined(fleet: Fleet, home: Path) -> None:
    every_kind(home)
    connection = ibis.duckdb.connect()
    predictions = fleet.telemetry.query(kind="prediction").to_ibis(connection)
    alarms = fleet.telemetry.query(kind="alarm").to_ibis(connection)
    joined = predictions.join(alarms, "device")
    assert joined.count().to_pyarrow().as_py() == 3


def test_another_kind_of_connection_is_refused(fleet: Fleet) -> None:
    with pytest.raises(InvalidInputError, match="no connection of ibis to DuckDB"):
        fleet.telemetry.query().to_ibis(object())


# ------------------------------------------------------------------------------------- elsewhere


def hardest(table: Any) -> Any:
    """An expression that people would use: uncertain predictions by device, class and day."""
    unsure = table.filter((table.kind == "prediction") & (table.score < 0.6))
    by = unsure.group_by(unsure.device, unsure.top, day=unsure.time.truncate("D"))
    return by.agg(count=unsure.count(), slow_us=unsure.latency_us.max()).order_by("device", "top")


def test_the_schema_declared_elsewhere_is_the_table_s_own(fleet: Fleet) -> None:
    declared = ibis.schema(ibis_schema())
    assert fleet.telemetry.query().to_ibis().schema() == declared
    assert tuple(arrow_schema().names) == declared.names


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_same_expression_compiles_to_the_sql_of_warehouses(fleet: Fleet, dialect: str) -> None:
    elsewhere = ibis.table(ibis_schema(), name="edgefleet_events")
    sql = str(ibis.to_sql(hardest(elsewhere), dialect=dialect))
    assert sqlglot.parse_one(sql, dialect="spark" if dialect == "databricks" else dialect)
    assert "edgefleet_events" in sql
    assert "GROUP BY" in sql
    assert hardest(fleet.telemetry.query().to_ibis()).count().to_pyarrow().as_py() == 0
