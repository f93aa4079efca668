"""h2load as the client of a server, over HTTP/1.1 and gRPC (Debian: nghttp2-client).

A gRPC request is an HTTP/2 POST whose body is the message behind five bytes (gRPC over HTTP/2), so
that the same fast client drives both. A failed call has status 200 too, but no message: the bytes
of data that came back are held against those of right answers.
"""

from __future__ import annotations

import http.client
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import grpc
import numpy as np

from edgefleet.protocol.inference import HEADER_LENGTH, decode_response
from edgefleet_runtime.serve.grpc import inference_pb2 as pb

if TYPE_CHECKING:
    from benchmarks.serving.models import Request, Subject

H2LOAD = shutil.which("h2load")
INFER = "/inference.GRPCInferenceService/ModelInfer"
WAIT_S = 60.0
FRAME = 5  # bytes before a gRPC message
_DATA = re.compile(r"\((\d+)\) data$", re.MULTILINE)


class Measured(NamedTuple):
    """One run of the client.

    Attributes:
        began_us: when each request was sent, since 1970, in the order in which they ended.
        took_us: how long each took, likewise.
    """

    began_us: list[int]
    took_us: list[int]

    @property
    def p50_us(self) -> float:
        """Median latency."""
        return float(np.percentile(self.took_us, 50))

    @property
    def p99_us(self) -> float:
        """Latency that one in a hundred passes."""
        return float(np.percentile(self.took_us, 99))

    @property
    def per_s(self) -> float:
        """Answers a second, from the first request to the last answer."""
        ends = [began + took for began, took in zip(self.began_us, self.took_us, strict=True)]
        return len(ends) / (max(ends) - min(self.began_us)) * 1e6


class Spot(NamedTuple):
    """Where a server listens."""

    port: int
    uds: Path | None = None

    @property
    def base(self) -> str:
        """As h2load names it."""
        return f"unix:{self.uds}" if self.uds else f"http://127.0.0.1:{self.port}"


def check_rest(spot: Spot, request: Request, subject: Subject) -> None:
    """Ask once.

    Raises:
        RuntimeError: the answer isn't the model's.
    """
    client = http.client.HTTPConnection("127.0.0.1", spot.port, timeout=WAIT_S)
    try:
        client.request("POST", request.path, request.body, request.headers)
        answer = client.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status} {body[:500]!r}")
        length = answer.headers.get(HEADER_LENGTH)
        if request.answers_elsewhere:
            return
        outputs = decode_response(body, None if length is None else int(length)).outputs
        subject.check(next(iter(outputs.values())))
    finally:
        client.close()


def check_grpc(spot: Spot, subject: Subject) -> int:
    """Ask once; returns the answer's length in bytes.

    Raises:
        RuntimeError: the answer isn't the model's.
        grpc.RpcError: the call failed.
    """
    with grpc.insecure_channel(f"127.0.0.1:{spot.port}") as channel:
        ask = channel.unary_unary(INFER)
        data: bytes = ask(subject.message, timeout=WAIT_S, wait_for_ready=True)
    answer = pb.ModelInferResponse.FromString(data)
    output = answer.outputs[0]
    values = (
        np.frombuffer(answer.raw_output_contents[0], np.float32)
        if answer.raw_output_contents
        else np.array(output.contents.fp32_contents, np.float32)
    )
    subject.check(values.reshape(tuple(output.shape)))
    return len(data)


def rest(spot: Spot, request: Request, folder: Path, *, clients: int, requests: int) -> Measured:
    """So many requests by so many clients, each of which waits for its answer.

    Raises:
        RuntimeError: a request failed.
    """
    return _load(spot, request, folder, ["--h1", "-c", str(clients), "-n", str(requests)])[0]


def paced(
    spot: Spot, request: Request, folder: Path, *, clients: int, per_s: int, seconds: float
) -> tuple[Measured, int]:
    """Requests at a given pace, however fast they are answered; and how many had no right status.

    A server that is asked less than it could answer shows what one request waits for.
    """
    count = round(per_s * seconds)
    pace = ["--h1", "-c", str(clients), "-n", str(count), "--rps", str(per_s // clients)]
    rows, _ = _run(spot, request, folder, pace)
    good = [row for row in rows if row[1] == 200]
    return Measured([row[0] for row in good], [row[2] for row in good]), count - len(good)


def calls(spot: Spot, subject: Subject, folder: Path, *, clients: int, requests: int) -> Measured:
    """So many gRPC calls by so many clients, one at a time on a connection of its own.

    Raises:
        RuntimeError: a call failed.
    """
    due = check_grpc(spot, subject)
    amount = ["-c", str(clients), "-n", str(requests), "-m", "1"]
    found, said = _load(spot, subject.call, folder, amount)
    seen = _DATA.search(said)
    if seen is None or int(seen[1]) != requests * (FRAME + due):
        raise RuntimeError(f"not {requests} answers of {due} bytes:\n{said}")
    return found


def _load(spot: Spot, request: Request, folder: Path, amount: list[str]) -> tuple[Measured, str]:
    rows, said = _run(spot, request, folder, amount)
    due = int(amount[amount.index("-n") + 1])
    if len(rows) != due or any(row[1] != 200 for row in rows):
        raise RuntimeError(f"{len(rows)} answers of {due}:\n{said}")
    return Measured([row[0] for row in rows], [row[2] for row in rows]), said


def _run(
    spot: Spot, request: Request, folder: Path, amount: list[str]
) -> tuple[list[list[int]], str]:
    """Start in microseconds, status and duration of each request; and what h2load printed."""
    assert H2LOAD is not None
    body, log = folder / "body", folder / "log"
    body.write_bytes(request.body)
    log.unlink(missing_ok=True)
    headers = [part for item in request.headers.items() for part in ("-H", ": ".join(item))]
    done = subprocess.run(
        [H2LOAD, *amount, "-d", str(body), *headers, f"--log-file={log}", "-B", spot.base,
         f"http://127.0.0.1:{spot.port}{request.path}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [[*map(int, line.split("\t"))] for line in log.read_text().splitlines()], done.stdout
