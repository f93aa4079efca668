"""An ensemble as Triton's own clients, unmodified, see it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from tritonclient.utils import InferenceServerException

from device_runtime.tests.serve.grpc_serving import serving_grpc
from device_runtime.tests.standalone.test_ensembles import Stand, model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Talk = tuple[Any, Any]
    """A client and the module it is from."""

X = np.array([1, 2], np.float32)


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    stand = Stand(tmp_path)
    stand.repository.load("both")
    return stand


@pytest.fixture(params=["http", "grpc"])
def talk(request: pytest.FixtureRequest, stand: Stand) -> Iterator[Talk]:
    with serving_grpc(stand.table) as (running, address):
        if request.param == "grpc":
            with grpc_client.InferenceServerClient(address) as client:
                yield client, grpc_client
            return
        host, port = running.address
        with http_client.InferenceServerClient(f"{host}:{port}") as client:
            yield client, http_client


def ask(talk: Talk, **more: Any) -> Any:
    client, kind = talk
    tensor = kind.InferInput("in", [2], "FP32")
    tensor.set_data_from_numpy(X)
    return client.infer("both", [tensor], **more)


def plain(talk: Talk, method: str, *args: Any) -> Any:
    """What a client tells, as JSON."""
    client, kind = talk
    more = {"as_json": True} if kind is grpc_client else {}
    return getattr(client, method)(*args, **more)


def test_it_answers_like_a_model(talk: Talk) -> None:
    for _ in range(3):  # the first time by decoding, then by plan
        np.testing.assert_array_equal(ask(talk).as_numpy("out"), X + 11)
    outputs = [talk[1].InferRequestedOutput("out")]
    np.testing.assert_array_equal(ask(talk, outputs=outputs).as_numpy("out"), X + 11)


def test_its_metadata_are_those_of_the_whole(talk: Talk) -> None:
    told = plain(talk, "get_model_metadata", "both")
    assert told["platform"] == "ensemble"
    assert [tensor["name"] for tensor in told["inputs"]] == ["in"]
    assert [tensor["name"] for tensor in told["outputs"]] == ["out"]


def test_its_configuration_names_its_steps(talk: Talk) -> None:
    told = plain(talk, "get_model_config", "both")
    config = told.get("config", told)
    assert config["platform"] == "ensemble"
    assert not config.get("backend")
    steps = config["ensemble_scheduling"]["step"]
    maps = [(step["model_name"], step["input_map"], step["output_map"]) for step in steps]
    assert maps == [("b", {"x": "t"}, {"y": "out"}), ("a", {"x": "in"}, {"y": "t"})]
    assert {int(step["model_version"]) for step in steps} == {-1}  # protobuf's JSON has text


def test_statistics_of_members_grow_with_its_requests(talk: Talk) -> None:
    for _ in range(2):
        ask(talk)
    told = plain(talk, "get_inference_statistics", "")
    counts = {model["name"]: int(model["inference_count"]) for model in told["model_stats"]}
    assert counts == {"both": 2, "a": 2, "b": 2}  # without the runs that try batches out


def test_what_it_can_not_take_is_told(talk: Talk) -> None:
    client, kind = talk
    tensor = kind.InferInput("in", [2], "INT32")
    tensor.set_data_from_numpy(X.astype(np.int32))
    with pytest.raises(InferenceServerException, match="input 'in' takes FP32, not INT32"):
        client.infer("both", [tensor])


def test_no_request_is_lost_or_mixed_while_a_member_is_swapped(talk: Talk, stand: Stand) -> None:
    done = threading.Event()

    def swap() -> None:
        try:
            for version in range(2, 12):
                model(stand.root, "a", 100.0 * version, str(version))
                stand.repository.load("a")
        finally:
            done.set()

    swapper = threading.Thread(target=swap)
    swapper.start()
    answers = set()
    while not done.is_set():
        answers.add(float(ask(talk).as_numpy("out")[0]))
    swapper.join()
    assert float(ask(talk).as_numpy("out")[0]) == 1111
    assert answers <= {12.0, *(11.0 + 100 * version for version in range(2, 12))}
