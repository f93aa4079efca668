"""Requests like one answered before: the same answers, in batches where that pays."""

from __future__ import annotations

import gzip
import json
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from device_runtime.tests.serving import WAIT_S, FakeModel, read_replies, served, serving, table_of
from edgefleet.errors import InferenceError
from edgefleet.protocol.inference import decode_response
from edgefleet_runtime.serve import lane, trial
from edgefleet_runtime.serve.messages import Limits
from edgefleet_runtime.serve.queueing import BatchLimits
from edgefleet_runtime.watch.tap import body_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence

    from device_runtime.tests.serve.conftest import Together
    from device_runtime.tests.serving import Gate, Reply, Running

POOL = "edgefleet-infer"  # how the names of the pool's threads begin
ONE_BY_ONE = BatchLimits(max_rows=1)  # and no trial, which runs the model in the pool
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def binary(*x: float, head: str = "", **parameters: Any) -> bytes:
    """A request in raw bytes; the same ``x`` count gives the same head and JSON header."""
    more = "".join(f',"{name}":{value}' for name, value in parameters.items())
    size = len(x) * 4
    header = (
        f'{{"parameters":{{"binary_data_output":true{more}}},"inputs":[{{"name":"x",'
        f'"shape":[{len(x)}],"datatype":"FP32","parameters":{{"binary_data_size":{size}}}}}]}}'
    ).encode()
    return (
        (
            f"POST /v2/models/m/infer HTTP/1.1\r\nContent-Length: {len(header) + size}\r\n"
            f"Inference-Header-Content-Length: {len(header)}\r\n{head}\r\n"
        ).encode()
        + header
        + np.array(x, np.float32).tobytes()
    )


def values(reply: Reply) -> list[float]:
    assert reply.status == 200, reply.body
    length = int(reply.headers["Inference-Header-Content-Length"])
    return [float(value) for value in decode_response(reply.body, length).outputs["y"]]


def ask(client: socket.socket, data: bytes) -> Reply:
    client.sendall(data)
    (reply,) = read_replies(client)
    return reply


class Rows(FakeModel):
    """Notes how many rows each run had; refuses negative values as data that breaks a run."""

    def __init__(self, during: Callable[[], None] = lambda: None) -> None:
        super().__init__(1, during)
        self.runs: list[int] = []

    def infer(
        self, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None
    ) -> dict[str, Any]:
        self.runs.append(len(inputs["x"]))
        if (inputs["x"] < 0).any():
            raise InferenceError("negative")
        return super().infer(inputs, outputs)


def many(running: Running, gate: Gate, requests: Sequence[bytes]) -> list[Reply]:
    """Answers to requests of as many clients, which queue while a run holds the model."""
    clients = [running.connect() for _ in range(len(requests) + 1)]
    clients[0].sendall(binary(0))
    gate.wait_for_run()
    for client, request in zip(clients[1:], requests, strict=True):
        client.sendall(request)
    threading.Thread(target=open_when_queued, args=(running, gate)).start()
    replies = [read_replies(client)[0] for client in clients]
    for client in clients:
        client.close()
    return replies[1:]


def open_when_queued(running: Running, gate: Gate) -> None:
    # What was sent on other connections before this one asked is read by the time it is answered.
    assert running.ask("GET", "/v2/health/live").status == 200
    assert running.ask("GET", "/v2/health/live").status == 200
    gate.open.set()


def slow(model: FakeModel) -> tuple[Any, Any]:
    """A table with a model that seems to run long, and its entry."""
    entry = served(model)
    return table_of(entry), entry


def learn(running: Running, entry: Any) -> None:
    """Let a server with one thread meet heads and headers, and then take the model for slow."""
    with running.connect() as client:
        for x in [(1.0,), (1.0, 1.0)] * 2:
            assert values(ask(client, binary(*x))) == [2.0] * len(x)
    entry.recent_p50_us = 50_000.0
    assert running.infer(1).status == 200  # on the thread that made the trial, and so after it
    assert running.ask("GET", "/v2/health/live").status == 200  # observers come behind an answer
    entry.recent_p50_us = 50_000.0


def test_planned_answers_are_those_of_decoded_requests() -> None:
    with serving(table_of(served(FakeModel(1)))) as running, running.connect() as client:
        replies = [ask(client, binary(1, 2)) for _ in range(10)]
        assert len({reply.body for reply in replies}) == 1
        assert len({str(reply.headers) for reply in replies}) == 1
        for number in range(10):
            assert values(ask(client, binary(number, -number))) == [number + 1.0, 1.0 - number]


def test_lengths_that_alternate_are_not_mixed_up() -> None:
    with serving(table_of(served(FakeModel(1)))) as running, running.connect() as client:
        for number in range(20):
            x = [float(number)] * (1 + number % 3)
            assert values(ask(client, binary(*x))) == [value + 1 for value in x]


