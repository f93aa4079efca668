"""A stream whose client goes, seen from where grpc stands: what it is still reading goes on."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest

from device_runtime.tests.serving import WAIT_S, FakeModel, served, table_of
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.serve.extensions.service import Extensions
from edgefleet_runtime.serve.grpc import inference_pb2 as pb
from edgefleet_runtime.serve.grpc.inference import STREAM_WINDOW, GrpcRequests
from edgefleet_runtime.serve.lane import AHEAD
from edgefleet_runtime.serve.loop import run
from edgefleet_runtime.serve.messages import Limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from device_runtime.tests.serving import Gate
    from edgefleet_runtime.serve.table import ServedModel


class Call:
    """A call as grpc hands it to a handler: its context, and the requests that come by it.

    Args:
        sent: how many requests come before the client falls silent.
        more_after: how many come once it is no longer silent.

    Attributes:
        reads: how many reads have begun.
        cut: whether a read was cancelled, while grpc holds what it reads into.
        silent: set when a read waits.
        over: to be set when that read is to end.
    """

    def __init__(self, sent: int, more_after: int = 0) -> None:
        self.reads = 0
        self.cut = False
        self.over = asyncio.Event()
        self.silent = asyncio.Event()
        self._sent = sent
        self._more = more_after
        self._answers: asyncio.Queue[bytes] = asyncio.Queue()

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def time_remaining(self) -> None:
        return None

    def __aiter__(self) -> Call:
        return self

    async def __anext__(self) -> bytes:
        self.reads += 1
        if self.reads > self._sent:
            await self._silence()
        if self.reads > self._sent + self._more:
            raise StopAsyncIteration
        return request(float(self.reads))

    async def _silence(self) -> None:
        self.silent.set()
        try:
            await self.over.wait()
        except asyncio.CancelledError:
            self.cut = True
            raise

    async def write(self, data: bytes) -> None:
        self._answers.put_nowait(data)

    async def answer(self) -> float:
        """The next answer, in the order in which they were written."""
        data = await asyncio.wait_for(self._answers.get(), WAIT_S)
        answer = pb.ModelStreamInferResponse.FromString(data).infer_response
        return float(np.frombuffer(answer.raw_output_contents[0], np.float32)[0])


def request(x: float) -> bytes:
    asked = pb.ModelInferRequest(model_name="m", raw_input_contents=[np.float32(x).tobytes()])
    asked.inputs.add(name="x", datatype="FP32", shape=[1])
    data: bytes = asked.SerializeToString()
    return data


def answered(data: bytes) -> float:
    answer = pb.ModelStreamInferResponse.FromString(data).infer_response
    return float(np.frombuffer(answer.raw_output_contents[0], np.float32)[0])


def counted(model: ServedModel) -> int:
    seen = model.requests.totals()
    return seen.answered + seen.failed


@asynccontextmanager
async def streaming(call: Call, model: ServedModel) -> AsyncIterator[asyncio.Task[None]]:
    """The server's side of a call while the block runs; what is left must then end by itself."""
    extensions = Extensions(table_of(model))
    extensions.enter()
    stream = GrpcRequests(extensions, Limits()).stream(call, call)
    yield asyncio.ensure_future(stream)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.wait_for(asyncio.gather(*others), WAIT_S)
    extensions.leave()


async def cancelled(stream: asyncio.Task[None]) -> None:
    """As grpc does when the client has gone."""
    stream.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stream


def test_a_read_that_waits_is_not_cancelled_with_its_stream() -> None:
    async def scene() -> None:
        call = Call(sent=2)
        async with streaming(call, served(FakeModel(1))) as stream:
            await asyncio.wait_for(call.silent.wait(), WAIT_S)
            assert [await call.answer() for _ in range(2)] == [2.0, 3.0]
            await cancelled(stream)
            await asyncio.sleep(0)
            assert not call.cut
            call.over.set()

    run(scene())


def test_once_a_stream_is_over_nothing_is_read_and_what_waits_is_let_go(gate: Gate) -> None:
    async def scene() -> None:
        model = served(FakeModel(1, gate))
        call = Call(sent=10 * STREAM_WINDOW)
        async with streaming(call, model) as stream:
            await asyncio.to_thread(gate.wait_for_run)
            await cancelled(stream)
            reads = call.reads
            assert reads > STREAM_WINDOW
            gate.open.set()
            await asyncio.to_thread(eventually, lambda: counted(model) == reads)
        assert call.reads == reads
        assert model.requests.totals().failed >= STREAM_WINDOW - AHEAD  # what a thread has at hand

    run(scene())


def test_a_read_that_ends_after_its_stream_is_the_last() -> None:
    async def scene() -> None:
        call = Call(sent=1, more_after=3)
        async with streaming(call, served(FakeModel(1))) as stream:
            await asyncio.wait_for(call.silent.wait(), WAIT_S)
            assert await call.answer() == 2.0
            await cancelled(stream)
            reads = call.reads
            call.over.set()
        assert call.reads == reads

    run(scene())


class Leaving(Call):
    """A call whose client goes while its first answer is written and the next one is there."""

    def __init__(self, model: ServedModel) -> None:
        super().__init__(sent=2)
        self.written = 0
        self.stream: asyncio.Task[None] | None = None
        self._model = model

    async def write(self, data: bytes) -> None:
        self.written += 1
        await super().write(data)
        await asyncio.to_thread(eventually, lambda: counted(self._model) == 2)
        await asyncio.wait_for(self.silent.wait(), WAIT_S)
        for _ in range(10):  # until the second answer is delivered
            await asyncio.to_thread(int)
        assert self.stream is not None
        asyncio.get_running_loop().call_soon(self.stream.cancel)


def test_no_answer_is_written_once_the_loop_knows_that_the_client_has_gone() -> None:
    async def scene() -> None:
        model = served(FakeModel(1))
        call = Leaving(model)
        async with streaming(call, model) as stream:
            call.stream = stream
            with pytest.raises(asyncio.CancelledError):
                await stream
            call.over.set()
        assert call.written == 1

    run(scene())
