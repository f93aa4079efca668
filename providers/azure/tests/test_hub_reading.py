"""What is read from twins, whatever devices wrote there; and where groups go."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edgefleet.testing.kit import samples
from edgefleet_azure.groups import ranked
from edgefleet_azure.manifests import WANTED
from edgefleet_azure.reading import read_agent, read_module

scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=20)
names = st.sampled_from(
    ["report", "0", "1", "code", "description", "modules", "edgefleet", "version", "runtimeStatus",
     "restartCount", "exitCode", "$metadata", "$lastUpdated", "lastDesiredStatus", "summary"]
)  # fmt: skip
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4)
)


def module(reported: Any, **more: Any) -> dict[str, Any]:
    return {"properties": {"reported": reported, "desired": {"$version": 1}}, **more}


@given(json_values)
def test_whatever_a_device_wrote_nothing_is_raised(value: Any) -> None:
    for reported in (value, {WANTED: value}, {WANTED: {"report": value}}, {"modules": value}):
        said = read_module(module(reported))
        assert said.report is None
        assert all(isinstance(word, str) for word in read_agent(module(reported)).evidence.values())


def test_a_report_in_pieces_is_put_together() -> None:
    text = samples.report(samples.pointer(3)).encoded().decode()
    pieces = {"0": text[:100], "1": text[100:200], "2": text[200:]}
    came = "2026-11-21T10:00:00.5Z"
    times = {WANTED: {"report": {"$lastUpdated": came}}}
    said = read_module(module({WANTED: {"report": pieces}, "$metadata": times}))
    assert said.report is not None
    assert said.report.number == 3
    assert said.came == datetime(2026, 11, 21, 10, 0, 0, 500_000, tzinfo=UTC)


def test_a_report_that_lacks_a_piece_is_said_to_be_unreadable() -> None:
    text = samples.report(samples.pointer(3)).encoded().decode()
    said = read_module(module({WANTED: {"report": {"0": text[:50], "2": text[100:]}}}))
    assert said.report is None
    assert said.problem is not None


def test_a_device_without_iot_edge_is_said_to_have_none() -> None:
    assert read_agent(None).evidence == {"edgeAgent": "none: the device has no IoT Edge"}
    assert read_module(None).report is None


def test_an_agent_that_is_behind_blocks_nothing() -> None:
    reported = {"lastDesiredVersion": 0, "lastDesiredStatus": {"code": 400, "description": "old"}}
    agent = read_agent(module(reported))
    assert agent.blocked is None
    assert "on its way" in agent.evidence["deployment"]


@given(st.lists(st.uuids().map(str), min_size=1, max_size=5, unique=True), st.uuids().map(str),
       st.uuids().map(str))  # fmt: skip
def test_a_new_hub_moves_a_group_only_to_itself(hosts: list[str], new: str, group: str) -> None:
    before = ranked(dict.fromkeys(hosts, 0), group)
    after = ranked(dict.fromkeys([new, *reversed(hosts)], 0), group)
    assert [host for host in after if host != new] == before
