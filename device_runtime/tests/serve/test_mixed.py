"""One queue for every encoding and protocol: requests run together and keep apart."""

from __future__ import annotations

import gzip
import json
import socket
import struct
import uuid
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_runtime.tests.serve.grpc_serving import serving_grpc
from device_runtime.tests.serving import WAIT_S, FakeModel, Gate, served, table_of
from edgefleet.errors import InferenceError
from edgefleet.protocol.bundle import Interface, TensorSpec
from edgefleet.protocol.inference import decode_response, encode_request
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.serve import trial
from edgefleet_runtime.serve.extensions.shared_memory import SystemRegions
from edgefleet_runtime.serve.grpc import inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from device_runtime.tests.serving import Reply, Running
    from edgefleet.protocol.bundle import Datatype
    from edgefleet_runtime.serve.table import ServedModel

SERVICE = "/inference.GRPCInferenceService/"
MAX_ROWS = 12
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Model(FakeModel):
    """Adds 1; refuses negative values as data that breaks a run; notes each run's rows."""

    def __init__(self) -> None:
        super().__init__(1)
        self.runs: list[int] = []

    def infer(
        self, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None
    ) -> dict[str, Any]:
        self.runs.append(len(inputs["x"]))
        results = super().infer(inputs, outputs)
        if (inputs["x"] < 0).any():
            raise InferenceError("negative")
        return results


class Rig(NamedTuple):
    """A server with both protocols and two threads, one of which runs the model."""

    running: Running
    channel: grpc.Channel
    entry: ServedModel
    model: Model

    @property
    def queued(self) -> int:
        return len(self.running.server.extensions.lanes.lane(self.entry)._queue)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    model = Model()
    entry = served(model)
    patch = pytest.MonkeyPatch()
    patch.setattr(trial, "max_rows", lambda *_: MAX_ROWS)
    with (
        patch.context(),
        serving_grpc(table_of(entry), threads=2) as (running, address),
        grpc.insecure_channel(address) as channel,
    ):
        assert running.infer(1.0).status == 200
        lane = running.server.extensions.lanes.lane(entry)
        eventually(lambda: lane.max_rows == MAX_ROWS)
        yield Rig(running, channel, entry, model)
    patch.undo()


def rest(rig: Rig, body: bytes, **headers: str) -> list[float] | str:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return read(rig.running.ask("POST", "/v2/models/m/infer", body, named))


def read(reply: Reply) -> list[float] | str:
    if reply.status != 200:
        return str(reply.json["error"])
    length = reply.headers["Inference-Header-Content-Length"]
    body = reply.body
    if reply.headers["Content-Encoding"] == "gzip":
        body = gzip.decompress(body)
    found = decode_response(body, int(length) if length else None).outputs["y"]
    return [float(value) for value in found]


def as_json(values: list[float]) -> bytes:
    tensor = {"name": "x", "shape": [len(values)], "datatype": "FP32", "data": values}
    return json.dumps({"inputs": [tensor]}).encode()


def binary(rig: Rig, values: list[float]) -> list[float] | str:
    body, headers = encode_request({"x": np.array(values, np.float32)})
    return read(rig.running.ask("POST", "/v2/models/m/infer", body, headers))


def shared(rig: Rig, values: list[float]) -> list[float] | str:
    """A request whose input lies in a region of its own."""
    data = np.array(values, np.float32).tobytes()
    name = f"edgefleet-{uuid.uuid4().hex}"
    with Path("/dev/shm", name).open("xb") as region:
        region.write(data)
    try:
        at = f"/v2/systemsharedmemory/region/{name}"
        key = json.dumps({"key": f"/{name}", "offset": 0, "byte_size": len(data)})
        assert rig.running.ask("POST", f"{at}/register", key).status == 200
        where = {"shared_memory_region": name, "shared_memory_byte_size": len(data)}
        tensor = {"name": "x", "shape": [len(values)], "datatype": "FP32", "parameters": where}
        answer = rest(rig, json.dumps({"inputs": [tensor]}).encode())
        assert rig.running.ask("POST", f"{at}/unregister").status == 200
        return answer
    finally:
        Path("/dev/shm", name).unlink()


def message(values: list[float], *, typed: bool = False) -> bytes:
    request = pb.ModelInferRequest(model_name="m")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[len(values)])
    if typed:
        tensor.contents.fp32_contents.extend(values)
    else:
        request.raw_input_contents.append(np.array(values, np.float32).tobytes())
    data: bytes = request.SerializeToString()
    return data


def unary(rig: Rig, data: bytes) -> list[float] | str:
    call = rig.channel.unary_unary(SERVICE + "ModelInfer")
    try:
        answer = pb.ModelInferResponse.FromString(call(data, timeout=WAIT_S))
    except grpc.RpcError as error:
        return str(error.details())
    return floats(answer)