def test_a_planned_request_on_a_connection_that_ends_is_answered_so() -> None:
    with serving(table_of(served(FakeModel(1)))) as running, running.connect() as client:
        for _ in range(3):
            ask(client, binary(1))
        reply = ask(client, binary(1, head="Connection: close\r\n"))
        assert values(reply) == [2.0]
        assert reply.headers["Connection"] == "close"


def test_what_queues_while_the_model_runs_runs_together(gate: Gate, together: Together) -> None:
    together(8)
    model = Rows()
    table, entry = slow(model)
    with serving(table, threads=1) as running:
        learn(running, entry)
        model.runs.clear()
        model.during = gate
        replies = many(running, gate, [binary(float(n)) for n in range(5)])
    assert [values(reply) for reply in replies] == [[n + 1.0] for n in range(5)]
    assert model.runs == [1, 5]
    assert (entry.inferences, entry.executions) == (11, 7)


def test_requests_of_several_rows_get_their_own_when_they_run_together(
    gate: Gate, together: Together
) -> None:
    together(8)
    model = Rows()
    table, entry = slow(model)
    with serving(table, threads=1) as running:
        learn(running, entry)
        model.runs.clear()
        model.during = gate
        replies = many(running, gate, [binary(n, n + 0.5) for n in range(4)])
    assert [values(reply) for reply in replies] == [[n + 1.0, n + 1.5] for n in range(4)]
    assert model.runs == [1, 8]


def test_one_clients_data_spoils_only_its_own_answer(gate: Gate, together: Together) -> None:
    together(8)
    model = Rows()
    table, entry = slow(model)
    with serving(table, threads=1) as running:
        learn(running, entry)
        model.during = gate
        replies = many(running, gate, [binary(1), binary(-1), binary(3)])
    assert [reply.status for reply in replies] == [200, 500, 200]
    assert "negative" in replies[1].json["error"]
    assert [values(replies[0]), values(replies[2])] == [[2.0], [4.0]]
    assert entry.failures == 1


def test_without_a_gain_each_request_runs_by_itself(gate: Gate, together: Together) -> None:
    together(1)
    model = Rows()
    table, entry = slow(model)
    with serving(table, threads=1) as running:
        learn(running, entry)
        model.runs.clear()
        model.during = gate
        replies = many(running, gate, [binary(float(n)) for n in range(3)])
    assert [values(reply) for reply in replies] == [[n + 1.0] for n in range(3)]
    assert model.runs == [1, 1, 1, 1]


def test_a_deadline_that_can_not_be_met_is_refused_at_once() -> None:
    table, entry = slow(FakeModel(1))
    with serving(table) as running, running.connect() as client:
        for _ in range(2):
            assert values(ask(client, binary(1, timeout=10_000_000))) == [2.0]
        entry.recent_p50_us = 20_000_000.0
        replies = [ask(client, binary(1, timeout=10_000_000)), ask(client, binary(1, timeout=3))]
    for reply in replies:  # one has a plan, the other is decoded
        assert reply.status == 503
        assert "timeout can't be met" in reply.json["error"]


def test_more_than_may_wait_are_told_to_come_back(gate: Gate, together: Together) -> None:
    together(1)
    model = Rows()
    table, entry = slow(model)
    limits = Limits(max_requests=2, retry_after_s=7)
    with serving(table, threads=1, limits=limits) as running:
        learn(running, entry)
        model.during = gate
        replies = many(running, gate, [binary(float(n)) for n in range(4)])
    assert sorted(reply.status for reply in replies) == [200, 200, 503, 503]
    assert {r.headers["Retry-After"] for r in replies if r.status == 503} == {"7"}


def test_a_swap_between_queueing_and_running_loses_nothing(gate: Gate, together: Together) -> None:
    together(1)
    old, new = Rows(), FakeModel(100)
    table, entry = slow(old)
    with serving(table, threads=1) as running:
        learn(running, entry)
        old.during = gate

        def swap() -> None:
            gate.wait_for_run()
            assert running.ask("GET", "/v2/health/live").status == 200
            table.swap({"m": served(new, version="2")})
            entry.retire()
            gate.open.set()

        with running.connect() as first, running.connect() as second:
            first.sendall(binary(1))
            gate.wait_for_run()
            second.sendall(binary(1))
            gate.entered.release()
            swapper = threading.Thread(target=swap)
            swapper.start()
            (answer,), (later,) = read_replies(first), read_replies(second)
            swapper.join(WAIT_S)
            assert values(answer) == [2.0]
            assert values(later) in ([2.0], [101.0])
            assert values(ask(first, binary(1))) == [101.0]
    assert old.closed


