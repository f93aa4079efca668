"""Connections over real sockets: order, limits, slow clients."""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from device_runtime.tests.serving import (
    LIVE,
    WAIT_S,
    FakeModel,
    infer_bytes,
    read_all,
    read_replies,
    served,
    serving,
    table_of,
)
from edgefleet.protocol.inference import decode_response
from edgefleet_runtime.serve.messages import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from device_runtime.tests.serving import Gate, Running


@pytest.fixture
def running() -> Iterator[Running]:
    with serving(table_of(served(FakeModel(1)))) as running:
        yield running


def test_a_connection_is_kept_for_further_requests(running: Running) -> None:
    with running.connect() as client:
        for number in range(50):
            client.sendall(infer_bytes(number))
            (reply,) = read_replies(client)
            assert reply.json["outputs"][0]["data"] == [number + 1]


def test_pipelined_requests_are_answered_in_order_though_the_first_is_slow(gate: Gate) -> None:
    with serving(table_of(served(FakeModel(1, gate)))) as running, running.connect() as client:
        client.sendall(infer_bytes(1) + LIVE + infer_bytes(2) + LIVE)
        gate.wait_for_run()
        gate.open.set()
        ids = [reply.json.get("id") for reply in read_replies(client, 4)]
        assert ids == ["1", None, "2", None]


def test_a_chunked_body_is_put_together(running: Running) -> None:
    body = infer_bytes(4).partition(b"\r\n\r\n")[2]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:]))
    with running.connect() as client:
        client.sendall(
            b"POST /v2/models/m/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
            + chunks
            + b"0\r\n\r\n"
        )
        assert read_replies(client)[0].json["outputs"][0]["data"] == [5]


def test_a_client_that_waits_for_a_go_ahead_gets_it(running: Running) -> None:
    head, _, body = infer_bytes(1, "Expect: 100-continue").partition(b"\r\n\r\n")
    with running.connect() as client:
        client.sendall(head + b"\r\n\r\n")
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body)
        assert read_replies(client)[0].status == 200


def test_a_body_too_large_is_refused_before_the_go_ahead() -> None:
    limits = Limits(max_body_bytes=10)
    with serving(table_of(), limits=limits) as running, running.connect() as client:
        client.sendall(b"POST /v2 HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n")
        assert read_all(client).startswith(b"HTTP/1.1 413 ")


def test_a_body_too_large_is_told_to_a_client_that_sends_on() -> None:
    limits = Limits(max_body_bytes=1000)
    with serving(table_of(), limits=limits) as running:
        reply = running.ask("POST", "/v2/models/m/infer", b"a" * 30_000_000)
    assert reply.status == 413
    assert "1000 bytes" in reply.json["error"]
    assert reply.headers["Connection"] == "close"


def test_bodies_stop_counting_as_held_once_they_are_answered_or_given_up(gate: Gate) -> None:
    one = infer_bytes(1)
    limits = Limits(max_held_bytes=3 * len(one))
    table = table_of(served(FakeModel(1, gate)))
    with serving(table, limits=limits) as running:
        with running.connect() as leaving:
            leaving.sendall(one)
            gate.wait_for_run()
            leaving.sendall(one[:-1])
        gate.open.set()
        with running.connect() as staying:
            for _ in range(10):
                staying.sendall(one)
                assert read_replies(staying)[0].status == 200
        http = running.server._services[0]
    assert http is not None
    assert http.held.bytes == 0


@pytest.mark.parametrize(
    "sent,kept",
    [
        (b"GET /v2 HTTP/1.0\r\n\r\n", None),
        (b"GET /v2 HTTP/1.1\r\nConnection: close\r\n\r\n", None),
        (b"GET /v2 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", b"Connection: keep-alive"),
    ],
)
def test_clients_decide_whether_the_connection_stays(
    running: Running, sent: bytes, kept: bytes | None
) -> None:
    with running.connect() as client:
        client.sendall(sent)
        if kept is None:
            assert b"Connection: close" in read_all(client)
        else:
            assert read_replies(client)[0].headers["Connection"] == "keep-alive"
            client.sendall(LIVE)


def test_a_client_that_closed_its_side_still_gets_its_answer(gate: Gate) -> None:
    with serving(table_of(served(FakeModel(1, gate)))) as running, running.connect() as client:
        client.sendall(infer_bytes(1))
        gate.wait_for_run()
        client.shutdown(socket.SHUT_WR)
        gate.open.set()
        assert read_all(client).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_leaves_during_its_run_harms_nobody(gate: Gate) -> None:
    with serving(table_of(served(FakeModel(1, gate)))) as running:
        with running.connect() as client:
            client.sendall(infer_bytes(1))
            gate.wait_for_run()
        gate.open.set()
        assert running.infer(2).status == 200