def stream(rig: Rig, data: bytes) -> list[float] | str:
    call = rig.channel.stream_stream(SERVICE + "ModelStreamInfer")
    (answer,) = call(iter([data]), timeout=WAIT_S)
    told = pb.ModelStreamInferResponse.FromString(answer)
    return told.error_message or floats(told.infer_response)


def floats(answer: pb.ModelInferResponse) -> list[float]:
    return [float(value) for value in np.frombuffer(answer.raw_output_contents[0], np.float32)]


FORMS: dict[str, Callable[[Rig, list[float]], list[float] | str]] = {
    "json": lambda rig, x: rest(rig, as_json(x)),
    "binary": binary,
    "gzip": lambda rig, x: rest(rig, gzip.compress(as_json(x)), Content_Encoding="gzip"),
    "deflate": lambda rig, x: rest(rig, zlib.compress(as_json(x)), Content_Encoding="deflate"),
    "compressed answer": lambda rig, x: rest(rig, as_json(x), Accept_Encoding="gzip"),
    "raw body": lambda rig, x: rest(
        rig, np.array(x, np.float32).tobytes(), Inference_Header_Content_Length="0"
    ),
    "grpc": lambda rig, x: unary(rig, message(x)),
    "typed grpc": lambda rig, x: unary(rig, message(x, typed=True)),
    "stream": lambda rig, x: stream(rig, message(x)),
}
if SystemRegions.supported():
    FORMS = {"shared memory": shared, **FORMS}
one_request = st.tuples(
    st.sampled_from(list(FORMS)), st.lists(st.integers(-1, 5).map(float), min_size=1, max_size=3)
)


def ask_all(rig: Rig, asked: list[tuple[str, list[float]]]) -> list[list[float] | str]:
    """The answers to requests that queue while a run holds the model."""
    gate = Gate()
    rig.entry.recent_p50_us = 50_000.0  # as if it were slow, so that it runs in the pool
    rig.model.during = gate
    with ThreadPoolExecutor(len(asked) + 1) as clients:
        holder = clients.submit(rig.running.infer, 0.0)
        gate.wait_for_run()
        rig.model.during = lambda: None
        rig.model.runs.clear()
        pending = [clients.submit(FORMS[form], rig, values) for form, values in asked]
        eventually(lambda: rig.queued == len(asked))
        gate.open.set()
        assert holder.result(WAIT_S).status == 200
        return [answer.result(WAIT_S) for answer in pending]


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(asked=st.lists(one_request, min_size=1, max_size=10))
def test_mixed_requests_that_queue_get_their_own_rows_and_failures(
    rig: Rig, asked: list[tuple[str, list[float]]]
) -> None:
    answers = ask_all(rig, asked)
    for (form, values), answer in zip(asked, answers, strict=True):
        if min(values) < 0:
            assert "negative" in answer, form
        else:
            assert answer == [value + 1 for value in values], form


def test_requests_of_all_forms_run_in_one_batch(rig: Rig) -> None:
    answers = ask_all(rig, [(form, [float(n)]) for n, form in enumerate(FORMS)])
    assert answers == [[n + 1.0] for n in range(len(FORMS))]
    assert rig.model.runs == [len(FORMS)]


def test_a_call_is_counted_timed_and_told_to_observers_with_its_trace(rig: Rig) -> None:
    seen: list[Any] = []
    table = rig.running.server.extensions.table
    before = rig.entry.requests.totals()
    table.observers.append(lambda *about: seen.append(about[-1]))
    try:
        for _ in range(5):
            call = rig.channel.unary_unary(SERVICE + "ModelInfer")
            _, ended = call.with_call(
                message([1.0]), timeout=WAIT_S, metadata=[("traceparent", TRACE)]
            )
            assert dict(ended.trailing_metadata())["traceparent"] == TRACE
        eventually(lambda: len(seen) == 5)
    finally:
        table.observers.clear()
    after = rig.entry.requests.totals()
    assert seen == [TRACE] * 5
    assert after.answered - before.answered == 5
    times = np.array(after[2:]) - np.array(before[2:])
    assert (times >= 0).all()
    assert times[0] >= times[1:].sum() > 0


@pytest.mark.parametrize(
    "limit,code",
    [("timeout", grpc.StatusCode.UNAVAILABLE), ("deadline", grpc.StatusCode.DEADLINE_EXCEEDED)],
)
def test_a_call_that_can_not_be_answered_in_time_is_refused_at_once(
    rig: Rig, limit: str, code: grpc.StatusCode
) -> None:
    rig.entry.recent_p50_us = (WAIT_S + 10) * 1e6
    request = pb.ModelInferRequest.FromString(message([1.0]))
    if limit == "timeout":
        request.parameters["timeout"].int64_param = 1000
    before = len(rig.model.runs)
    call = rig.channel.unary_unary(SERVICE + "ModelInfer")
    with pytest.raises(grpc.RpcError) as raised:
        call(request.SerializeToString(), timeout=WAIT_S if limit == "deadline" else None)
    rig.entry.recent_p50_us = None
    assert raised.value.code() is code
    assert "can't be met" in raised.value.details()
    assert len(rig.model.runs) == before


