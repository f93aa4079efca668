"""Hostile bytes in gRPC calls: answers or errors that say what was wrong, and nothing is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_runtime.tests.onnx_models import plus
from device_runtime.tests.serve.grpc_serving import serving_grpc
from device_runtime.tests.serving import WAIT_S, served, table_of
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.onnxruntime import OnnxRuntimeEngine
from edgefleet_runtime.serve.grpc import inference_pb2 as pb
from edgefleet_runtime.serve.messages import MIB, Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVICE = "/inference.GRPCInferenceService/"
LIMITS = Limits(max_body_bytes=MIB, max_held_bytes=2 * MIB)
ALLOWED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
GOOD = pb.ModelInferRequest(
    model_name="m",
    inputs=[pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[2])],
    raw_input_contents=[bytes(8)],
).SerializeToString()
GOOD_ANSWER = b"\0\0\x80\x3f" * 2


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    path = plus(tmp_path_factory.mktemp("model") / "plus.onnx", 1)
    model = OnnxRuntimeEngine().load(path, EngineOptions(threads=1))
    with (
        serving_grpc(table_of(served(model)), limits=LIMITS) as (_, address),
        grpc.insecure_channel(address) as channel,
    ):
        yield channel


def test_contents_that_stand_elsewhere_than_clients_put_them_are_found(
    channel: grpc.Channel,
) -> None:
    at = GOOD.index(b"\x3a\x08")
    moved = GOOD[at:] + GOOD[:at]
    for _ in range(10):
        assert refusal(channel, moved) is None


lengths = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 4)
tensors: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    name=st.sampled_from(["x", "", "y", "x" * 600]),
    datatype=st.sampled_from(["FP32", "BYTES", "BOOL", "FP16", "BF16", "INT64", "?"]),
    shape=st.lists(lengths, max_size=40),
)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A request that parses and may be wrong in every other way."""
    request = pb.ModelInferRequest(
        model_name=draw(st.sampled_from(["m", "m", "other", ""])),
        model_version=draw(st.sampled_from(["", "1", "9"])),
        id=draw(st.sampled_from(["", "7", "i" * 600])),
    )
    for tensor in draw(st.lists(tensors, max_size=3)):
        added = request.inputs.add(**tensor)
        if draw(st.booleans()):
            added.contents.fp32_contents.extend(draw(st.lists(st.floats(width=32), max_size=4)))
    for name in draw(st.lists(st.sampled_from(["y", "z", ""]), max_size=2)):
        request.outputs.add(name=name)
    for name in draw(st.lists(st.sampled_from(["priority", "timeout", "q"]), max_size=2)):
        request.parameters[name].int64_param = draw(lengths)
    request.raw_input_contents.extend(draw(st.lists(st.binary(max_size=20), max_size=3)))
    return bytes(request.SerializeToString())


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """A good request with a stretch cut out, doubled or written over."""
    start = draw(st.integers(0, len(GOOD)))
    end = min(len(GOOD), start + draw(st.integers(0, 8)))
    middle: bytes = draw(st.binary(max_size=8) | st.just(GOOD[start:end] * 2))
    return bytes(GOOD[:start] + middle + GOOD[end:])


def refusal(channel: grpc.Channel, data: bytes) -> grpc.RpcError | None:
    """Why a request was refused, if it was; a good one is answered after it."""
    refused = None
    try:
        channel.unary_unary(SERVICE + "ModelInfer")(data, timeout=WAIT_S)
    except grpc.RpcError as error:
        refused = error
    answer = channel.unary_unary(SERVICE + "ModelInfer")(GOOD, timeout=WAIT_S)
    assert pb.ModelInferResponse.FromString(answer).raw_output_contents[0] == GOOD_ANSWER
    return refused


@settings(max_examples=300, suppress_health_check=list(HealthCheck), deadline=None)
@given(data=messages() | spoiled() | st.binary(max_size=60))
def test_any_bytes_leave_a_server_that_answers(channel: grpc.Channel, data: bytes) -> None:
    error = refusal(channel, data)
    if error is not None:
        assert error.details()
        late = "timeout can't be met" in error.details()
        assert late or error.code() in ALLOWED, (error.code(), error.details())


def many_tensors() -> bytes:
    request = pb.ModelInferRequest(model_name="m")
    for number in range(20_000):
        request.inputs.add(name=f"x{number}", datatype="FP32", shape=[1])
    data: bytes = request.SerializeToString()
    return data


def many_raws() -> bytes:
    request = pb.ModelInferRequest.FromString(GOOD)
    request.raw_input_contents.extend([b""] * 100_000)
    data: bytes = request.SerializeToString()
    return data


@pytest.mark.parametrize(
    "data,code,said",
    [
        (many_tensors(), grpc.StatusCode.RESOURCE_EXHAUSTED, "may have"),
        (many_raws(), grpc.StatusCode.INVALID_ARGUMENT, "belong to no input"),
        (bytes(MIB + 1), grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than max"),
        (b"\x3a\xff\xff\xff\xff\x07", grpc.StatusCode.INVALID_ARGUMENT, "malformed"),
        (b"\x2b" * 10_000, grpc.StatusCode.INVALID_ARGUMENT, "malformed"),
    ],
)
def test_what_would_grow_is_refused_with_its_reason(
    channel: grpc.Channel, data: bytes, code: grpc.StatusCode, said: str
) -> None:
    error = refusal(channel, data)
    assert error is not None
    assert error.code() is code
    assert said in error.details()
