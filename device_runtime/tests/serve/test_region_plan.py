"""Requests whose tensors lie in shared memory, when they come again: read and checked afresh."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from device_runtime.tests.serve import triton
from device_runtime.tests.serve.test_planned import Rows, ask, learn, many, values
from device_runtime.tests.serving import FakeModel, served, serving, table_of
from edgefleet_runtime.serve import lane
from edgefleet_runtime.serve.extensions.region_plan import RegionPlan
from edgefleet_runtime.serve.extensions.shared_memory import Region, SystemRegions
from edgefleet_runtime.serve.queueing import Queue

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from device_runtime.tests.serve.conftest import Together
    from device_runtime.tests.serving import Gate, Running
    from edgefleet_runtime.serve.table import ServedModel

pytestmark = pytest.mark.skipif(not SystemRegions.supported(), reason="no /dev/shm here")

SIZE = 4096
OUT = 1024  # bytes into the object


def at(offset: int, size: int, region: str = "io") -> dict[str, Any]:
    return {
        "shared_memory_region": region,
        "shared_memory_offset": offset,
        "shared_memory_byte_size": size,
    }


def request(
    rows: int = 2,
    *,
    offset: int = 0,
    region: str = "io",
    placed: bool = True,
    binary: bool = False,
    **more: Any,
) -> bytes:
    """A request for model m; its answer goes to shared memory, or comes in raw bytes."""
    given = {"name": "x", "datatype": "FP32", "shape": [rows]}
    inputs = [{**given, "parameters": at(offset, rows * 4, region)}]
    where = at(OUT, 512) if placed else {"binary_data": binary}
    asked = {"inputs": inputs, "outputs": [{"name": "y", "parameters": where}], **more}
    body = json.dumps(asked).encode()
    head = f"POST /v2/models/m/infer HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Bench:
    """A server, an object of shared memory that it knows as ``io``, and a connection."""

    def __init__(self, running: Running, path: Path) -> None:
        self.path = path
        self.running = running
        self.regions = running.server.extensions.memory()
        self.register()
        self.client = running.connect()

    def register(self, name: str = "io", size: int = SIZE) -> None:
        self.regions.register(Region(name=name, key=self.path.name, offset=0, byte_size=size))

    def lay(self, *values: float, offset: int = 0) -> None:
        with self.path.open("r+b") as file:
            file.seek(offset)
            file.write(np.array(values, np.float32).tobytes())

    def seen(self, rows: int = 2) -> list[float]:
        data = self.path.read_bytes()[OUT : OUT + rows * 4]
        return [float(value) for value in np.frombuffer(data, np.float32)]

    def learn(self, *requests: bytes) -> None:
        """Ask until a plan is followed: the first answer teaches it."""
        for data in requests or (request(),):
            assert ask(self.client, data).status == 200
            assert ask(self.client, data).status == 200


@contextmanager
def bench(entry: ServedModel | None = None, **options: Any) -> Iterator[Bench]:
    table = table_of(entry or served(FakeModel(1)))
    with triton.shared_object(SIZE) as path, serving(table, **options) as running:
        made = Bench(running, path)
        try:
            yield made
        finally:
            made.client.close()


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> list[RegionPlan]:
    """Plans whose inputs were read, in order."""
    seen: list[RegionPlan] = []
    arrays = RegionPlan.arrays

    def noted(self: RegionPlan, data: bytes) -> Any:
        seen.append(self)
        return arrays(self, data)

    monkeypatch.setattr(RegionPlan, "arrays", noted)
    return seen


def test_a_request_that_comes_again_is_not_decoded_again(followed: list[RegionPlan]) -> None:
    with bench() as given:
        for _ in range(4):
            assert ask(given.client, request()).status == 200
    assert len(followed) == 3
    assert len(set(map(id, followed))) == 1


def test_each_request_sees_what_lies_in_the_region_now(followed: list[RegionPlan]) -> None:
    with bench() as given:
        for number in range(6):
            given.lay(number, -number)
            assert ask(given.client, request()).status == 200
            assert given.seen() == [number + 1.0, 1.0 - number]
    assert followed


def test_answers_are_those_of_a_first_request(followed: list[RegionPlan]) -> None:
    with bench() as given:
        replies = [ask(given.client, request(id="a")) for _ in range(3)]
    assert followed
    assert len({reply.body for reply in replies}) == 1
    assert len({str(reply.headers) for reply in replies}) == 1
    (output,) = replies[-1].json["outputs"]
    assert output["parameters"] == {**at(OUT, 8)}
    assert replies[-1].json["id"] == "a"


def test_outputs_in_raw_bytes_come_behind_the_header(followed: list[RegionPlan]) -> None:
    with bench() as given:
        for number in range(3):
            given.lay(number, number)
            reply = ask(given.client, request(placed=False, binary=True))
            assert values(reply) == [number + 1.0] * 2
    assert followed


def test_outputs_in_json_are_written_each_time(followed: list[RegionPlan]) -> None:
    with bench() as given:
        for number in range(3):
            given.lay(number, number)
            reply = ask(given.client, request(placed=False))
            assert reply.json["outputs"][0]["data"] == [number + 1.0] * 2
    assert not followed


def test_places_that_alternate_are_not_mixed_up(followed: list[RegionPlan]) -> None:
    with bench() as given:
        for number in range(9):
            place = 16 * (number % 3)
            given.lay(number, number, offset=place)
            assert ask(given.client, request(offset=place)).status == 200
            assert given.seen() == [number + 1.0] * 2
    assert len(set(map(id, followed))) == 3


def test_a_region_that_has_gone_is_missed_at_once() -> None:
    with bench() as given:
        given.learn()
        given.regions.unregister("io")
        reply = ask(given.client, request())
        assert reply.status == 404
        assert "no shared memory region 'io'" in reply.json["error"]
        given.register()
        assert ask(given.client, request()).status == 200


def test_a_region_that_was_made_smaller_bounds_what_is_read_and_written() -> None:
    with bench() as given:
        given.learn(request(), request(offset=512))
        given.regions.unregister("io")
        given.register(size=OUT)  # the output lies behind it
        reply = ask(given.client, request())
        assert (reply.status, "not inside region" in reply.json["error"]) == (400, True)
        given.regions.unregister("io")
        given.register(size=512)  # and so does the second input
        reply = ask(given.client, request(offset=512))
        assert (reply.status, "not inside region" in reply.json["error"]) == (400, True)


def test_an_object_that_is_cut_short_is_an_error_and_does_not_grow_back() -> None:
    with bench() as given:
        given.learn()
        os.truncate(given.path, 4)
        reply = ask(given.client, request())
        assert (reply.status, "cut short" in reply.json["error"]) == (400, True)
        os.truncate(given.path, OUT)
        reply = ask(given.client, request())
        assert (reply.status, "is not inside" in reply.json["error"]) == (400, True)
        assert given.path.stat().st_size == OUT


def test_requests_with_a_plan_run_together_and_fail_alone(gate: Gate, together: Together) -> None:
    together(8)
    model = Rows()
    entry = served(model)
    asked = [request(1, offset=16 * n, placed=False, binary=True) for n in range(4)]
    with bench(entry, threads=1) as given:
        given.learn(*asked)
        learn(given.running, entry)
        for offset, value in ((0, 1.0), (16, 2.0), (32, -1.0), (48, 4.0)):
            given.lay(value, offset=offset)
        model.runs.clear()
        model.during = gate
        replies = many(given.running, gate, asked)
    assert [reply.status for reply in replies] == [200, 200, 500, 200]
    assert [values(replies[n]) for n in (0, 1, 3)] == [[2.0], [3.0], [5.0]]
    assert model.runs[:2] == [1, 4]


def test_what_lies_in_regions_counts_for_the_bound_of_a_batch(
    gate: Gate, together: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    together(8)
    monkeypatch.setattr(lane, "Queue", partial(Queue, max_bytes=8))
    model = Rows()
    entry = served(model)
    asked = [request(1, offset=16 * n, placed=False, binary=True) for n in range(4)]
    with bench(entry, threads=1) as given:
        given.learn(*asked)
        learn(given.running, entry)
        model.runs.clear()
        model.during = gate
        replies = many(given.running, gate, asked)
    assert [reply.status for reply in replies] == [200] * 4
    assert model.runs == [1, 2, 2]


def test_a_swap_makes_plans_of_its_own(followed: list[RegionPlan]) -> None:
    with bench() as given:
        given.lay(1.0, 1.0)
        given.learn()
        table = given.running.server.extensions.table
        for old in table.swap({"m": served(FakeModel(100), version="2")}):
            old.retire()
        for _ in range(3):
            reply = ask(given.client, request())
            assert reply.json["model_version"] == "2"
            assert given.seen() == [101.0, 101.0]
    assert len(set(map(id, followed))) == 2
