"""Measures gRPC: ours against the least that serves a model with grpc.aio, asked in turn.

``python -m benchmarks.serving.calls [--rounds N] [--json FILE]``, at the root of the tree; the
client is h2load, one call at a time on each connection. ``serve KIND MODEL NAME`` instead is one
server in a process of its own: it prints its port when clients can connect, and ends when its
standard input does. The floor's handler parses the message, runs the model and builds the answer;
it has no limits, no checks, no other formats and no counters.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.serving import load, models, run, servers
from edgefleet_runtime.serve.loop import run as run_loop

if TYPE_CHECKING:
    from collections.abc import Iterator

METHOD = "inference.GRPCInferenceService"
KINDS = ("floor", "ours")


class Call(NamedTuple):
    """A server that runs, and what it is asked."""

    port: int
    message: bytes


class _Called(models.Subject):
    """What a call sends."""

    @property
    def target(self) -> str:
        return f"/{METHOD}/ModelInfer"


async def serve_floor(model: Path, name: str) -> tuple[object, int]:
    """A bare handler; returns its server and port."""
    import grpc
    import numpy as np

    from edgefleet_runtime.serve.grpc import inference_pb2 as pb

    servers.prepare_floor(model, name)
    session, given = servers.Floor.session, servers.Floor.input_name

    async def infer(request: Any, _: object) -> Any:  # noqa: ANN401 - messages
        tensor = request.inputs[0]
        array = np.frombuffer(request.raw_input_contents[0], np.float32)
        (output,) = session.run(None, {given: array.reshape(tuple(tensor.shape))})
        answer = pb.ModelInferResponse(model_name=name, model_version="1")
        answer.outputs.add(name="y", datatype="FP32", shape=output.shape)
        answer.raw_output_contents.append(output.tobytes())
        return answer

    handler = grpc.unary_unary_rpc_method_handler(
        infer, pb.ModelInferRequest.FromString, pb.ModelInferResponse.SerializeToString
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(METHOD, {"ModelInfer": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


async def serve_ours(model: Path, name: str) -> tuple[object, int]:
    """The runtime's gRPC server beside its REST server; returns both and the port."""
    from edgefleet_runtime.serve.grpc.server import GrpcServer

    rest, _ = await servers.serve_ours(model, name, None)
    server = GrpcServer(rest.extensions)  # type: ignore[attr-defined]
    await server.start()
    return (rest, server), int(server.endpoint.rpartition(":")[2])


async def serve(kind: str, model: Path, name: str) -> None:
    """Serve until standard input ends."""
    start = serve_floor if kind == "floor" else serve_ours
    listening, port = await start(model, name)
    print(port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    del listening


def message_of(subject: models.Subject) -> bytes:
    """The subject's request as a message in a gRPC frame."""
    from edgefleet_runtime.serve.grpc import inference_pb2 as pb

    request = pb.ModelInferRequest(model_name=subject.name)
    for name, array in subject.inputs.items():
        request.inputs.add(name=name, datatype="FP32", shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    message: bytes = request.SerializeToString()
    return b"\0" + len(message).to_bytes(4) + message


@contextmanager
def calling(kind: str, subject: models.Subject) -> Iterator[Call]:
    """Run a server until the block ends, after a first right answer."""
    import grpc

    child = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.serving.calls", "serve", kind, str(subject.path),
         subject.name],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdin is not None
    try:
        call = Call(int(child.stdout.readline()), message_of(subject))
        with grpc.insecure_channel(f"127.0.0.1:{call.port}") as channel:
            assert channel.unary_unary(f"/{METHOD}/ModelInfer")(call.message[5:], timeout=10)
        yield call
    finally:
        child.stdin.close()
        child.wait(10)
        child.stdout.close()


def ask(call: Call, folder: Path, *, clients: int, requests: int) -> load.Measured:
    """So many calls by so many clients, each of which waits for its answer."""
    headers = {"content-type": "application/grpc", "te": "trailers"}
    subject = _Called("", Path(), {}, call.message, headers)
    peer = load.Peer(call.port, 0, None, 0.0)
    return load.load(peer, subject, folder, clients=clients, requests=requests, http2=True)


def measure(folder: Path, rounds: int) -> dict[str, list[float]]:
    """One caller and 32 of them, in turns."""
    figures: dict[str, list[float]] = defaultdict(list)
    subject = models.mlp(folder)
    with ExitStack() as stack:
        calls = {kind: stack.enter_context(calling(kind, subject)) for kind in KINDS}
        for call in calls.values():  # warm
            ask(call, folder, clients=8, requests=500)
        for _ in range(rounds):
            figures["raw us"].append(run.raw_us(subject, 5000))
            one = {k: ask(c, folder, clients=1, requests=1500) for k, c in calls.items()}
            many = {k: ask(c, folder, clients=32, requests=6000) for k, c in calls.items()}
            for kind in KINDS:
                figures[f"1 {kind} us"].append(one[kind].p50_us)
                figures[f"32 {kind} /s"].append(many[kind].per_s)
                figures[f"32 {kind} p99 us"].append(many[kind].p99_us)
            figures["1 ratio"].append(one["ours"].p50_us / one["floor"].p50_us)
            figures["32 ratio"].append(many["ours"].per_s / many["floor"].per_s)
    return figures


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--json", type=Path, help="write the medians here")
    chosen = options.parse_args()
    if load.H2LOAD is None:
        raise SystemExit("h2load is missing; on Debian and Ubuntu: apt install nghttp2-client")
    with tempfile.TemporaryDirectory(prefix="ef") as name:
        figures = measure(Path(name), chosen.rounds)
    medians = {key: statistics.median(values) for key, values in figures.items()}
    for key, value in medians.items():
        print(f"{key}: {value:.2f}")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(medians, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        run_loop(serve(sys.argv[2], Path(sys.argv[3]), sys.argv[4]))
    else:
        main()
