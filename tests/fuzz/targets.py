"""What reads bytes from outside, each with bytes that it takes, for hypothesis and for atheris.

A target gets any bytes and returns, or raises one of our errors that says what was wrong. Anything
else, and memory out of proportion, is a defect.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edgefleet.errors import EdgeFleetError
from edgefleet.protocol import bundle as b
from edgefleet.protocol.documents import decode
from edgefleet.protocol.event import Event, read_event
from edgefleet.protocol.inference import (
    HEADER_LENGTH,
    decode_request,
    decode_response,
    encode_request,
)
from edgefleet.protocol.orders import CaptureOrder, TrialOrder
from edgefleet.protocol.pointer import read_pointer
from edgefleet.protocol.release import read_release
from edgefleet.protocol.report import read_report
from edgefleet.protocol.segment import read_segment
from edgefleet_runtime.serve.extensions.service import Extensions
from edgefleet_runtime.serve.grpc.calls import parse
from edgefleet_runtime.serve.grpc.inference_pb2 import ModelInferRequest
from edgefleet_runtime.serve.grpc.plans import plan_of
from edgefleet_runtime.serve.grpc.tensors import inputs_of, outputs_of
from edgefleet_runtime.serve.messages import Limits, decompressed
from edgefleet_runtime.serve.reader import Held, RequestReader
from edgefleet_runtime.serve.table import ModelTable
from edgefleet_runtime.standalone.model_config import read_model_config
from tests.fuzz.bundles import parts_of, read_bundle

MAX_PLAIN_BYTES = 1 << 20  # what a compressed body may become here
LIMITS = Limits(max_head_bytes=1024, max_body_bytes=4096, max_held_bytes=8192)
GOLDEN = Path(__file__).resolve().parent.parent / "contract" / "golden"


class Target(NamedTuple):
    """A reader of bytes, and bytes that it takes."""

    read: Callable[[bytes], object]
    seeds: tuple[bytes, ...]


def run(target: Target, data: bytes) -> EdgeFleetError | None:
    """Feed a target; the error it answered with, which says something, or None."""
    try:
        target.read(data)
    except EdgeFleetError as error:
        if not error.message:
            raise AssertionError from error
        return error
    return None


def _message(read: Callable[[bytes, int | None], object], data: bytes) -> None:
    """A first byte of 0 stands before two that say where the JSON header ends."""
    if data[:1] == b"\0":
        read(data[3:], int.from_bytes(data[1:3]))
    else:
        read(data, None)


def _wire(data: bytes) -> None:
    """Feeds in two cuts, so that what is kept between reads is reached too."""
    held = Held()
    reader = RequestReader(LIMITS, held)
    cut = data[0] if data else 0
    reader.feed(data[1:cut])
    reader.feed(data[max(1, cut) :])
    assert held.bytes <= LIMITS.max_held_bytes + len(data)
    reader.drop()
    assert held.bytes == 0


def _inflate(data: bytes) -> None:
    for encoding in ("gzip", "deflate"):
        try:
            assert len(decompressed(data, encoding, max_bytes=MAX_PLAIN_BYTES)) <= MAX_PLAIN_BYTES
        except EdgeFleetError as error:
            if not error.message:
                raise AssertionError from error


def _segment(data: bytes) -> None:
    for event in read_segment(io.BytesIO(data)):
        _look_into(event)


def _look_into(event: Event) -> None:
    bytes(event.data).decode()
    event.plain()
    event.payload()


def _manifest(data: bytes) -> None:
    manifest = b.read_manifest(data)
    b.files_of(manifest)
    b.blobs_of(manifest)


def _call(data: bytes) -> None:
    """What is remembered of a request must read as what protobuf read."""
    request = parse(ModelInferRequest, data)
    inputs = inputs_of(request, Extensions(ModelTable()).memory)
    outputs_of(request)
    plan = plan_of(data, request)
    if plan is not None:
        assert plan.fits(data)
        for name, array in plan.arrays(data).items():
            np.testing.assert_array_equal(array, inputs[name])


def _calls() -> tuple[bytes, ...]:
    """Requests with raw tensors, typed ones and text."""
    tensor = ModelInferRequest.InferInputTensor
    raw = ModelInferRequest(model_name="m", raw_input_contents=[bytes(8), bytes(2)])
    raw.inputs.append(tensor(name="x", datatype="FP32", shape=[2]))
    raw.inputs.append(tensor(name="b", datatype="UINT8", shape=[2]))
    raw.parameters["priority"].uint64_param = 3
    typed = ModelInferRequest(model_name="m", id="7")
    typed.inputs.append(tensor(name="x", datatype="INT8", shape=[1, 2]))
    typed.inputs[0].contents.int_contents.extend([-1, 5])
    typed.outputs.add(name="y")
    text = ModelInferRequest(model_name="m", raw_input_contents=[b"\x01\0\0\0a"])
    text.inputs.append(tensor(name="s", datatype="BYTES", shape=[1]))
    return tuple(request.SerializeToString() for request in (raw, typed, text))


def _golden(*names: str) -> tuple[bytes, ...]:
    return tuple((GOLDEN / name).read_bytes() for name in names)


def _encoded(part: str) -> tuple[bytes, ...]:
    """Tensors as raw bytes and as JSON, as ``inputs`` or as ``outputs``."""
    arrays = {
        "x": np.arange(6, dtype=np.float32).reshape(2, 3),
        "s": np.array([b"a", b"", b"\xff"], object),
        "b": np.array([True, False]),
    }
    text = {"x": arrays["x"], "s": np.array(["a", "ä"]), "h": np.ones(1, np.float16)}
    shown = {"model_name": "m", "outputs": [{"name": "y"}]}
    found = []
    for tensors, binary in ((arrays, True), (text, False)):
        body, headers = encode_request(tensors, binary=binary)
        length = int(headers.get(HEADER_LENGTH, len(body)))
        header = {"id": "7", **shown, **json.loads(body[:length])}
        if part == "outputs":
            header["outputs"] = header.pop("inputs")
        start = json.dumps(header).encode()
        mark = b"\0" + len(start).to_bytes(2) if binary else b""
        found.append(mark + start + body[length:])
    return tuple(found)


def _compressed() -> tuple[bytes, ...]:
    gzip = zlib.compressobj(9, wbits=31)
    bare = zlib.compressobj(9, wbits=-15)
    plain = bytes(MAX_PLAIN_BYTES + 1)  # more than is allowed: a bomb, a thousandth of that here
    return (
        gzip.compress(plain) + gzip.flush(),
        bare.compress(plain) + bare.flush(),
        zlib.compress(b'{"inputs": []}'),
    )


WIRE = (
    b"\x20GET /v2 HTTP/1.1\r\nHost: a\r\n\r\nGET /last HTTP/1.0\r\n\r\n",
    b"\x50POST /v2 HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
    b"\x40POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nA: b\r\n\r\n",
    b"\x05GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
)

CONFIGS = (
    b"""# of a repository as Triton's users write them
