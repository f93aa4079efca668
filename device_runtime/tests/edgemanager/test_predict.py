"""Predictions and descriptions, asked by a client built from AWS's definitions."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from device_runtime.tests import onnx_models
from device_runtime.tests.edgemanager.agent_client import AgentClient
from device_runtime.tests.edgemanager.agent_serving import serving_agent
from device_runtime.tests.serving import WAIT_S, FakeModel, Gate, served, table_of
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.onnxruntime import OnnxRuntimeEngine
from edgefleet_runtime.serve.messages import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KINDS = {
    "UINT8": (TensorProto.UINT8, "u1"), "INT16": (TensorProto.INT16, "i2"),
    "INT32": (TensorProto.INT32, "i4"), "INT64": (TensorProto.INT64, "i8"),
    "FLOAT16": (TensorProto.FLOAT16, "f2"), "FLOAT32": (TensorProto.FLOAT, "f4"),
    "FLOAT64": (TensorProto.DOUBLE, "f8"),
}  # fmt: skip
MAX_BYTES = 100_000
X = np.array([1.0, -2.5, 3.0], np.float32)


def code_of(raised: pytest.ExceptionInfo[grpc.RpcError]) -> str:
    name: str = raised.value.code().name
    return name


@pytest.fixture(scope="module")
def client(contract: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentClient]:
    folder, engine = tmp_path_factory.mktemp("models"), OnnxRuntimeEngine()

    def loaded(name: str, path: Path) -> Any:
        return served(engine.load(path, EngineOptions(threads=1)), name)

    models = [
        loaded(name, onnx_models.identity(folder / f"{name}.onnx", kind))
        for name, (kind, _) in KINDS.items()
    ]
    models += [
        loaded("bool", onnx_models.identity(folder / "b.onnx", TensorProto.BOOL)),
        loaded("mlp", onnx_models.mlp(folder / "mlp.onnx")),
        loaded("open", onnx_models.identity(folder / "o.onnx", TensorProto.FLOAT, ("a", "b"))),
    ]
    table = table_of(*models)
    with (
        serving_agent(table, limits=Limits(max_body_bytes=MAX_BYTES)) as address,
        AgentClient(contract, address) as client,
    ):
        yield client


@pytest.mark.parametrize("name", KINDS)
def test_each_type_comes_back_bit_for_bit(client: AgentClient, name: str) -> None:
    array = np.array([1, 2, 100], KINDS[name][1])
    answer = client.predict(name, client.tensor("x", array))
    np.testing.assert_array_equal(answer["y"], array, strict=True)


def test_models_are_listed_with_their_tensors(client: AgentClient) -> None:
    models = {model.name: model for model in client.ListModels().models}
    assert models.keys() == {*KINDS, "bool", "mlp", "open"}
    (x,), (y,) = models["mlp"].input_tensor_metadatas, models["mlp"].output_tensor_metadatas
    assert (x.name, x.data_type, list(x.shape)) == ("x", 5, [-1, 4])
    assert (y.name, y.data_type, list(y.shape)) == ("y", 5, [-1, 2])
    assert client.DescribeModel(name="mlp").model == models["mlp"]


def test_a_type_that_the_api_cannot_say_is_not_passed_off_as_another(client: AgentClient) -> None:
    model = client.DescribeModel(name="bool").model
    assert (len(model.input_tensor_metadatas), len(model.output_tensor_metadatas)) == (0, 0)
    with pytest.raises(grpc.RpcError, match="BOOL can't be said") as raised:
        client.predict("bool", client.tensor("x", np.array([1], np.uint8)))
    assert code_of(raised) == "INVALID_ARGUMENT"


def test_a_shape_may_come_back_as_it_was_told(client: AgentClient) -> None:
    (described,) = client.DescribeModel(name="mlp").model.input_tensor_metadatas
    data = np.ones((3, 4), np.float32).tobytes()
    tensor = client.message("Tensor", tensor_metadata=described, byte_data=data)
    assert client.predict("mlp", tensor)["y"].shape == (3, 2)


def test_the_only_input_needs_no_metadata(client: AgentClient) -> None:
    tensor = client.message("Tensor", byte_data=X.tobytes())
    np.testing.assert_array_equal(client.predict("FLOAT32", tensor)["y"], X)


def refused(client: AgentClient) -> dict[str, tuple[Any, str, str]]:
    good = client.tensor("x", X)
    short = client.message("Tensor", tensor_metadata=good.tensor_metadata, byte_data=b"\0" * 5)
    empty = client.message("Tensor", tensor_metadata=good.tensor_metadata)
    handle = client.message("SharedMemoryHandle", segment_id=2**40)
    gone = client.message(
        "Tensor", tensor_metadata=good.tensor_metadata, shared_memory_handle=handle
    )
    several = client.message("TensorMetadata", name="x", data_type=5, shape=[-1, -1])
    vague = client.message("Tensor", tensor_metadata=several, byte_data=b"\0" * 4)
    odd = client.message("TensorMetadata", name="x", data_type=77, shape=[1])
    return {
        "no such model": ([good], "NOT_FOUND", "not served here"),
        "another type": ([client.tensor("x", X.astype("f8"))], "INVALID_ARGUMENT", "FP32"),
        "no such type": (
            [client.message("Tensor", tensor_metadata=odd, byte_data=b"0000")],
            "INVALID_ARGUMENT",
            "data_type",
        ),
        "another name": ([client.tensor("z", X)], "INVALID_ARGUMENT", "no input 'z'"),
        "twice": ([good, good], "INVALID_ARGUMENT", "twice"),
        "nothing": ([], "INVALID_ARGUMENT", "x"),
        "too short": ([short], "INVALID_ARGUMENT", "bytes"),
        "no data": ([empty], "INVALID_ARGUMENT", "no data"),
        "no segment": ([gone], "NOT_FOUND", "segment"),
        "two open lengths": ([vague], "INVALID_ARGUMENT", "open"),
        "too many": ([good] * 2000, "RESOURCE_EXHAUSTED", "too many"),
    }


@pytest.mark.parametrize(
    "case",
    ["no such model", "another type", "no such type", "another name", "twice", "nothing",
     "too short", "no data", "no segment", "two open lengths", "too many"],
)  # fmt: skip
def test_what_is_wrong_is_said(client: AgentClient, case: str) -> None:
    tensors, code, said = refused(client)[case]
    with pytest.raises(grpc.RpcError) as raised:
        client.predict("absent" if case == "no such model" else "FLOAT32", *tensors)
    assert code_of(raised) == code
    assert said in (raised.value.details() or "")


def test_a_model_that_is_absent_is_not_described(client: AgentClient) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        client.DescribeModel(name="absent")
    assert code_of(raised) == "NOT_FOUND"


def test_a_name_of_any_length_is_refused_in_few_words(client: AgentClient) -> None:
    for ask in (client.DescribeModel, client.Predict, client.UnLoadModel):
        with pytest.raises(grpc.RpcError) as raised:
            ask(name="n" * 50_000)
        assert len(raised.value.details() or "") < 500


def test_a_message_over_the_limit_is_refused(client: AgentClient) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        client.predict("FLOAT32", client.tensor("x", np.zeros(MAX_BYTES, np.float32)))
    assert code_of(raised) == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize("method", ["Predict", "LoadModel", "CaptureData", "ListModels"])
def test_bytes_that_are_no_message_are_the_callers_fault(client: AgentClient, method: str) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        client.raw(method, b"\xff\xff\xff")
    assert code_of(raised) == "INVALID_ARGUMENT"


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    shape=st.lists(st.integers(-3, 2**31 - 1) | st.integers(0, 4), max_size=5),
    data=st.binary(max_size=40),
    kind=st.integers(0, 8),
    handle=st.none() | st.tuples(*[st.integers(0, 2**64 - 1)] * 3),
)
def test_any_tensor_is_answered_or_is_the_callers_fault(
    client: AgentClient, shape: list[int], data: bytes, kind: int, handle: Any
) -> None:
    metadata = client.message("TensorMetadata", name="x", data_type=kind, shape=shape)
    tensor = client.message("Tensor", tensor_metadata=metadata, byte_data=data)
    if handle is not None:
        tensor = client.message("Tensor", tensor_metadata=metadata)
        size, offset, segment = handle
        tensor.shared_memory_handle.size = size
        tensor.shared_memory_handle.offset = offset
        tensor.shared_memory_handle.segment_id = segment
    try:
        client.predict("open", tensor)
    except grpc.RpcError as error:
        assert error.code().name in {  # noqa: PT017 - an answer is fine as well
            "INVALID_ARGUMENT",
            "NOT_FOUND",
            "RESOURCE_EXHAUSTED",
            "PERMISSION_DENIED",
        }, error


def test_a_failing_model_is_an_internal_error_without_its_secrets(contract: Path) -> None:
    def fail() -> None:
        raise ZeroDivisionError("secret")

    table = table_of(served(FakeModel(0, fail)))
    with (
        serving_agent(table) as address,
        AgentClient(contract, address) as client,
        pytest.raises(grpc.RpcError) as raised,
    ):
        client.predict("m", client.tensor("x", X))
    assert (code_of(raised), raised.value.details()) == ("INTERNAL", "internal error")
    assert table.get("m").requests.totals().failed == 1


def test_predictions_run_one_after_another_on_one_thread(contract: Path) -> None:
    ran_on: list[int] = []
    table = table_of(served(FakeModel(1, lambda: ran_on.append(threading.get_ident()))))
    with serving_agent(table) as address, AgentClient(contract, address) as client:
        tensor = client.tensor("x", X)
        threads = [threading.Thread(target=client.predict, args=("m", tensor)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
    assert (len(ran_on), len(set(ran_on))) == (8, 1)


def test_overload_is_refused(contract: Path) -> None:
    gate = Gate()
    table = table_of(served(FakeModel(1, gate)))
    with (
        serving_agent(table, limits=Limits(max_requests=1)) as address,
        AgentClient(contract, address) as client,
    ):
        tensor = client.tensor("x", X)
        first = threading.Thread(target=client.predict, args=("m", tensor))
        first.start()
        gate.wait_for_run()
        with pytest.raises(grpc.RpcError) as raised:
            client.predict("m", tensor)
        gate.open.set()
        first.join(WAIT_S)
    assert code_of(raised) == "UNAVAILABLE"


def test_observers_learn_of_answers_and_their_trace(contract: Path) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    table = table_of(served(FakeModel(1)))
    seen: list[Any] = []
    told = threading.Semaphore(0)

    def watch(model: Any, *about: Any) -> None:
        seen.append((model.name, about[-1]))
        told.release()

    table.observers.append(watch)
    with serving_agent(table) as address, AgentClient(contract, address) as client:
        tensors = [client.tensor("x", X)]
        client.Predict(name="m", tensors=tensors, metadata=[("traceparent", trace)])
        client.Predict(name="m", tensors=tensors)
        for _ in range(2):
            assert told.acquire(timeout=WAIT_S)
    assert seen == [("m", trace), ("m", None)]


def test_no_prediction_is_lost_or_mixed_by_swaps(contract: Path, tmp_path: Path) -> None:
    engine = OnnxRuntimeEngine()
    paths = [onnx_models.plus(tmp_path / f"{n}.onnx", n) for n in (1, 2)]

    def load(version: int) -> Any:
        model = engine.load(paths[version - 1], EngineOptions(threads=1))
        return served(model, version=str(version))

    table = table_of(load(1))
    stop = threading.Event()
    answers: list[list[float]] = []
    wrong: list[Exception] = []

    def hammer(client: AgentClient) -> None:
        tensor = client.tensor("x", np.zeros(3, np.float32))
        while not stop.is_set():
            try:
                answers.append(client.predict("m", tensor)["y"].tolist())
            except Exception as error:  # noqa: BLE001 - any of them is one too many
                wrong.append(error)

    with serving_agent(table) as address, AgentClient(contract, address) as client:
        threads = [threading.Thread(target=hammer, args=(client,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(100):
            for old in table.swap({"m": load(2 - number % 2)}):
                old.retire()
        stop.set()
        for thread in threads:
            thread.join(WAIT_S)
    assert wrong == []
    assert {tuple(answer) for answer in answers} == {(1.0,) * 3, (2.0,) * 3}
