"""Swapping models while requests come: none is lost, none is mixed, and the old ones close."""

from __future__ import annotations

import http.client
import json
import threading
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from device_runtime.tests import onnx_models
from device_runtime.tests.serve.grpc_serving import serving_grpc
from device_runtime.tests.serving import WAIT_S, FakeModel, served, serving, table_of
from edgefleet.protocol.inference import decode_response, encode_request
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.onnxruntime import OnnxRuntimeEngine
from edgefleet_runtime.serve import lane
from edgefleet_runtime.serve.grpc import inference_pb2 as pb

if TYPE_CHECKING:
    from pathlib import Path

    from device_runtime.tests.serving import Running
    from edgefleet_runtime.serve.table import ServedModel

SWAPS = 150
CLIENTS = 4


class Hammer(threading.Thread):
    """Asks on one connection until told to stop; keeps the versions it saw and what was wrong."""

    def __init__(self, running: Running, stop: threading.Event, *, binary: bool) -> None:
        super().__init__()
        self.running = running
        self.stop = stop
        self.binary = binary
        self.versions: set[str] = set()
        self.asked = 0
        self.wrong: list[object] = []

    def run(self) -> None:
        client = http.client.HTTPConnection(*self.running.address, timeout=WAIT_S)
        body, headers = encode_request({"x": np.zeros(3, np.float32)}, binary=self.binary)
        while not self.stop.is_set() or self.asked < 2:
            self.asked += 1
            try:
                client.request("POST", "/v2/models/m/infer", body, headers)
                answer = client.getresponse()
                content = answer.read()
                if answer.status != 200:
                    self.wrong.append((answer.status, content))
                    continue
                length = answer.headers.get("Inference-Header-Content-Length")
                seen = decode_response(content, int(length) if length else None)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.wrong.append(error)
                break
            version = seen.model_version or ""
            self.versions.add(version)
            # The model of version N answers N: another one's outputs would show.
            if seen.outputs["y"].tolist() != [float(version)] * 3:
                self.wrong.append((version, seen.outputs))
        client.close()


class CallingHammer(Hammer):
    """The same over gRPC."""

    address: str

    def run(self) -> None:
        request = pb.ModelInferRequest(model_name="m", raw_input_contents=[bytes(12)])
        request.inputs.add(name="x", datatype="FP32", shape=[3])
        data = request.SerializeToString()
        with grpc.insecure_channel(self.address) as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            while not self.stop.is_set() or self.asked < 2:
                self.asked += 1
                try:
                    seen = pb.ModelInferResponse.FromString(call(data, timeout=WAIT_S))
                except grpc.RpcError as error:
                    self.wrong.append(error)
                    break
                self.versions.add(seen.model_version)
                due = np.full(3, float(seen.model_version), np.float32).tobytes()
                if [*seen.raw_output_contents] != [due]:
                    self.wrong.append(seen)


@pytest.mark.parametrize("pooled", [False, True], ids=["inline", "pooled"])
def test_no_request_is_lost_or_mixed_by_swaps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, pooled: bool
) -> None:
    monkeypatch.setattr(lane, "INLINE_RUN_US", 0.0 if pooled else 1e9)
    engine = OnnxRuntimeEngine()
    paths = [onnx_models.plus(tmp_path / f"{n}.onnx", n) for n in (1, 2)]

    def load(version: int) -> ServedModel:
        model = engine.load(paths[version - 1], EngineOptions(threads=1))
        return served(model, version=str(version))

    table = table_of(load(1))
    retired: list[Any] = []
    stop = threading.Event()
    with serving_grpc(table) as (running, address):
        kinds = (Hammer, CallingHammer)
        hammers = [kinds[n // 2](running, stop, binary=bool(n % 2)) for n in range(CLIENTS)]
        CallingHammer.address = address
        for hammer in hammers:
            hammer.start()
        for number in range(SWAPS):
            for old in table.swap({"m": load(2 - number % 2)}):
                old.retire()
                retired.append(old)
        stop.set()
        for hammer in hammers:
            hammer.join(WAIT_S)
    assert [hammer.wrong for hammer in hammers] == [[]] * CLIENTS
    assert set().union(*(hammer.versions for hammer in hammers)) == {"1", "2"}
    assert len(retired) == SWAPS
    # The last run's thread may still be on its way back.
    eventually(lambda: all(old.model._session is None for old in retired))


def test_a_request_in_flight_finishes_on_the_model_it_started_with() -> None:
    started, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        started.set()
        assert go_on.wait(WAIT_S)

    old = served(FakeModel(1, hold), version="1")
    table = table_of(old)
    answers: list[Any] = []
    with serving(table) as running:
        client = threading.Thread(target=lambda: answers.append(running.infer(0).json))
        client.start()
        assert started.wait(WAIT_S)
        for left in table.swap({"m": served(FakeModel(2), version="2")}):
            left.retire()
        assert not old.model.closed  # type: ignore[attr-defined]
        assert running.infer(0).json["model_version"] == "2"
        go_on.set()
        client.join(WAIT_S)
    assert answers[0]["model_version"] == "1"
    assert answers[0]["outputs"][0]["data"] == [1.0]
    assert old.model.closed  # type: ignore[attr-defined]


def test_a_model_that_left_the_table_is_not_found() -> None:
    table = table_of(served(FakeModel()))
    with serving(table) as running:
        assert running.infer(0).status == 200
        table.swap({})
        reply = running.infer(0)
    assert reply.status == 404
    assert json.loads(reply.body)["error"].endswith("served now: none")