name: "m" platform: "onnxruntime_onnx" max_batch_size : 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 3, -1 ] reshape { shape: [ 1, 3, 224 ] } } ]
output [ { name: "y" data_type: TYPE_STRING dims: [ 1 ] label_filename: "labels.txt" } ]
version_policy: { specific { versions: [ 2, 4 ] } } instance_group [ { count: 2 kind: KIND_CPU } ]
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 }
parameters { key: "threads" value: { string_value: "2" } }
""",
    b'backend: "onnxruntime"\ndefault_model_filename: "net.onnx"\nversion_policy < all < > >\n',
    b"",
)

EVENTS = tuple(path.name for path in sorted(GOLDEN.glob("event-*.json")))

TARGETS = {
    "request": Target(partial(_message, decode_request), _encoded("inputs")),
    "response": Target(partial(_message, decode_response), _encoded("outputs")),
    "call": Target(_call, _calls()),
    "wire": Target(_wire, WIRE),
    "compressed body": Target(_inflate, _compressed()),
    "index": Target(b.read_index, _golden("index.json", "future-index.json")),
    "manifest": Target(_manifest, _golden("manifest.json", "future-manifest.json")),
    "details": Target(b.read_details, _golden("details.json", "future-details.json")),
    "pointer": Target(read_pointer, _golden("pointer.json", "future-pointer.json")),
    "release": Target(read_release, _golden("release.json", "future-release.json")),
    "event": Target(lambda data: _look_into(read_event(data)), _golden(*EVENTS)),
    "segment": Target(_segment, _golden("segment.ndjson.zst")),
    "report": Target(read_report, _golden("report.json", "report-shadow.json")),
    "order": Target(partial(decode, CaptureOrder), _golden("order-capture.json")),
    "trial-order": Target(partial(decode, TrialOrder), _golden("order-trial.json")),
    "bundle": Target(partial(read_bundle, GOLDEN / "bundle"), parts_of(GOLDEN / "bundle")),
    "config.pbtxt": Target(partial(read_model_config, name="m"), CONFIGS),
}
