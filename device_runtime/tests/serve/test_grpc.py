"""gRPC in what no client of Triton's sends: typed contents, broken messages, limits, refusals."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from device_runtime.tests import onnx_models
from device_runtime.tests.serve import triton
from device_runtime.tests.serve.grpc_serving import serving_grpc
from device_runtime.tests.serving import WAIT_S, FakeModel, Gate, served, table_of
from edgefleet.errors import ConfigurationError, ConflictError, EdgeFleetError
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.onnxruntime import OnnxRuntimeEngine
from edgefleet_runtime.serve.extensions.service import Extensions
from edgefleet_runtime.serve.extensions.shared_memory import SystemRegions
from edgefleet_runtime.serve.grpc import inference_pb2 as pb
from edgefleet_runtime.serve.grpc.server import GrpcServer
from edgefleet_runtime.serve.grpc.tensors import inputs_of
from edgefleet_runtime.serve.messages import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

METHOD = "/inference.GRPCInferenceService/"
TYPES = {
    "BOOL": (TensorProto.BOOL, "bool_contents", [True, False]),
    "INT8": (TensorProto.INT8, "int_contents", [-128, 127]),
    "UINT16": (TensorProto.UINT16, "uint_contents", [0, 65535]),
    "INT64": (TensorProto.INT64, "int64_contents", [-(2**63), 2**63 - 1]),
    "UINT64": (TensorProto.UINT64, "uint64_contents", [0, 2**64 - 1]),
    "FP32": (TensorProto.FLOAT, "fp32_contents", [0.5, -3.0]),
    "FP64": (TensorProto.DOUBLE, "fp64_contents", [0.1, 1e300]),
    "BYTES": (TensorProto.STRING, "bytes_contents", [b"caf\xc3\xa9", b""]),
}


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    folder, engine = tmp_path_factory.mktemp("models"), OnnxRuntimeEngine()
    models = [served(FakeModel(1))]
    for name, (kind, _, _) in TYPES.items():
        path = onnx_models.identity(folder / f"{name}.onnx", kind)
        models.append(served(engine.load(path, EngineOptions(threads=1)), name))
    limits = Limits(max_body_bytes=100_000)
    with (
        serving_grpc(table_of(*models), limits=limits) as (_, address),
        grpc.insecure_channel(address) as channel,
    ):
        yield channel


def call(channel: grpc.Channel, method: str, request: bytes) -> bytes:
    answer: bytes = channel.unary_unary(METHOD + method)(request, timeout=WAIT_S)
    return answer


def infer(channel: grpc.Channel, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    response = pb.ModelInferResponse()
    response.ParseFromString(call(channel, "ModelInfer", request.SerializeToString()))
    return response


def request_of(
    model: str = "m", datatype: str = "FP32", shape: Any = (1,), **contents: Any
) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=model)
    tensor = request.inputs.add(name="x", datatype=datatype, shape=shape)
    for field, value in contents.items():
        getattr(tensor.contents, field).extend(value)
    return request


@pytest.mark.parametrize("datatype", TYPES)
def test_typed_contents_of_each_type_come_back_bit_for_bit(
    channel: grpc.Channel, datatype: str
) -> None:
    _, field, elements = TYPES[datatype]
    response = infer(channel, request_of(datatype, datatype, (2,), **{field: elements}))
    data = response.raw_output_contents[0]
    if datatype == "BYTES":
        assert data == b"\5\0\0\0caf\xc3\xa9\0\0\0\0"
    else:
        kinds = {"BOOL": "?", "FP32": "<f4", "FP64": "<f8"}
        kind = kinds.get(datatype) or np.dtype(datatype.lower())
        assert np.frombuffer(data, kind).tolist() == elements


def raw(*parts: bytes, **more: Any) -> pb.ModelInferRequest:
    request = request_of(**more)
    request.raw_input_contents.extend(parts)
    return request


def twice() -> pb.ModelInferRequest:
    request = request_of(fp32_contents=[1])
    request.inputs.append(request.inputs[0])
    return request


@pytest.mark.parametrize(
    "request_,said",
    [
        (raw(b"123"), "takes 4"),
        (raw(b"1234", b"5"), "belong to no input"),
        (raw(b"1234", fp32_contents=[1]), "elsewhere as well"),
        (raw(b"1234", shape=(-1,)), "negative"),
        (raw(b"1234", shape=(2**62, 2**62)), "over the limit"),
        (request_of(fp32_contents=[1, 2]), "takes 1 elements"),
        (request_of(int_contents=[1]), "1 elsewhere"),
        (request_of(shape=(2**40,), fp32_contents=[1]), "over the limit"),
        (request_of("INT8", "INT8", int_contents=[300]), "is no INT8"),
        (request_of("m", "FP16", fp32_contents=[1]), "use raw_input_contents"),
        (request_of("m", "FP31", fp32_contents=[1]), "no such datatype"),
        (request_of("INT8", "INT8", int_contents=[1]), None),
        (twice(), "twice"),
    ],
)
def test_what_is_wrong_is_said(
    channel: grpc.Channel, request_: pb.ModelInferRequest, said: str | None
) -> None:
    if said is None:
        assert infer(channel, request_).raw_output_contents[0] == b"\1"
        return
    with pytest.raises(grpc.RpcError) as raised:
        infer(channel, request_)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert said in raised.value.details()


@pytest.mark.parametrize("method", ["ModelInfer", "ModelConfig", "RepositoryModelLoad"])
def test_bytes_that_are_no_message_are_the_callers_fault(
    channel: grpc.Channel, method: str
) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        call(channel, method, b"\xff\xff\xff")
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "malformed" in raised.value.details()


def test_a_message_over_the_limit_is_refused(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        infer(channel, raw(bytes(200_000), shape=(50_000,)))
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert infer(channel, raw(bytes(4))).raw_output_contents[0] == np.float32(1).tobytes()


def test_a_methods_absence_is_said(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        call(channel, "TraceSetting", b"")
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_failing_model_is_an_internal_error_without_its_secrets() -> None:
    def fail() -> None:
        raise ZeroDivisionError("secret")

    with (
        serving_grpc(table_of(served(FakeModel(0, fail)))) as (_, address),
        grpc.insecure_channel(address) as channel,
        pytest.raises(grpc.RpcError) as raised,
    ):
        infer(channel, raw(bytes(4)))
    assert raised.value.code() is grpc.StatusCode.INTERNAL
    assert raised.value.details() == "internal error"


def test_overload_is_refused(gate: Gate) -> None:
    model = served(FakeModel(1, gate))
    with (
        serving_grpc(table_of(model), limits=Limits(max_requests=1), threads=1) as (_, address),
        grpc.insecure_channel(address) as channel,
    ):
        call_infer = channel.unary_unary(METHOD + "ModelInfer")
        first = call_infer.future(raw(bytes(4)).SerializeToString())
        gate.wait_for_run()
        second = call_infer.future(raw(bytes(4)).SerializeToString())
        call(channel, "ServerLive", b"")
        with pytest.raises(grpc.RpcError) as raised:
            infer(channel, raw(bytes(4)))
        gate.open.set()
        assert first.result(WAIT_S)
        assert second.result(WAIT_S)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "1 requests are waiting" in raised.value.details()


def test_a_caller_that_goes_takes_its_request_out_of_the_queue(gate: Gate) -> None:
    model = served(FakeModel(1, gate))
    with (
        serving_grpc(table_of(model), limits=Limits(max_requests=1), threads=1) as (_, address),
        grpc.insecure_channel(address) as channel,
    ):
        call_infer = channel.unary_unary(METHOD + "ModelInfer")
        first = call_infer.future(raw(bytes(4)).SerializeToString())
        gate.wait_for_run()
        second = call_infer.future(raw(bytes(4)).SerializeToString())
        call(channel, "ServerLive", b"")
        second.cancel()
        eventually(lambda: model.requests.totals().failed == 1)
        third = call_infer.future(raw(bytes(4)).SerializeToString())
        gate.open.set()
        assert first.result(WAIT_S)
        assert third.result(WAIT_S)
    assert model.inferences == 2


def test_observers_learn_of_answers() -> None:
    table = table_of(served(FakeModel(1)))
    seen: list[Any] = []
    table.observers.append(
        lambda model, outputs, us, key, trace=None: seen.append((model.name, key))
    )
    with (
        serving_grpc(table) as (_, address),
        grpc.insecure_channel(address) as channel,
    ):
        for key in ("a", "b", "c"):
            request = raw(bytes(4))
            request.id = key
            infer(channel, request)
    assert seen == [("m", "a"), ("m", "b"), ("m", "c")]


def test_other_machines_are_not_served_unless_somebody_says_so() -> None:
    with pytest.raises(ConfigurationError, match="--allow-remote"):
        GrpcServer(Extensions(table_of()), "0.0.0.0")


def test_connections_beyond_the_limit_are_closed() -> None:
    with serving_grpc(table_of(), limits=Limits(max_connections=2)) as (_, address):
        host, _, port = address.rpartition(":")
        clients = [socket.create_connection((host, int(port)), WAIT_S) for _ in range(4)]
        try:
            eventually(lambda: sum(map(is_closed, clients)) == 2)
        finally:
            for client in clients:
                client.close()


def is_closed(client: socket.socket) -> bool:
    """Whether the server has hung up; it sends its settings to those it serves."""
    client.setblocking(False)
    try:
        return client.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_a_client_that_does_not_shake_hands_is_dropped() -> None:
    with serving_grpc(table_of(), limits=Limits(head_timeout_s=0.2)) as (_, address):
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), WAIT_S) as client:
            while client.recv(1 << 10):  # the server's settings, then the end
                pass


@pytest.mark.skipif(not SystemRegions.supported(), reason="no /dev/shm on this system")
def test_what_two_servers_share_lasts_until_both_have_stopped() -> None:
    with (
        triton.shared_object(4) as memory,
        serving_grpc(table_of()) as (rest, address),
        tritonclient.grpc.InferenceServerClient(address) as asking,
    ):
        asking.register_system_shared_memory("r", f"/{memory.name}", 4)
        rest.stop()
        assert "r" in asking.get_system_shared_memory_status().regions


def test_a_port_in_use_is_a_conflict() -> None:
    async def second(address: str) -> None:
        host, _, port = address.rpartition(":")
        await GrpcServer(Extensions(table_of()), host, int(port)).start()

    with (
        serving_grpc(table_of()) as (running, address),
        pytest.raises(ConflictError, match="in use"),
    ):
        asyncio.run_coroutine_threadsafe(second(address), running.loop).result(WAIT_S)


def test_a_living_servers_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "s"

    async def second() -> None:
        await GrpcServer(Extensions(table_of()), None, uds=path).start()

    with serving_grpc(table_of(), host=None, uds=path) as (running, _):
        with pytest.raises(ConflictError, match="another process serves"):
            asyncio.run_coroutine_threadsafe(second(), running.loop).result(WAIT_S)
        assert path.exists()


@settings(max_examples=300)
@given(
    st.builds(
        dict,
        datatype=st.sampled_from([*TYPES, "FP16", "BF16", "X"]),
        shape=st.lists(st.integers(-2, 2**62) | st.integers(0, 4), max_size=5),
        data=st.binary(max_size=64),
        typed=st.booleans(),
        field=st.sampled_from(["int_contents", "uint_contents", "int64_contents"]),
        numbers=st.lists(st.integers(0, 2**31 - 1), max_size=4),
    )
)
def test_any_message_gives_arrays_or_an_error_of_ours(case: dict[str, Any]) -> None:
    request = request_of("m", case["datatype"], case["shape"])
    if case["typed"]:
        getattr(request.inputs[0].contents, case["field"]).extend(case["numbers"])
    else:
        request.raw_input_contents.append(case["data"])
    try:
        array = inputs_of(request, Extensions(table_of()).memory)["x"]
    except EdgeFleetError:
        return
    assert list(array.shape) == case["shape"]