def test_a_plan_asks_for_all_that_changes_an_answer() -> None:
    with serving(table_of(served(FakeModel(1)))) as running, running.connect() as client:
        for number in range(5):
            plain = binary(1).replace(b"true", b'true,"q":1')
            assert read_after(client, plain).status in {200, 400}
            assert running.infer(number, id="a").json["outputs"][0]["data"] == [number + 1.0]


def read_after(client: socket.socket, data: bytes) -> Reply:
    head, _, rest = data.partition(b"\r\n\r\n")
    size = len(rest)
    header = size - 4
    told = head.split(b"\r\n")[0]
    fresh = b"%b\r\nContent-Length: %d\r\nInference-Header-Content-Length: %d\r\n\r\n" % (
        told,
        size,
        header,
    )
    return ask(client, fresh + rest)


def test_observers_see_each_request_of_a_batch(gate: Gate, together: Together) -> None:
    together(8)
    seen: list[list[float]] = []
    model = Rows()
    table, entry = slow(model)
    table.observers.append(lambda _, outputs, *__: seen.append(outputs["y"].tolist()))
    with serving(table, threads=1) as running:
        learn(running, entry)
        seen.clear()
        model.during = gate
        many(running, gate, [binary(1), binary(2, 3)])
    assert seen == [[1.0], [2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    "requests,told",
    [
        ([binary(1), binary(2, 3)], [([1.0], [2.0]), ([2.0, 3.0], [3.0, 4.0])]),
        ([binary(1), binary(-1)], [([1.0], [2.0]), ([-1.0], "negative")]),
    ],
)
def test_watchers_see_each_request_of_a_batch_alone(
    gate: Gate, together: Together, requests: list[bytes], told: list[Any]
) -> None:
    together(8)
    seen: list[tuple[list[float], list[float] | str]] = []

    def watch(inputs: Any, outcome: Any, run_us: float) -> None:
        assert run_us > 0
        failed = isinstance(outcome, Exception)
        seen.append((inputs["x"].tolist(), str(outcome) if failed else outcome["y"].tolist()))

    model = Rows()
    table, entry = slow(model)
    with serving(table, threads=1) as running:
        learn(running, entry)
        entry.watchers = (watch,)
        model.during = gate
        many(running, gate, requests)
    assert seen == [([0.0], [1.0]), *told]


@pytest.mark.parametrize("head", ["", "Beside: header\r\n"])
def test_watchers_can_hold_a_request_s_bytes_without_a_copy(head: str) -> None:
    seen: list[Any] = []
    told = threading.Semaphore(0)

    def watch(inputs: Any, outcome: Any, run_us: float) -> None:
        del outcome, run_us
        seen.append(inputs["x"])
        told.release()

    table, entry = slow(FakeModel(1))
    entry.watch(watch)
    with serving(table) as running, running.connect() as client:
        for number in range(4):  # decoded at first, then planned
            ask(client, binary(number, 2, head=head))
            assert told.acquire(timeout=WAIT_S)
    assert [array.tolist() for array in seen] == [[number, 2.0] for number in range(4)]
    assert [body_of(array) is not None for array in seen] == [True] * 4


def test_each_request_of_a_batch_is_counted(gate: Gate, together: Together) -> None:
    together(8)
    model = Rows()
    table, entry = slow(model)
    with serving(table, threads=1) as running:
        learn(running, entry)
        before = entry.requests.totals()
        model.during = gate
        many(running, gate, [binary(1), binary(-1), binary(3)])
    after = entry.requests.totals()
    assert (after.answered - before.answered, after.failed - before.failed) == (3, 1)
    assert after.duration_us > before.duration_us


def test_planned_requests_that_are_refused_count_as_failed(gate: Gate, together: Together) -> None:
    together(1)
    model = Rows()
    table, entry = slow(model)
    with serving(table, threads=1, limits=Limits(max_requests=1)) as running:
        learn(running, entry)
        model.during = gate
        traced = f"traceparent: {TRACE}\r\n"
        replies = many(running, gate, [binary(1), binary(2, head=traced), binary(3, head=traced)])
    refused = [reply for reply in replies if reply.status == 503]
    assert entry.requests.totals().failed == len(refused) == 2
    named = [reply.headers["traceparent"] for reply in replies]
    assert sorted(map(str, named)) == [TRACE, TRACE, "None"]


def test_a_planned_request_keeps_its_trace(gate: Gate, together: Together) -> None:
    together(8)
    seen: list[tuple[list[float], str | None]] = []
    model = Rows()
    table, entry = slow(model)
    table.observers.append(lambda _, outputs, *more: seen.append((outputs["y"].tolist(), more[-1])))
    traced = f"traceparent: {TRACE}\r\n"
    with serving(table, threads=1) as running:
        learn(running, entry)
        seen.clear()
        model.during = gate
        replies = many(running, gate, [binary(1, head=traced), binary(2), binary(3, head=traced)])
    assert [values(reply) for reply in replies] == [[2.0], [3.0], [4.0]]
    assert [reply.headers["traceparent"] for reply in replies] == [TRACE, None, TRACE]
    assert sorted(seen) == [([1.0], None), ([2.0], TRACE), ([3.0], None), ([4.0], TRACE)]


def test_a_planned_request_at_once_keeps_its_trace() -> None:
    with serving(table_of(served(FakeModel(1)))) as running, running.connect() as client:
        for number in range(40):
            trace = f"00-{number + 1:032x}-00f067aa0ba902b7-01"
            reply = ask(client, binary(number, head=f"traceparent: {trace}\r\n"))
            assert values(reply) == [number + 1.0]
            assert reply.headers["traceparent"] == trace
            assert ask(client, binary(number)).headers["traceparent"] is None


def test_batches_without_a_gain_are_tried_again_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [1, 1, 8]
    left = iter(found)
    monkeypatch.setattr(trial, "max_rows", lambda *_: next(left))
    monkeypatch.setattr(lane, "AGAIN_S", (0.0, 0.0))
    entry = served(FakeModel(1))
    with serving(table_of(entry)) as running, running.connect() as client:
        while running.server.extensions.lanes.lane(entry).max_rows != found[-1]:
            assert values(ask(client, binary(1.0))) == [2.0]
    assert next(left, None) is None


class Where(FakeModel):
    """Notes the threads that it runs on."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        super().__init__(1, lambda: self.ran.append(threading.current_thread().name))


@pytest.mark.parametrize(
    "run_us,callers,in_the_loop",
    [(5_000.0, 1, True), (5_000.0, 2, False), (2 * lane.ALONE_RUN_US, 1, False)],
)
def test_a_run_goes_on_in_the_loop_where_nobody_else_would_wait_for_it(
    run_us: float, callers: int, *, in_the_loop: bool
) -> None:
    model = Where()
    entry = served(model)
    with serving(table_of(entry), batching=ONE_BY_ONE) as running:
        clients = [running.connect() for _ in range(callers)]
        for _ in range(2 * lane.ALONE):
            for client in clients:
                entry.recent_p50_us = run_us
                assert values(ask(client, binary(1.0))) == [2.0]
        assert (not model.ran[-1].startswith(POOL)) is in_the_loop
        for client in clients:
            client.close()


def test_a_request_that_is_read_in_the_pool_counts_once_for_its_caller(gate: Gate) -> None:
    entry = served(FakeModel(1, gate))
    with serving(table_of(entry), threads=1) as running, running.connect() as client:
        client.sendall(binary(1.0))  # nothing is known of the model yet: the pool runs it
        gate.wait_for_run()
        with running.connect() as other:
            other.sendall(compressed(2.0))
            threading.Thread(target=open_when_queued, args=(running, gate)).start()
            (reply,) = read_replies(other)
            assert reply.json["outputs"][0]["data"] == [3.0]
        assert running.server.extensions.lanes.alone == 1
        assert values(read_replies(client)[0]) == [2.0]


def compressed(x: float) -> bytes:
    tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": [x]}
    body = gzip.compress(json.dumps({"inputs": [tensor]}).encode())
    head = f"POST /v2/models/m/infer HTTP/1.1\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Content-Encoding: gzip\r\n\r\n".encode() + body


def test_a_deadline_keeps_a_run_out_of_the_loop() -> None:
    model = Where()
    entry = served(model)
    with serving(table_of(entry), batching=ONE_BY_ONE) as running, running.connect() as client:
        for _ in range(2 * lane.ALONE):
            entry.recent_p50_us = 5_000.0
            assert values(ask(client, binary(1.0, timeout=60_000_000))) == [2.0]
        assert model.ran[-1].startswith(POOL)


def test_a_model_that_comes_back_is_known_still(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []

    def eight_rows(model: object, *_: object) -> int:
        tried.append(model)
        return 8

    monkeypatch.setattr(trial, "max_rows", eight_rows)
    first, second = served(FakeModel(1)), served(FakeModel(2))
    table = table_of(first)
    with serving(table) as running, running.connect() as client:
        for entry in (first, second, first, second):
            table.swap({"m": entry})
            due = [2.0 if entry is first else 3.0]
            while running.server.extensions.lanes.lane(entry).max_rows == 1:
                assert values(ask(client, binary(1.0))) == due
            assert values(ask(client, binary(1.0))) == due
    assert tried == [first.model, second.model]
