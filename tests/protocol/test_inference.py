"""Inference messages: round trips between both ends, the contract's examples, hostile bodies."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import jsonschema
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgefleet.errors import InvalidInputError
from edgefleet.protocol.inference import (
    HEADER_LENGTH,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)

if TYPE_CHECKING:
    from pathlib import Path

_NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
_ARRAYS = hnp.arrays(
    st.sampled_from(["?", "u1", "<i2", "<u8", "<f2", "<f4", "<f8"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
    elements=None,
)
_TENSORS = st.dictionaries(_NAMES, _ARRAYS, min_size=1, max_size=4)


def _header_length(headers: dict[str, str]) -> int | None:
    length = headers.get(HEADER_LENGTH)
    return None if length is None else int(length)


def _finite(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name: np.nan_to_num(a, posinf=1, neginf=1) for name, a in tensors.items()}


@given(tensors=_TENSORS, binary=st.booleans(), request_id=st.none() | _NAMES)
def test_requests_round_trip(
    tensors: dict[str, Any], *, binary: bool, request_id: str | None
) -> None:
    inputs = tensors if binary else _finite(tensors)
    body, headers = encode_request(inputs, outputs=["a", "b"], request_id=request_id, binary=binary)
    seen = decode_request(body, _header_length(headers))
    assert seen.id == request_id
    assert seen.outputs == {"a": binary, "b": binary}
    assert list(seen.inputs) == list(inputs)
    for name, array in inputs.items():
        assert seen.inputs[name].dtype == array.dtype
        np.testing.assert_array_equal(seen.inputs[name], array)


@given(tensors=_TENSORS, data=st.data())
def test_responses_round_trip_with_some_outputs_raw(
    tensors: dict[str, Any], data: st.DataObject
) -> None:
    outputs = _finite(tensors)
    raw = {name: data.draw(st.booleans()) for name in outputs}
    body = {
        "id": "7",
        "inputs": [],
        "outputs": [{"name": n, "parameters": {"binary_data": b}} for n, b in raw.items()],
    }
    request = decode_request(json.dumps(body).encode())
    sent = encode_response("m", "3", outputs, request=request)
    assert (sent.header_length is None) == (not any(raw.values()))
    seen = decode_response(sent.body, sent.header_length)
    assert (seen.model_name, seen.model_version, seen.id) == ("m", "3", "7")
    for name, array in outputs.items():
        np.testing.assert_array_equal(seen.outputs[name], array)


def test_null_for_no_parameters_is_read_as_none_as_kserve_writes_it() -> None:
    output = b'{"name":"y","shape":[1],"datatype":"FP32","parameters":null,"data":[2.0]}'
    head = b'{"model_name":"m","model_version":null,"id":"7","parameters":null,"outputs":['
    seen = decode_response(head + output + b"]}")
    assert seen.outputs["y"].tolist() == [2.0]
    assert seen.parameters == {}


@given(st.binary(max_size=300), st.none() | st.integers(-1, 301))
def test_arbitrary_bodies_are_refused_cleanly(body: bytes, header_length: int | None) -> None:
    for decode in (decode_request, decode_response):
        with pytest.raises(InvalidInputError, match=r"inference (request|response)"):
            decode(body, header_length)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
_HEADS = st.fixed_dictionaries(
    {"name": _JSON | st.just("x"), "datatype": _JSON | st.sampled_from(["FP32", "BYTES", "INT8"])},
    optional={
        "shape": _JSON | st.lists(st.integers(), max_size=4),
        "data": _JSON,
        "parameters": _JSON | st.fixed_dictionaries({"binary_data_size": _JSON}),
    },
)


@given(
    inputs=st.lists(_HEADS, max_size=3),
    outputs=_JSON,
    parameters=_JSON,
    tail=st.binary(max_size=40),
    binary=st.booleans(),
)
def test_near_misses_are_read_or_refused(
    inputs: list[Any], outputs: Any, parameters: Any, tail: bytes, *, binary: bool
) -> None:
    request = {"inputs": inputs, "outputs": outputs, "parameters": parameters}
    text = json.dumps(request, allow_nan=False, default=str) if _plain(request) else "{}"
    head = text.encode(errors="replace")
    with suppress(InvalidInputError):
        decode_request(head + tail * binary, len(head) if binary else None)


def _plain(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def _request(**changes: Any) -> bytes:
    tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}
    return json.dumps({"inputs": [{**tensor, **changes}]}).encode()


@pytest.mark.parametrize(
    "body,header_length,said",
    [
        (b"", None, "can't have 0 bytes"),
        (b"{}", 3, "can't have 3 bytes"),
        (b"{}", 0, "can't have 0 bytes"),
        (b"{}", None, "missing required field `inputs`"),
        (b"[1]", None, "malformed"),
        (b"\xff", None, "malformed"),
        (b'{"inputs":[{}]}', None, "missing required field"),
        (_request(shape=[-1]), None, "shape"),
        (_request(shape=[2**63]), None, "shape"),
        (_request(shape=["1"]), None, "shape"),
        (_request(name=""), None, "name"),
        (_request(name="n" * 513), None, "name"),
        (_request(datatype="FP31"), None, "no such datatype"),
        (_request(parameters={"binary_data_size": 4}), None, "either data or"),
        (_request(parameters={"shared_memory_region": "r"}), None, "not supported"),
        (b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32"}]}', None, "either data or"),
        (b'{"inputs":[],"outputs":[{"name":"y"},{"name":"y"}]}', None, "asked for twice"),
        (
            b'{"inputs":[],"outputs":[{"name":"y","parameters":{"classification":2}}]}',
            None,
            "not supported",
        ),
        (b'{"inputs":[],"parameters":{"binary_data_output":1}}', None, "true or false"),
        (b'{"inputs":[]}1234', 13, "belong to no input"),
    ],
)
def test_bad_requests_are_refused_with_a_reason(
    body: bytes, header_length: int | None, said: str
) -> None:
    with pytest.raises(InvalidInputError, match=said):
        decode_request(body, header_length)


@pytest.mark.parametrize(
    "size,said", [(5, "left"), (-1, "left"), (True, "whole number"), ("4", "whole number")]
)
def test_a_raw_size_that_lies_is_refused(size: object, said: str) -> None:
    tensor = {"name": "x", "shape": [1], "datatype": "FP32"}
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": size}}]}).encode()
    with pytest.raises(InvalidInputError, match=said):
        decode_request(head + b"1234", len(head))


def test_too_many_tensors_are_refused() -> None:
    one = {"name": "x", "shape": [0], "datatype": "FP32", "data": []}
    body = json.dumps({"inputs": [{**one, "name": f"x{i}"} for i in range(257)]}).encode()
    with pytest.raises(InvalidInputError, match="256"):
        decode_request(body)


def test_an_input_given_twice_is_refused() -> None:
    one = {"name": "x", "shape": [0], "datatype": "FP32", "data": []}
    with pytest.raises(InvalidInputError, match="given twice"):
        decode_request(json.dumps({"inputs": [one, one]}).encode())


def test_one_text_for_the_outputs_is_told_how_to_write_it() -> None:
    with pytest.raises(InvalidInputError, match="'scores' is one text") as caught:
        encode_request({"x": np.ones(4, np.float32)}, outputs="scores")
    assert caught.value.cure == 'give a list: ["scores"]'


def test_raw_tensors_start_aligned_so_that_they_are_not_copied() -> None:
    body, headers = encode_request({"x": np.ones(4, np.float32)})
    length = _header_length(headers)
    assert length is not None
    assert length % 16 == 0
    assert not decode_request(body, length).inputs["x"].flags.owndata


def test_outputs_default_to_json() -> None:
    asked = decode_request(_request())
    sent = encode_response("m", "1", {"y": np.ones((1, 2), np.float32)}, request=asked)
    assert sent.headers == {"Content-Type": "application/json"}
    assert json.loads(sent.body)["outputs"] == [
        {"name": "y", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 1.0]}
    ]


def test_the_contracts_example_is_understood_and_ours_validates(contracts: Path) -> None:
    text = (contracts / "oip" / "open_inference_rest.yaml").read_text()
    schemas = yaml.safe_load(text)["components"]["schemas"]
    example = schemas["inference_request"]["x-examples"]["Example 1"]
    example["inputs"] = example["inputs"][:1]  # the other one's data doesn't fill its shape
    seen = decode_request(json.dumps(example).encode())
    assert (seen.id, seen.outputs) == ("42", {"output0": False})
    assert seen.inputs["input0"].tolist() == [[1, 2], [3, 4]]
    request, _ = encode_request({"x": np.ones((2, 2), np.float32)}, outputs=["y"], binary=False)
    answer = encode_response("m", "1", {"y": np.ones((2, 2), np.float32)}, request=seen)
    for name, body in (("inference_request", request), ("inference_response", answer.body)):
        schema = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}}
        jsonschema.validate(json.loads(body), schema)
