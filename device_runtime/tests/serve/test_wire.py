"""Requests in forms that only extensions know: whatever comes gives arrays or an error of ours."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_runtime.tests.serve.triton import shared_object
from edgefleet.errors import EdgeFleetError, InvalidInputError
from edgefleet.protocol.bundle import Interface, TensorSpec
from edgefleet_runtime.serve.extensions.memory import SharedMemory
from edgefleet_runtime.serve.extensions.shared_memory import Region, SystemRegions
from edgefleet_runtime.serve.extensions.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(not SystemRegions.supported(), reason="no /dev/shm here")
ANY = st.none() | st.booleans() | st.integers(-3, 2**64) | st.text(max_size=3) | st.floats()


def interface(*shape: int, datatype: Any = "FP32", inputs: int = 1) -> Interface:
    specs = [TensorSpec(name=f"x{n}", datatype=datatype, shape=shape) for n in range(inputs)]
    return Interface(inputs=tuple(specs), outputs=())


@pytest.fixture(scope="module")
def regions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedMemory]:
    folder: Path = tmp_path_factory.mktemp("shm")
    regions = SharedMemory(SystemRegions(max_bytes=1000, folder=folder))
    with shared_object(64, folder=folder) as path:
        regions.register(Region(name="r", key=path.name, offset=0, byte_size=64))
        yield regions
    regions.close()


@settings(
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.dictionaries(
        st.sampled_from(
            ["shared_memory_region", "shared_memory_byte_size", "shared_memory_offset", "other"]
        ),
        ANY | st.sampled_from(["r", 4, 8, 64]),
    ),
    st.sampled_from(["FP32", "INT8", "BYTES", "BOOL", "?"]),
    st.lists(st.integers(-1, 2**62) | st.integers(0, 4), max_size=3),
)
def test_any_placement(regions: SharedMemory, parameters: Any, datatype: str, shape: Any) -> None:
    tensor = {"name": "x0", "datatype": datatype, "shape": shape, "parameters": parameters}
    wanted = [{"name": "y", "parameters": parameters}]
    body = json.dumps({"inputs": [tensor], "outputs": wanted}).encode()
    wire = Wire(interface=interface(-1), regions=regions, coding=None)
    try:
        array = wire.decode(body, None).inputs["x0"]
    except EdgeFleetError:
        return
    assert list(array.shape) == shape


@given(
    st.binary(max_size=70),
    st.lists(st.integers(-1, 4), max_size=3),
    st.sampled_from(["FP32", "INT8", "BYTES", "BOOL", "FP64", "BF16"]),
)
def test_any_raw_body(body: bytes, shape: list[int], datatype: str) -> None:
    wire = Wire(interface=interface(*shape, datatype=datatype), regions=None, coding=None)
    try:
        array = wire.decode(body, 0).inputs["x0"]
    except EdgeFleetError:
        return
    if datatype == "BYTES":
        assert array.item() == body
    else:
        assert array.nbytes == len(body)
        assert all(length in {-1, seen} for length, seen in zip(shape, array.shape, strict=True))


def test_a_raw_body_needs_a_model_of_one_input_whose_shape_it_tells() -> None:
    for model, said in ((interface(4, inputs=2), "one input"), (interface(-1, -1), "shape")):
        with pytest.raises(InvalidInputError, match=said):
            Wire(interface=model, regions=None, coding=None).decode(bytes(16), 0)


def test_one_answer_mixes_shared_memory_raw_bytes_and_json(regions: SharedMemory) -> None:
    outputs = [
        {"name": "a", "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 8}},
        {"name": "b", "parameters": {"binary_data": True}},
        {"name": "c"},
    ]
    tensor = {"name": "x0", "datatype": "FP32", "shape": [1], "data": [1]}
    wire = Wire(interface=interface(-1), regions=regions, coding=None)
    body = json.dumps({"id": "i", "inputs": [tensor], "outputs": outputs}).encode()
    asked = wire.decode(body, None)
    values = {name: np.array([n, n], np.float32) for n, name in enumerate("abc", 1)}
    encoded = wire.encode("m", "1", values, asked)
    header = json.loads(encoded.body[: encoded.header_length])
    a, b, c = header["outputs"]
    assert header["id"] == "i"
    assert a["parameters"] == {"shared_memory_region": "r", "shared_memory_byte_size": 8}
    assert bytes(regions.system.read("r", 0, 8)) == values["a"].tobytes()
    assert b["parameters"] == {"binary_data_size": 8}
    assert encoded.body[encoded.header_length :] == values["b"].tobytes()
    assert c["data"] == [3, 3]
