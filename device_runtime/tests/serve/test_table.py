"""The table: who may use a model, and when it closes."""

from __future__ import annotations

import numpy as np
import pytest

from device_runtime.tests.serving import FakeModel, served, table_of
from edgefleet.errors import InferenceError, NotFoundError

X = {"x": np.zeros(1, np.float32)}


def test_a_retired_model_closes_when_its_last_lease_ends() -> None:
    model = FakeModel()
    entry = served(model)
    with entry.lease(), entry.lease():
        entry.retire()
        assert not model.closed
    assert model.closed


def test_a_retired_model_without_leases_closes_at_once() -> None:
    model = FakeModel()
    served(model).retire()
    assert model.closed


def test_a_closed_model_can_not_be_leased() -> None:
    entry = served(FakeModel())
    entry.retire()
    entry.retire()
    with pytest.raises(NotFoundError, match="closed"), entry.lease():
        pass


def test_a_model_retired_in_the_table_is_not_waited_for() -> None:
    entry = served(FakeModel())
    table = table_of(entry)
    entry.retire()
    with pytest.raises(NotFoundError, match="closed"), table.lease("m"):
        pass


def test_a_swap_returns_what_left_and_keeps_what_stays() -> None:
    a, b, c = served(FakeModel(), "a"), served(FakeModel(), "b"), served(FakeModel(), "c")
    table = table_of(a, b)
    assert table.swap({"b": b, "c": c}) == (a,)
    assert list(table) == [b, c]


@pytest.mark.parametrize("version", [None, "", "1"])
def test_a_version_is_optional(version: str | None) -> None:
    entry = served(FakeModel())
    with table_of(entry).lease("m", version) as leased:
        assert leased is entry


@pytest.mark.parametrize("name,version", [("n", None), ("m", "2")])
def test_what_is_not_served_is_named(name: str, version: str | None) -> None:
    with pytest.raises(NotFoundError, match="served now: m:1"):
        table_of(served(FakeModel())).get(name, version)


def test_runs_are_counted_and_timed() -> None:
    entry = served(FakeModel())
    before = entry.latency_p50_us
    for _ in range(3):
        entry.infer(X)
    assert entry.inferences == 3
    assert before is None
    assert entry.latency_p50_us is not None
    assert entry.recent_p50_us == entry.latency_p50_us


def test_failures_are_counted_apart() -> None:
    model = FakeModel()
    entry = served(model)
    model.close()
    with pytest.raises(InferenceError):
        entry.infer(X)
    assert (entry.inferences, entry.failures) == (0, 1)
