"""Inference requests over REST as tickets, and their answers.

Clients repeat request line, headers and JSON header byte for byte as long as names, shapes and
wanted outputs stay the same. Rules kept here:

- Where tensors lie is remembered under the bytes of the JSON header, only from a request that was
  read, checked, run and answered in full. The next one with that header and as many bytes behind it
  needs none of that again.
- That is for tensors in raw bytes of fixed-size elements, both ways; all else is read each time.
- An answer that may be compressed is made the long way, as every other extension is.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from edgefleet.errors import InvalidInputError
from edgefleet.protocol.inference import decode_request, encode_response, read_header_length
from edgefleet.protocol.inference_header import split_request
from edgefleet.protocol.tensors import dtype_of, to_bytes
from edgefleet_runtime.serve.extensions.region_plan import RegionPlan, region_plan_of
from edgefleet_runtime.serve.extensions.wire import MARK, response_of
from edgefleet_runtime.serve.failures import failed
from edgefleet_runtime.serve.lane import INLINE_BODY_BYTES
from edgefleet_runtime.serve.messages import Pending, Prepared, Response, Template, decompressed
from edgefleet_runtime.serve.plan import (
    HEEDED,
    NO_FIXED_BYTES,
    Column,
    Joined,
    Plan,
    ReadPlan,
    Slice,
    SlicedPlan,
    Writer,
)
from edgefleet_runtime.serve.ticket import Ticket
from edgefleet_runtime.serve.trace import trace_of, traced

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from edgefleet.protocol.bundle import Interface
    from edgefleet.protocol.inference import InferRequest
    from edgefleet_runtime.serve.extensions.service import Extensions
    from edgefleet_runtime.serve.extensions.wire import Wire
    from edgefleet_runtime.serve.messages import Request
    from edgefleet_runtime.serve.plan import Arrays
    from edgefleet_runtime.serve.table import ServedModel

    Answer = Response | Prepared

MAX_HEADER_BYTES = 4096  # of JSON headers that are remembered
MAX_PLANS = 64  # of one model
MAX_TEMPLATES = 16  # answers of different shape that one plan prepares
_KNOWN = HEEDED | {"binary_data_output"}  # others may change what a request means


class Memo:
    """What the head of an inference request says, and what such a request asked for last.

    Attributes:
        name: of the model.
        version: likewise; None for whichever is served.
        header_length: of the JSON header; None where that is all of the body.
        plans: those of the model that the last one asked; None before it.
        header: its JSON header.
        plan: how it lay.
    """

    __slots__ = ("header", "header_length", "name", "plan", "plans", "version")

    plan: RestPlan | RegionPlan

    def __init__(self, name: str, version: str | None, header_length: int | None) -> None:
        self.name = name
        self.version = version
        self.header_length = header_length
        self.plans: Mapping[bytes, RestPlan | RegionPlan] | None = None
        self.header = b""


class RestPlan(SlicedPlan[Any]):
    """How requests with one JSON header lie in their bodies.

    Attributes:
        body_bytes: of the whole body.
        memory: None; none of them lies in shared memory.
    """

    __slots__ = ("body_bytes",)

    memory = None

    def __init__(self, asked: InferRequest, body: bytes, header_length: int) -> None:
        header, _ = split_request(body, header_length)
        self.body_bytes = len(body)
        inputs = []
        start = header_length
        for tensor in header.inputs:
            stop = start + int(tensor.parameters["binary_data_size"])
            inputs.append(Slice(tensor.name, dtype_of(tensor.datatype), tensor.shape, start, stop))
            start = stop
        super().__init__(
            inputs,
            wanted=tuple(asked.outputs or ()) or None,
            request_id=asked.id,
            parameters=asked.parameters,
            writer=_Prepares(msgspec.structs.replace(asked, inputs={})),
        )


class RestRequests:
    """Takes in inference requests over REST; used on the event loop's thread.

    Args:
        extensions: with the models and their lanes.
    """

    def __init__(self, extensions: Extensions) -> None:
        self.extensions = extensions
        self._table = extensions.table
        self._lanes = extensions.lanes
        self._plans: dict[ServedModel, dict[bytes, RestPlan | RegionPlan]] = {}

    def known(self, request: Request, memo: Memo) -> Pending[Answer] | Answer | None:
        """Take in a request that is like one answered before; None when it isn't like any.

        Raises:
            NotFoundError: the model is not served.
        """
        began = time.perf_counter()
        served = self._table.get(memo.name, memo.version)
        plans = self._plans.get(served)
        if plans is None:
            return None
        body = request.body
        if memo.plans is plans and body.startswith(memo.header):  # quicker than to look it up
            plan = memo.plan
        else:
            header = body[: memo.header_length]
            if header not in plans:
                return None
            plan = plans[header]
            memo.plans, memo.header, memo.plan = plans, header, plan
        if plan.body_bytes != len(body):
            return None
        ticket = RestTicket(self, request, body, began)
        if plan.memory is not None:
            if plan.memory.uses_gpu:  # it may be a GPU's region now
                return None
            ticket.bytes = plan.bytes
        ticket.name, ticket.version = memo.name, memo.version
        ticket.origin = request.origin
        if request.head is None and b"traceparent" in request.headers:  # known heads have none
            ticket.trace = trace_of(request.headers)
        ticket.follow(plan)
        return self._lanes.lane(served).submit(ticket)

    def take(self, request: Request, name: str, version: str | None) -> Pending[Answer] | Answer:
        """Answer a request, now or later.

        Raises:
            NotFoundError: the model is not served.
        """
        began = time.perf_counter()
        headers, body = request.headers, request.body
        served = self._table.get(name, version)
        ticket = RestTicket(self, request, body, began)
        ticket.name, ticket.version, ticket.origin = name, version, request.origin
        ticket.trace = trace_of(headers)
        try:
            header_length = header_length_of(headers)
        except InvalidInputError as error:
            return self._lanes.lane(served).refuse(ticket, error)
        plain = b"content-encoding" not in headers
        repeats = header_length is not None or (len(body) <= MAX_HEADER_BYTES and MARK in body)
        if plain and repeats and b"accept-encoding" not in headers:
            memo = Memo(name, version, header_length)
            answer = self.known(request, memo)
            if request.head is not None:
                request.head.memo = memo
            if answer is not None:
                return answer
        light = plain and len(body) <= INLINE_BODY_BYTES
        if light and MARK in body:  # there is more to read than the body
            light = self._lanes.lane(served).is_short
        return self._lanes.take(ticket, served, light=light)

    def learn(
        self,
        asked: InferRequest,
        body: bytes,
        header_length: int | None,
        wire: Wire | None,
        served: ServedModel,
    ) -> None:
        """Remember where the tensors of a request were that was answered.

        Args:
            asked: the request, decoded.
            body: what it was decoded from.
            header_length: of its JSON header; None where that is all of the body.
            wire: what decoded it, where it uses an extension.
            served: what answered it.
        """
        header = body[:header_length]
        if len(header) > MAX_HEADER_BYTES:
            return
        interface = served.model.interface
        plan: RestPlan | RegionPlan | None = None
        if wire is not None:
            plan = region_plan_of(asked, wire, body, header_length, interface)
        elif header_length is not None:
            plan = plan_of(asked, body, header_length, interface)
        if plan is None:
            return
        plans = self._plans.get(served)
        if plans is None:
            self._plans = {m: known for m, known in self._plans.items() if not m.retired}
            plans = self._plans[served] = {}
        if len(plans) >= MAX_PLANS:
            plans.clear()
        self._lanes.intern(plan)
        plans[header] = plan


class RestTicket(Ticket["Answer"]):
    """A request over REST, whose source is a `Request`."""

    front: RestRequests
    source: Request

    def told(self, error: Exception) -> Response:
        limits = self.front.extensions.lanes.limits
        return failed(self.name, error, limits)

    def traced(self, answer: Answer) -> Response:
        return traced(answer.response() if isinstance(answer, Prepared) else answer, self.trace)

    def _read(self, served: ServedModel) -> Plan[Answer]:
        extensions, headers, body = self.front.extensions, self.source.headers, self.data
        encoding = headers.get(b"content-encoding")
        if encoding is not None:
            limit = extensions.lanes.limits.max_body_bytes
            body = decompressed(body, encoding.decode("latin-1"), max_bytes=limit)
        length = header_length_of(headers)
        interface = served.model.interface
        wire = extensions.wire_for(self.source, body, length, interface)
        asked = (wire.decode if wire else decode_request)(body, length)
        if encoding is None and (length if wire is None else length != 0):
            self.lesson = partial(self.front.learn, asked, body, length, wire)
        if wire is not None or encoding is not None:  # they take more than the body
            self.bytes = max(self.bytes, sum(tensor.nbytes for tensor in asked.inputs.values()))
        made = ReadPlan if wire is None else wire.planned
        return made(
            asked.inputs,
            wanted=tuple(asked.outputs or ()) or None,
            request_id=asked.id,
            parameters=asked.parameters,
            writer=_Encodes(asked, wire),
        )


class _Encodes(Writer["Answer"]):
    """Makes one answer, in the form that its request asks for."""

    __slots__ = ("_asked", "_wire")

    def __init__(self, asked: InferRequest, wire: Wire | None) -> None:
        self._asked = asked
        self._wire = wire

    def answer(self, served: ServedModel, outputs: Arrays) -> Answer:
        name, version, asked, wire = served.name, served.version, self._asked, self._wire
        if wire is None:
            return response_of(encode_response(name, version, outputs, request=asked))
        return wire.finish(response_of(wire.encode(name, version, outputs, asked)))


class _Prepares(Writer["Answer"]):
    """Makes answers in raw bytes from what is the same in all of them."""

    __slots__ = ("_asked", "_templates")

    def __init__(self, asked: InferRequest) -> None:
        self._asked = asked  # without inputs: they would keep a whole body
        self._templates: dict[Hashable, Template] = {}

    def answer(self, served: ServedModel, outputs: Arrays) -> Answer:
        if len(outputs) == 1:
            (only,) = outputs.values()
            data = only.tobytes() if only.nbytes < 1 << 16 else to_bytes(only, name="output")
            return Prepared(self._template(served, only.shape, outputs), data)
        data = b"".join(to_bytes(array, name=key) for key, array in outputs.items())
        shapes = tuple(array.shape for array in outputs.values())
        return Prepared(self._template(served, shapes, outputs), data)

    def part(self, served: ServedModel, joined: Joined, start: int, stop: int) -> Answer:
        columns = joined.columns
        if columns is None:
            return super().part(served, joined, start, stop)
        template = self._template_of(served, joined, columns, start, stop)
        if len(columns) == 1:
            _, data, size = columns[0]
            return Prepared(template, data[start * size : stop * size])
        pieces = [data[start * size : stop * size] for _, data, size in columns]
        return Prepared(template, b"".join(pieces))

    def parts(self, served: ServedModel, joined: Joined, rows: int, count: int) -> list[Answer]:
        columns = joined.columns
        if columns is None or len(columns) != 1:
            return super().parts(served, joined, rows, count)
        template = self._template_of(served, joined, columns, 0, rows)
        _, data, size = columns[0]
        size *= rows
        return [Prepared(template, data[at : at + size]) for at in range(0, count * size, size)]

    def _template_of(
        self, served: ServedModel, joined: Joined, columns: list[Column], start: int, stop: int
    ) -> Template:
        """The answer with these rows up to its data."""
        rows = stop - start
        if joined.writer is self and joined.each == rows:
            known: Template = joined.head
            return known
        shapes = tuple((rows, *column.row) for column in columns)
        key = shapes[0] if len(shapes) == 1 else shapes
        template = self._template(served, key, joined.rows(start, stop))
        joined.writer, joined.each, joined.head = self, rows, template
        return template

    def _template(self, served: ServedModel, shapes: Hashable, outputs: Arrays) -> Template:
        """The answer up to its data.

        Args:
            served: the model.
            shapes: of the outputs; the template is remembered under it.
            outputs: arrays of those shapes.
        """
        template = self._templates.get(shapes)
        if template is None:
            asked = self._asked
            encoded = encode_response(served.name, served.version, outputs, request=asked)
            like = response_of(encoded)
            like.body = encoded.parts[:1]
            template = Template(like, sum(map(len, encoded.parts[1:])))
            if len(self._templates) >= MAX_TEMPLATES:
                self._templates.clear()
            self._templates[shapes] = template
        return template


def plan_of(
    asked: InferRequest, body: bytes, header_length: int, interface: Interface
) -> RestPlan | None:
    """The plan of a request that was answered; None where each must be read by itself.

    Args:
        asked: the request, decoded.
        body: what it was decoded from.
        header_length: of its JSON header.
        interface: of the model that answered it.
    """
    if sys.byteorder != "little":
        return None
    wanted = tuple(asked.outputs or ())
    specs = [spec for spec in interface.outputs if not wanted or spec.name in wanted]
    if any(spec.datatype in NO_FIXED_BYTES or not asked.sends_binary(spec.name) for spec in specs):
        return None
    header, _ = split_request(body, header_length)
    if not _KNOWN.issuperset(header.parameters):
        return None
    if any(tensor.parameters.keys() - {"binary_data"} for tensor in header.outputs):
        return None
    for tensor in header.inputs:
        if tensor.datatype in NO_FIXED_BYTES or tensor.parameters.keys() != {"binary_data_size"}:
            return None
    return RestPlan(asked, body, header_length) if header.inputs else None


def header_length_of(headers: Mapping[bytes, bytes]) -> int | None:
    """Where the JSON header of a body ends; None when the body is JSON and nothing else.

    Raises:
        InvalidInputError: the client says it, but not as a number.
    """
    given = headers.get(b"inference-header-content-length")
    return read_header_length(None if given is None else given.decode("latin-1"))
