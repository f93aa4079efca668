"""IoT Hub's query language."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_azure.cloud.hub_query import Counted, QueryError, parse_condition, parse_query

TWIN: dict[str, Any] = {
    "deviceId": "cam-1",
    "tags": {"edgefleet": {"fleet": "f", "group": "line-3", "n": 3, "ok": True, "none": None}},
    "configurations": {"a-1": {"status": "Applied"}},
    "properties": {"desired": {"$version": 3, "list": [1]}, "reported": {"n": 3}},
}


@pytest.mark.parametrize(
    "condition",
    [
        "*",
        "tags.edgefleet.fleet = 'f' AND tags.edgefleet.group = 'line-3'",
        "tags.edgefleet.n >= 3 and tags.edgefleet.n < 4.5",
        "tags.edgefleet.ok = true",
        "tags.edgefleet.none = null",
        "tags.edgefleet.group != 'line-4'",
        "tags.edgefleet.group <> 'line-4'",
        "tags.edgefleet.group IN ['line-4', 'line-3']",
        "tags.edgefleet.group NOT IN ['line-4']",
        "NOT (tags.edgefleet.n = 4 OR deviceId = 'x')",
        "configurations.[[a-1]].status = 'Applied'",
        "properties.desired.$version = properties.reported.n",
        "is_defined(tags.edgefleet) and not is_defined(tags.other)",
        "is_array(properties.desired.list) and is_number(tags.edgefleet.n)",
        "STARTSWITH(deviceId, 'cam') AND contains(deviceId, 'm-') AND endswith(deviceId, '1')",
        "tags.nope = 1 OR deviceId = 'cam-1'",
    ],
)
def test_a_condition_holds(condition: str) -> None:
    assert parse_condition(condition)(TWIN)


@pytest.mark.parametrize(
    "condition",
    [
        "",
        "tags.unknown = 'x'",
        "tags.unknown != 'x'",
        "NOT tags.unknown = 'x'",
        "tags.unknown NOT IN ['x']",
        "tags.edgefleet.n = '3'",
        "tags.edgefleet.n > 'a'",
        "tags.edgefleet.Group = 'line-3'",
        "tags.edgefleet",
        "tags.nope = 1 AND deviceId = 'cam-1'",
    ],
)
def test_a_condition_does_not_hold(condition: str) -> None:
    assert not parse_condition(condition)(TWIN)


@pytest.mark.parametrize(
    "condition",
    [
        "tags.a =",
        "tags.a ~ 1",
        "and",
        "is_defined()",
        "lower(tags.a) = 'x'",
        "tags.a = 'x",
        "(" * 9,
    ],
)
def test_what_is_no_condition_is_refused(condition: str) -> None:
    with pytest.raises(QueryError):
        parse_condition(condition)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT", "SELECT * FROM nothing", "SELECT * FROM devices ORDER BY deviceId",
        "SELECT SUM() FROM devices", "UPDATE devices", "SELECT * FROM devices WHERE",
    ],
)  # fmt: skip
def test_what_is_no_query_is_refused(query: str) -> None:
    with pytest.raises(QueryError):
        parse_query(query)


@given(st.text(max_size=60))
def test_whatever_is_written_is_read_or_refused(text: str) -> None:
    for parse in (parse_query, parse_condition):
        try:
            parse(text)
        except QueryError:
            continue


def rows(query: str, *documents: dict[str, Any]) -> list[dict[str, Any]]:
    return parse_query(query).over(documents or (TWIN,))


def test_columns_have_their_own_names_or_given_ones() -> None:
    query = "SELECT deviceId, tags.edgefleet.group AS g, tags.no FROM devices"
    assert rows(query) == [{"deviceId": "cam-1", "g": "line-3"}]


def test_groups_are_counted_and_summed() -> None:
    twins = [{"g": "a", "n": 1}, {"g": "b", "n": 2}, {"g": "a", "n": 4}]
    query = (
        "SELECT g AS name, COUNT() AS many, SUM(n) AS sum, MAX(n) AS most FROM devices GROUP BY g"
    )
    assert rows(query, *twins) == [
        {"name": "a", "many": 2, "sum": 5, "most": 4},
        {"name": "b", "many": 1, "sum": 2, "most": 2},
    ]


def test_a_count_of_nothing_is_zero() -> None:
    assert rows("SELECT COUNT() AS n FROM devices WHERE deviceId = 'x'") == [{"n": 0}]


def test_top_ends_the_answer() -> None:
    assert len(rows("SELECT TOP 1 deviceId FROM devices", TWIN, TWIN)) == 1


def test_a_twin_that_stands_for_many_counts_as_many() -> None:
    crowd = Counted({"g": "a"}, 1000)
    query = "SELECT COUNT() AS n FROM devices WHERE g = 'a'"
    assert rows(query, crowd, {"g": "a"}) == [{"n": 1001}]
