"""Inference requests over gRPC as tickets: single calls and streams.

Rules kept here:

- They go the way of REST's, into the same lanes: what queues runs together, however it came.
- A caller's deadline is its request's; one that is gone takes its request out of the queue.
- The answers of a stream come in the order of its requests, of which some are on their way at once.
- On a stream an error is one message, and the stream goes on.
- A task that reads a stream's requests is never cancelled: grpc would write the message that it
  still reads for it into memory that is gone (https://github.com/grpc/grpc/issues/43360). Nor does
  it begin to read once the stream is over, for its call is gone then. That is why streams aren't
  answered by a generator: grpc drops one of a cancelled call, and it learns of that too late.
- grpc never frees an answer whose write fails, as it does once the client has gone. So the loop may
  tell of that first; what is left are writes on their way at that moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import grpc

from edgefleet.errors import EdgeFleetError, ThrottledError, WaitTimeoutError
from edgefleet_runtime.serve.extensions.placement import planned
from edgefleet_runtime.serve.grpc import inference_pb2 as pb
from edgefleet_runtime.serve.grpc.answers import PlacedWriter, RawWriter, Reply, varint
from edgefleet_runtime.serve.grpc.calls import parse, told
from edgefleet_runtime.serve.grpc.plans import MessagePlan, plan_of
from edgefleet_runtime.serve.grpc.tensors import inputs_of, outputs_of, values_of
from edgefleet_runtime.serve.lane import INLINE_BODY_BYTES
from edgefleet_runtime.serve.messages import Pending
from edgefleet_runtime.serve.outgoing import call_observer
from edgefleet_runtime.serve.plan import NO_FIXED_BYTES, Plan
from edgefleet_runtime.serve.ticket import Ticket
from edgefleet_runtime.serve.trace import HEADER, trace_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from edgefleet_runtime.serve.extensions.service import Extensions
    from edgefleet_runtime.serve.messages import Limits
    from edgefleet_runtime.serve.table import ServedModel

_log = logging.getLogger(__name__)

MAX_PLANS = 64
STREAM_WINDOW = 32  # requests of one stream that are on their way at once
_INFER_RESPONSE = b"\x12"  # field 2 of ModelStreamInferResponse, length-delimited
# Models answer each request once: Triton marks the last answer to a request.
_FINAL = pb.ModelInferResponse(
    parameters={"triton_final_response": pb.InferParameter(bool_param=True)}
).SerializeToString()


class GrpcTicket(Ticket[Reply]):
    """A request over gRPC, whose source is its message, once that is parsed.

    Attributes:
        own_us: the caller's own deadline, as ``deadline_us`` has it.
    """

    front: GrpcRequests
    own_us: float | None = None

    def told(self, error: Exception) -> Reply:
        return Reply(b"", told(error))

    def late(self, run_us: float) -> EdgeFleetError:
        if self.deadline_us == self.own_us:
            return WaitTimeoutError(f"the deadline can't be met: a run takes {run_us:.0f} us")
        return super().late(run_us)

    def _read(self, served: ServedModel) -> Plan[Reply]:
        request, memory = self.source, self.front.extensions.memory
        if request is None:  # it followed a plan, and its model has gone
            request = self.source = parse(pb.ModelInferRequest, self.data)
        inputs = inputs_of(request, memory)
        self.bytes = max(self.bytes, sum(tensor.nbytes for tensor in inputs.values()))
        places = outputs_of(request)
        placed = places is not None and any(places.values())
        self.lesson = partial(self.front.learn, self.data, request)
        return planned(
            inputs,
            places or {},
            self.front.extensions.regions,
            wanted=tuple(places) if places else None,
            request_id=request.id or None,
            parameters=values_of(request.parameters),
            writer=PlacedWriter(request.id, places, memory) if placed else RawWriter(request.id),
        )


class GrpcRequests:
    """Takes in inference requests over gRPC; used on the event loop's thread.

    Args:
        extensions: with the models and their lanes.
        limits: how much is taken in.
    """

    def __init__(self, extensions: Extensions, limits: Limits) -> None:
        self.extensions = extensions
        self._table = extensions.table
        self._lanes = extensions.lanes
        self._limits = limits
        self._held = 0  # bytes of requests that wait or run
        self._plans: dict[int, list[MessagePlan]] = {}  # by the length of the whole message
        self._planned = 0
        self._readers: set[asyncio.Future[None]] = set()  # of streams, until they have ended

    async def unary(self, data: bytes, context: Any) -> bytes:  # noqa: ANN401 - grpc has no types
        """Answer ``ModelInfer``."""
        trace = _trace(context)
        if trace is not None:
            context.set_trailing_metadata(((HEADER, trace),))
        answer = self._taken(data, trace, context.time_remaining())
        reply = answer if isinstance(answer, Reply) else await self._begun(data, answer).reply()
        if reply.error is not None:
            code, message = reply.error
            await context.abort(getattr(grpc.StatusCode, code), message)
        if reply.after is not None:
            self._lanes.loop.call_soon(call_observer, reply.after)
        return reply.data

    async def stream(
        self,
        requests: AsyncIterator[bytes],
        context: Any,  # noqa: ANN401 - grpc has no types
    ) -> None:
        """Answer ``ModelStreamInfer``."""
        trace = _trace(context)
        if trace is not None:
            context.set_trailing_metadata(((HEADER, trace),))
        begun: asyncio.Queue[_Begun | None] = asyncio.Queue(STREAM_WINDOW)
        over = asyncio.Event()

        async def begin() -> None:
            async for data in requests:
                if over.is_set():
                    return
                answer = self._taken(data, trace, context.time_remaining())
                one = self._begun(data, answer)
                await begun.put(one)
                if over.is_set():  # and nobody takes it any more
                    one.withdraw()
                    return
            await begun.put(None)

        reader = asyncio.ensure_future(begin())
        self._readers.add(reader)
        reader.add_done_callback(self._ended)
        try:
            while (item := await begun.get()) is not None:
                reply = await item.reply()
                await asyncio.sleep(0)  # a call that has ended in the meantime is cancelled here
                await context.write(_streamed(item.data, reply))
                if reply.after is not None:
                    call_observer(reply.after)
        finally:
            over.set()
            while not begun.empty():  # which lets the reader go on, if it waits for room
                if (left := begun.get_nowait()) is not None:
                    left.withdraw()

    def learn(self, data: bytes, request: pb.ModelInferRequest, _: ServedModel) -> None:
        """Remember where the tensors of a request were that was answered."""
        plan = plan_of(data, request)
        if plan is None:
            return
        if self._planned >= MAX_PLANS:
            self._plans.clear()
            self._planned = 0
        self._lanes.intern(plan)
        self._plans.setdefault(len(data), []).append(plan)
        self._planned += 1

    def _ended(self, reader: asyncio.Future[None]) -> None:
        self._readers.discard(reader)
        if not reader.cancelled() and (error := reader.exception()) is not None:
            _log.debug("the requests of a stream ended: %r", error)  # its call was broken off

    def _taken(
        self, data: bytes, trace: str | None, left_s: float | None
    ) -> Pending[Reply] | Reply:
        """Answer a request, now or later."""
        began = time.perf_counter()
        ticket = GrpcTicket(self, None, data, began)
        ticket.trace = trace
        if left_s is not None:
            ticket.own_us = ticket.deadline_us = (began + left_s) * 1e6
        if self._held + len(data) > self._limits.max_held_bytes:
            error = ThrottledError(f"{self._held} bytes of requests are held", cure="try later")
            return ticket.told(error)
        try:
            for plan in self._plans.get(len(data), ()):
                if plan.fits(data):
                    ticket.name, ticket.version = plan.name, plan.version
                    served = self._table.get(plan.name, plan.version)
                    ticket.follow(plan)
                    return self._lanes.lane(served).submit(ticket)
            request = ticket.source = parse(pb.ModelInferRequest, data)
            ticket.name, ticket.version = request.model_name, request.model_version
            served = self._table.get(ticket.name, ticket.version)
        except EdgeFleetError as error:
            return ticket.told(error)
        return self._lanes.take(ticket, served, light=self._is_light(request, len(data), served))

    def _is_light(self, request: pb.ModelInferRequest, size: int, served: ServedModel) -> bool:
        """Whether the tensors of a request are read at once, wherever they lie."""
        if any(tensor.parameters for tensor in request.inputs):  # there is more than the message
            return self._lanes.lane(served).is_short
        return size <= INLINE_BODY_BYTES or (
            bool(request.raw_input_contents)
            and all(tensor.datatype not in NO_FIXED_BYTES for tensor in request.inputs)
        )

    def _begun(self, data: bytes, answer: Pending[Reply] | Reply) -> _Begun:
        """A request whose answer can be awaited."""
        if isinstance(answer, Reply):
            return _Begun(data, answer, None)
        future: asyncio.Future[Reply] = self._lanes.loop.create_future()
        self._held += len(data)

        def deliver(reply: Reply) -> None:
            self._held -= len(data)
            if not future.done():
                future.set_result(reply)

        answer.deliver = deliver  # before the loop goes on, or nobody would wait
        return _Begun(data, answer, future)


class _Begun(NamedTuple):
    """A request of a stream that is on its way, or has its answer."""

    data: bytes
    answer: Pending[Reply] | Reply
    future: asyncio.Future[Reply] | None

    async def reply(self) -> Reply:
        """The answer; takes the request out of the queue when the caller goes."""
        if self.future is None:
            return cast("Reply", self.answer)
        try:
            return await self.future
        except asyncio.CancelledError:
            self.withdraw()
            raise

    def withdraw(self) -> None:
        """Nobody wants the answer any more."""
        if isinstance(self.answer, Pending):
            self.answer.withdraw()


def _streamed(data: bytes, reply: Reply) -> bytes:
    if reply.error is None:
        return b"".join(
            (_INFER_RESPONSE, varint(len(reply.data) + len(_FINAL)), reply.data, _FINAL)
        )
    known = pb.ModelInferResponse()
    with contextlib.suppress(EdgeFleetError):  # it has none
        known.id = parse(pb.ModelInferRequest, data).id
    answer: bytes = pb.ModelStreamInferResponse(
        error_message=reply.error[1], infer_response=known
    ).SerializeToString()
    return answer


def _trace(context: Any) -> str | None:  # noqa: ANN401 - grpc has no types
    for key, value in context.invocation_metadata():
        if key == HEADER:
            return trace_of({b"traceparent": value.encode("latin-1")})
    return None
