"""The same over gRPC: a caller that behaves, and the kinds that don't.

Bad calls go out without a pause but for a breath between rounds, on a connection of their own each
time; a round is over when the server has answered or ended it.
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import grpc

from benchmarks.soaking.clients import WAIT_S
from edgefleet_runtime.serve.grpc import inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.soaking.clients import Address

SERVICE = "/inference.GRPCInferenceService/"
BREATH_S = 0.1  # else good callers, in the same process, would mostly wait for these clients
FLOOD = 64  # calls at once
STREAMED = 5
OVER = 1 << 20  # bytes; as much as the server takes, and so too much with what is around it
# A connection that a busy machine is slow to make is tried again; no call that was sent is.
PATIENT: dict[str, Any] = {"timeout": WAIT_S, "wait_for_ready": True}
REFUSED = grpc.StatusCode.INVALID_ARGUMENT
FULL = grpc.StatusCode.RESOURCE_EXHAUSTED
_CHANCE = random.Random(2027)  # noqa: S311 - for variety, not for secrets


class GoodCaller(threading.Thread):
    """Calls without a pause on one channel and holds every answer against what is due.

    Attributes:
        latencies: seconds of each answer since they were last taken.
        failures: what went wrong; must stay empty.
    """

    def __init__(self, address: Address, stop: threading.Event, number: int) -> None:
        super().__init__(name=f"good caller-{number}")
        self.latencies: deque[float] = deque()
        self.failures: list[str] = []
        self._address = address
        self._ended = stop
        self._number = number

    def run(self) -> None:
        with _channel(self._address) as channel:
            ask = channel.unary_unary(SERVICE + "ModelInfer")
            turn = 0
            while not self._ended.is_set():
                turn += 1
                x = float(self._number * 1_000_000 + turn % 1000)
                start = time.perf_counter()
                try:
                    answer = pb.ModelInferResponse.FromString(ask(_request(x), **PATIENT))
                    seen = answer.raw_output_contents or answer.outputs[0].contents.fp32_contents
                    if [*seen] not in ([x + 1], [_raw(x + 1)]):
                        self.failures.append(f"{x} gave {seen}")
                except Exception as error:  # noqa: BLE001 - whatever fails is counted
                    self.failures.append(repr(error)[:500])
                self.latencies.append(time.perf_counter() - start)

    def taken(self) -> list[float]:
        """The latencies since the last call."""
        return [self.latencies.popleft() for _ in range(len(self.latencies))]


class BadCaller(threading.Thread):
    """Does the same bad thing again and again; ``rounds`` counts how often the server ended it."""

    def __init__(self, kind: str, address: Address, stop: threading.Event) -> None:
        super().__init__(name=kind)
        self.rounds = 0
        self.failures: list[str] = []
        self._address = address
        self._ended = stop
        self._round = KINDS[kind]

    def run(self) -> None:
        while not self._ended.wait(BREATH_S):
            try:
                self._round(self._address)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is no answer that was due
                self.failures.append(repr(error)[:500])
            self.rounds += 1


def _garbage(address: Address) -> None:
    """Bytes that are no HTTP/2."""
    with (
        socket.create_connection(address, WAIT_S) as client,
        contextlib.suppress(ConnectionError),
    ):
        client.sendall(_CHANCE.randbytes(_CHANCE.randrange(100, 4000)))
        while client.recv(1 << 16):
            pass


def _cut_off(address: Address) -> None:
    """A connection that begins as HTTP/2 and ends inside a frame."""
    with (
        socket.create_connection(address, WAIT_S) as client,
        contextlib.suppress(ConnectionError),
    ):
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))  # and empty settings
        client.sendall(b"\x00\x40\x00\x01\x04\x00\x00\x00\x01" + _CHANCE.randbytes(100))
        with contextlib.suppress(OSError):  # it was ended already
            client.shutdown(socket.SHUT_WR)
        while client.recv(1 << 16):
            pass


def _nonsense(address: Address) -> None:
    """A message that is none."""
    _refused(address, b"\xff" + _CHANCE.randbytes(_CHANCE.randrange(200)), REFUSED)


def _oversized(address: Address) -> None:
    """A message over the limit."""
    _refused(address, bytes(OVER + 1), FULL)


def _given_up(address: Address) -> None:
    """A stream whose client takes an answer and goes."""

    def without_end() -> Iterator[bytes]:
        while True:
            yield _request(1.0)

    with _channel(address) as channel:
        answers = channel.stream_stream(SERVICE + "ModelStreamInfer")(without_end(), **PATIENT)
        for _ in range(STREAMED):
            next(answers)
        answers.cancel()


def _flood(address: Address) -> None:
    """Many calls at once; each is answered or refused."""
    with _channel(address) as channel:
        ask = channel.unary_unary(SERVICE + "ModelInfer")
        calls = [ask.future(_request(float(x)), timeout=WAIT_S) for x in range(FLOOD)]
        for call in calls:
            if call.code() not in {grpc.StatusCode.OK, FULL, grpc.StatusCode.UNAVAILABLE}:
                raise RuntimeError(f"a call of a flood ended with {call.code()}")


def _refused(address: Address, message: bytes, due: grpc.StatusCode) -> None:
    with _channel(address) as channel:
        ask = channel.unary_unary(SERVICE + "ModelInfer")
        try:
            ask(message, **PATIENT)
        except grpc.RpcError as error:
            if error.code() is not due or not error.details():
                raise
        else:
            raise RuntimeError(f"{len(message)} bytes of nonsense were answered")


def _channel(address: Address) -> Any:  # noqa: ANN401 - grpcio has no types
    # Without a connection of its own each channel would share one with the others here.
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.insecure_channel("{}:{}".format(*address), options=options)


def _request(x: float) -> bytes:
    request = pb.ModelInferRequest(model_name="m", raw_input_contents=[_raw(x)])
    request.inputs.add(name="x", datatype="FP32", shape=[1])
    data: bytes = request.SerializeToString()
    return data


def _raw(x: float) -> bytes:
    import numpy as np

    return np.float32(x).tobytes()


KINDS: dict[str, Callable[[Address], None]] = {
    "gRPC garbage": _garbage,
    "gRPC cut off": _cut_off,
    "gRPC nonsense": _nonsense,
    "gRPC oversized": _oversized,
    "gRPC given up": _given_up,
    "gRPC flood": _flood,
}
