"""How to read a request and write its answer, remembered under the bytes of its JSON header.

Clients repeat that header as long as names, shapes and wanted outputs stay the same. A plan is made
only from a request that was decoded, checked, run and answered in full; a later one with the same
header and as many bytes behind it needs none of that again.

Plans are for tensors in raw bytes of fixed-size elements, both ways; all else is decoded each time.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from edgefleet.protocol.inference import BINARY, HEADER_LENGTH, encode_response
from edgefleet.protocol.inference_header import split_request
from edgefleet.protocol.tensors import dtype_of, to_bytes
from edgefleet_runtime.serve.messages import Prepared, Response, Template
from edgefleet_runtime.serve.queueing import DEFAULT_PRIORITY

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from numpy.typing import NDArray

    from edgefleet.protocol.bundle import Interface
    from edgefleet.protocol.inference import InferRequest

MAX_TEMPLATES = 16  # answers of different shape that one plan prepares
_NEVER = frozenset({"BYTES", "BOOL"})  # one has no fixed size, the other's bytes must be looked at
# Parameters of requests that plans heed; others may change what a request means.
_KNOWN = frozenset({"binary_data_output", "priority", "timeout"})


class Plan:
    """What requests with one JSON header have in common.

    Attributes:
        header_bytes: length of the JSON header.
        body_bytes: of the whole body.
        inputs: name, dtype, shape, first and last byte in the body of each input.
        wanted: outputs asked for; None for all.
        id: to be repeated in the answer.
        key: equal for plans whose requests may run together.
        rows: length of the first dimension, which all inputs share; 0 where they don't.
        priority: lower goes first.
        timeout_us: how long the answer is of use; None for ever.
    """

    def __init__(self, asked: InferRequest, body: bytes, header_length: int) -> None:
        header, _ = split_request(body, header_length)
        self.header_bytes = header_length
        self.body_bytes = len(body)
        self.asked = asked
        self.wanted = tuple(asked.outputs or ()) or None
        self.id = asked.id
        inputs = []
        start = header_length
        for tensor in header.inputs:
            dtype = dtype_of(tensor.datatype)
            stop = start + int(tensor.parameters["binary_data_size"])
            inputs.append((tensor.name, dtype, tensor.shape, start, stop))
            start = stop
        self.inputs = tuple(inputs)
        firsts = {shape[0] if shape else 0 for _, _, shape, _, _ in inputs}
        self.rows = firsts.pop() if len(firsts) == 1 else 0
        self.key: Hashable = (
            self.wanted,
            tuple((name, dtype, shape[1:]) for name, dtype, shape, _, _ in inputs),
        )
        self.priority, self.timeout_us = urgency(asked.parameters)
        self._templates: dict[Hashable, Template] = {}

    def arrays(self, body: bytes) -> dict[str, NDArray[Any]]:
        """The inputs of a request; views of its body where alignment allows."""
        arrays: dict[str, NDArray[Any]] = {}
        for name, dtype, shape, start, stop in self.inputs:
            if start % dtype.itemsize:  # a slice of bytes is a copy, aligned again
                array = np.frombuffer(body[start:stop], dtype)
            else:
                array = np.frombuffer(body, dtype, (stop - start) // dtype.itemsize, start)
            arrays[name] = array.reshape(shape)
        return arrays

    def answer(self, name: str, version: str, outputs: Mapping[str, NDArray[Any]]) -> Prepared:
        """The answer with these outputs."""
        if len(outputs) == 1:
            (only,) = outputs.values()
            data = only.tobytes() if only.nbytes < 1 << 16 else to_bytes(only, name="output")
            return Prepared(self.template(name, version, only.shape, outputs), data)
        data = b"".join(to_bytes(array, name=key) for key, array in outputs.items())
        shapes = tuple(array.shape for array in outputs.values())
        return Prepared(self.template(name, version, shapes, outputs), data)

    def template(
        self, name: str, version: str, shapes: Hashable, outputs: Mapping[str, NDArray[Any]]
    ) -> Template:
        """The answer up to its data.

        Args:
            name: of the model.
            version: likewise.
            shapes: of the outputs; the template is remembered under it.
            outputs: arrays of those shapes.
        """
        template = self._templates.get(shapes)
        if template is None:
            encoded = encode_response(name, version, outputs, request=self.asked)
            headers = ((HEADER_LENGTH, str(encoded.header_length)),)
            like = Response(body=encoded.parts[:1], content_type=BINARY, headers=headers)
            template = Template(like, sum(map(len, encoded.parts[1:])))
            if len(self._templates) >= MAX_TEMPLATES:
                self._templates.clear()
            self._templates[shapes] = template
        return template


def urgency(parameters: Mapping[str, str | int | float | bool]) -> tuple[int, float | None]:
    """Priority and time limit in microseconds of a request, as Triton's parameters give them.

    What isn't a whole number above 0 counts as not given, as 0 does in Triton.
    """
    timeout = _count(parameters.get("timeout"))
    return (
        _count(parameters.get("priority")) or DEFAULT_PRIORITY,
        None if timeout is None else float(timeout),
    )


def is_late(
    parameters: Mapping[str, str | int | float | bool], run_us: float | None, arrived: float
) -> bool:
    """Whether a request's own time limit ends before a run that begins now would.

    Args:
        parameters: of the request.
        run_us: how long a run takes; None when nobody knows.
        arrived: when the request came, on the clock of `time.perf_counter`.
    """
    timeout_us = urgency(parameters)[1]
    if timeout_us is None:
        return False
    spent_us = (time.perf_counter() - arrived) * 1e6
    return spent_us + (run_us or 0.0) > timeout_us


def _count(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    return None


def plan_of(
    asked: InferRequest, body: bytes, header_length: int, interface: Interface
) -> Plan | None:
    """The plan of a request that was answered; None where each must be decoded by itself.

    Args:
        asked: the request, decoded.
        body: what it was decoded from.
        header_length: of its JSON header.
        interface: of the model that answered it.
    """
    if sys.byteorder != "little":
        return None
    wanted: Sequence[str] = tuple(asked.outputs or ())
    specs = [spec for spec in interface.outputs if not wanted or spec.name in wanted]
    if any(spec.datatype in _NEVER or not asked.sends_binary(spec.name) for spec in specs):
        return None
    header, _ = split_request(body, header_length)
    if not _KNOWN.issuperset(header.parameters):
        return None
    if any(tensor.parameters.keys() - {"binary_data"} for tensor in header.outputs):
        return None
    for tensor in header.inputs:
        if tensor.datatype in _NEVER or tensor.parameters.keys() != {"binary_data_size"}:
            return None
    return Plan(asked, body, header_length) if header.inputs else None