def test_malformed_bytes_are_answered_with_400(running: Running) -> None:
    with running.connect() as client:
        client.sendall(b"\x16\x03\x01 this is TLS\r\n\r\n")
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"malformed HTTP" in answer


def test_a_refused_client_that_stays_is_cut_off() -> None:
    limits = Limits(linger_s=0.1)
    with serving(table_of(), limits=limits) as running, running.connect() as client:
        client.sendall(b"nonsense\r\n\r\n")
        assert read_all(client).startswith(b"HTTP/1.1 400 ")
        with pytest.raises(ConnectionError):
            _send_until_cut(client)


def _send_until_cut(client: socket.socket) -> None:
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        client.sendall(b"more")


def test_answers_due_before_malformed_bytes_are_given_first(gate: Gate) -> None:
    with serving(table_of(served(FakeModel(1, gate)))) as running, running.connect() as client:
        client.sendall(infer_bytes(1) + b"nonsense\r\n\r\n")
        gate.wait_for_run()
        gate.open.set()
        assert [reply.status for reply in read_replies(client, 2)] == [200, 400]


@pytest.mark.parametrize(
    "limits,sent,said",
    [
        ({"head_timeout_s": 0.1}, b"GET / HTTP/1.1\r\nA: ", "headers"),
        ({"head_timeout_s": 0.1}, b"\r\n", "headers"),
        ({"body_timeout_s": 0.1}, b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab", "body"),
    ],
)
def test_a_client_that_sends_too_slowly_is_dropped(
    limits: dict[str, Any], sent: bytes, said: str
) -> None:
    with serving(table_of(), limits=Limits(**limits)) as running, running.connect() as client:
        client.sendall(sent)
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert said.encode() in answer


def test_an_idle_connection_is_closed() -> None:
    limits = Limits(idle_timeout_s=0.5)  # in which the request must have come
    with serving(table_of(), limits=limits) as running, running.connect() as client:
        client.sendall(LIVE)
        assert read_all(client).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_does_not_read_is_dropped() -> None:
    limits = Limits(write_timeout_s=0.1)
    with (
        serving(table_of(served(FakeModel())), limits=limits) as running,
        socket.socket() as client,
    ):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(WAIT_S)
        client.connect(running.address)
        asking = infer_bytes(1, size=100_000) * 100  # fills all buffers on the way
        with pytest.raises((ConnectionError, EOFError)):
            _send_then_read(client, asking, 100)
        assert running.infer(1).status == 200


def _send_then_read(client: socket.socket, asking: bytes, count: int) -> None:
    client.sendall(asking)
    read_replies(client, count)


def test_a_large_answer_arrives_whole_at_a_slow_reader() -> None:
    with serving(table_of(served(FakeModel(1)))) as running, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(WAIT_S)
        client.connect(running.address)
        values = np.arange(1_000_000, dtype=np.float32)
        head = json.dumps(
            {
                "parameters": {"binary_data_output": True},
                "inputs": [
                    {
                        "name": "x",
                        "shape": [values.size],
                        "datatype": "FP32",
                        "parameters": {"binary_data_size": values.nbytes},
                    }
                ],
            }
        ).encode()
        request = (
            b"POST /v2/models/m/infer HTTP/1.1\r\nContent-Length: %d\r\n"
            b"Inference-Header-Content-Length: %d\r\n\r\n"
        ) % (len(head) + values.nbytes, len(head))
        for _ in range(2):  # the second time the answer is sent off the event loop's buffer again
            client.sendall(request + head + values.tobytes())
            (reply,) = read_replies(client)
            length = int(reply.headers["Inference-Header-Content-Length"])
            np.testing.assert_array_equal(
                decode_response(reply.body, length).outputs["y"], values + 1
            )


def test_connections_beyond_the_limit_are_told_so() -> None:
    limits = Limits(max_connections=1)
    with serving(table_of(), limits=limits) as running, running.connect() as first:
        first.sendall(LIVE)
        assert read_replies(first)[0].status == 200
        with running.connect() as second:
            answer = read_all(second)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 1\r\n" in answer
        first.sendall(LIVE)
        assert read_replies(first)[0].status == 200


def test_a_head_request_gets_no_body(running: Running) -> None:
    reply = running.ask("HEAD", "/v2")
    assert (reply.status, reply.body) == (200, b"")
    assert int(reply.headers["Content-Length"]) > 0