@pytest.mark.parametrize("typed", [False, True])
def test_lower_priority_numbers_go_first_in_every_form(rig: Rig, typed: bool) -> None:  # noqa: FBT001
    order: list[float] = []
    rig.entry.watchers = (lambda inputs, *_: order.append(float(inputs["x"][0])),)
    gate = Gate()
    rig.entry.recent_p50_us = 50_000.0
    rig.model.during = gate
    urgent = pb.ModelInferRequest.FromString(message([2.0] * MAX_ROWS, typed=typed))
    urgent.parameters["priority"].uint64_param = 1
    with ThreadPoolExecutor(3) as clients:
        clients.submit(rig.running.infer, 0.0)
        gate.wait_for_run()
        first = clients.submit(FORMS["json"], rig, [1.0] * MAX_ROWS)
        eventually(lambda: rig.queued == 1)
        second = clients.submit(unary, rig, urgent.SerializeToString())
        eventually(lambda: rig.queued == 2)
        rig.model.during = lambda: None
        gate.open.set()
        assert first.result(WAIT_S) == [2.0] * MAX_ROWS
        assert second.result(WAIT_S) == [3.0] * MAX_ROWS
    rig.entry.watchers = ()
    assert order == [0.0, 2.0, 1.0]


def test_a_connection_that_is_reset_takes_its_request_out_of_the_queue(rig: Rig) -> None:
    gate = Gate()
    rig.entry.recent_p50_us = 50_000.0
    rig.model.during = gate
    with ThreadPoolExecutor(1) as clients:
        holder = clients.submit(rig.running.infer, 0.0)
        gate.wait_for_run()
        rig.model.during = lambda: None
        body = as_json([1.0])
        head = f"POST /v2/models/m/infer HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
        client = rig.running.connect()
        client.sendall(head.encode() + body)
        eventually(lambda: rig.queued == 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        eventually(lambda: rig.queued == 0)
        rig.model.runs.clear()
        gate.open.set()
        assert holder.result(WAIT_S).status == 200
    assert rig.model.runs == []
    assert [service.held.bytes for service in rig.running.server._services] == [0]


class Echo(Model):
    """``x`` to ``y``, of any datatype."""

    def __init__(self, datatype: Datatype) -> None:
        super().__init__()
        self.interface = Interface(
            inputs=(TensorSpec(name="x", datatype=datatype, shape=(-1,)),),
            outputs=(TensorSpec(name="y", datatype=datatype, shape=(-1,)),),
        )

    def infer(
        self, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None
    ) -> dict[str, Any]:
        self.runs.append(len(inputs["x"]))
        self.during()
        return {"y": inputs["x"]}


@pytest.mark.parametrize(
    "datatype,values,raw",
    [
        ("BOOL", [[True], [False], [True, False]], b"\1\0"),
        ("BYTES", [["a"], ["bc"], ["", "d"]], b"\0\0\0\0\1\0\0\0d"),
    ],
)
def test_text_and_truth_values_run_together_too(
    datatype: Datatype, values: list[list[Any]], raw: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "max_rows", lambda *_: MAX_ROWS)
    model, gate = Echo(datatype), Gate()
    entry = served(model)

    def ask(x: list[Any]) -> Any:
        tensor = {"name": "x", "shape": [len(x)], "datatype": datatype, "data": x}
        body = json.dumps({"inputs": [tensor]})
        return running.ask("POST", "/v2/models/m/infer", body).json["outputs"][0]["data"]

    with (
        serving_grpc(table_of(entry), threads=2) as (running, address),
        grpc.insecure_channel(address) as channel,
        ThreadPoolExecutor(4) as clients,
    ):
        lane = running.server.extensions.lanes.lane(entry)
        assert ask(values[0]) == values[0]
        eventually(lambda: lane.max_rows == MAX_ROWS)
        entry.recent_p50_us = 50_000.0
        model.during = gate
        first = clients.submit(ask, values[0])
        gate.wait_for_run()
        model.runs.clear()
        pending = [clients.submit(ask, x) for x in values[:2]]
        request = pb.ModelInferRequest(model_name="m", raw_input_contents=[raw])
        request.inputs.add(name="x", datatype=datatype, shape=[2])
        call = channel.unary_unary(SERVICE + "ModelInfer")
        last = call.future(request.SerializeToString(), timeout=WAIT_S)
        eventually(lambda: len(lane._queue) == 3)
        gate.open.set()
        assert [future.result(WAIT_S) for future in (first, *pending)] == [values[0], *values[:2]]
        answer = pb.ModelInferResponse.FromString(last.result(WAIT_S))
    assert list(answer.raw_output_contents) == [raw]
    assert model.runs == [4]
