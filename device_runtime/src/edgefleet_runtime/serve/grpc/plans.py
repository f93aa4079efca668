"""Where tensors lie in the bytes of a ``ModelInferRequest``.

Clients repeat a request byte for byte up to the contents of its tensors, which lie at its end, raw.
Rules kept here:

- A plan is made only from bytes that protobuf parsed: without their raw contents they must be the
  parsed message without its own.
- Requests with an id are read each time: with one, each would have a plan of its own.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

from google.protobuf.message import DecodeError

from edgefleet.protocol.tensors import dtype_of
from edgefleet_runtime.serve.grpc.answers import RawWriter, Reply, varint
from edgefleet_runtime.serve.grpc.inference_pb2 import ModelInferRequest
from edgefleet_runtime.serve.grpc.tensors import values_of
from edgefleet_runtime.serve.plan import HEEDED, NO_FIXED_BYTES, Slice, SlicedPlan

MAX_PREFIX_BYTES = 4096  # of requests that are remembered
MAX_HEADS = 16  # answers of different shape that one plan prepares
_RAW_INPUT = b"\x3a"  # field 7, raw_input_contents, length-delimited
_RAW_OUTPUT = b"\x32"  # field 6, raw_output_contents, likewise


class _Mark(NamedTuple):
    """Bytes that stand at a place."""

    at: int
    data: bytes


class MessagePlan(SlicedPlan[Reply]):
    """How requests with one prefix lie in their messages.

    Attributes:
        name: of the model that they ask.
        version: likewise.
        prefix: all up to the first tensor's contents.
    """

    __slots__ = ("_marks", "name", "prefix", "version")

    def __init__(
        self, request: ModelInferRequest, data: bytes, inputs: list[Slice], marks: list[_Mark]
    ) -> None:
        self.name = request.model_name
        self.version = request.model_version
        self.prefix = data[: inputs[0].start]
        self._marks = marks
        super().__init__(
            inputs,
            wanted=tuple(output.name for output in request.outputs) or None,
            request_id=None,
            parameters=values_of(request.parameters),
            writer=RawWriter(),
        )

    def fits(self, data: bytes) -> bool:
        """Whether these bytes, which are as many, are such a request."""
        return data.startswith(self.prefix) and all(
            data.startswith(mark.data, mark.at) for mark in self._marks
        )


def plan_of(data: bytes, request: ModelInferRequest) -> MessagePlan | None:
    """The plan of a request that was answered; None where each must be read by itself.

    Args:
        data: its bytes.
        request: what they were parsed to.
    """
    raws = request.raw_input_contents
    if sys.byteorder != "little" or request.id or not raws or len(raws) != len(request.inputs):
        return None
    if not HEEDED.issuperset(request.parameters) or any(o.parameters for o in request.outputs):
        return None
    if any(t.parameters or t.datatype in NO_FIXED_BYTES for t in request.inputs):
        return None
    marks, inputs = [], []
    at = len(data)
    for tensor, raw in zip(reversed(request.inputs), reversed(raws), strict=True):
        start, mark = at - len(raw), _RAW_INPUT + varint(len(raw))
        dtype = dtype_of(tensor.datatype)
        inputs.append(Slice(tensor.name, dtype, tuple(tensor.shape), start, at))
        at = start - len(mark)
        marks.append(_Mark(at, mark))
    if not 0 <= at <= MAX_PREFIX_BYTES:
        return None
    rest = ModelInferRequest()
    rest.CopyFrom(request)
    del rest.raw_input_contents[:]
    plan = MessagePlan(request, data, inputs[::-1], marks)
    try:
        alike = ModelInferRequest.FromString(data[:at]) == rest
    except DecodeError:  # the contents stand somewhere else
        return None
    return plan if alike and plan.fits(data) else None
