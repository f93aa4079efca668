"""A device as a real process: started, watched, asked, killed."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit
from urllib.request import urlopen

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from device_runtime.tests.onnx_models import IR_VERSION, OPSET
from device_runtime.tests.support import Repository, details
from edgefleet.protocol.files import write_whole
from edgefleet.protocol.layout import BundleLayout
from edgefleet.protocol.policy import TelemetryPolicy
from edgefleet.protocol.report import Report, read_report
from edgefleet.protocol.segment import read_segment
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.channels.file_requests import REPLIES, REQUESTS
from edgefleet_runtime.channels.requests import Message
from edgefleet_runtime.faults import VARIABLE

RECORD = TelemetryPolicy(segment_max_age_s=3600)
"""A policy under which segments close when the process ends."""


def times(factor: float, *, padding: int = 0) -> bytes:
    """An ONNX model: ``y = factor * x``, with so many bytes of weights that do nothing."""
    weights = [numpy_helper.from_array(np.array(factor, np.float32), "k")]
    nodes = [helper.make_node("Mul", ["x", "k"], ["y"])]
    outputs = []
    if padding:
        noise = np.random.default_rng(round(factor * 1000)).bytes(padding)
        weights.append(numpy_helper.from_array(np.frombuffer(noise, np.uint8), "p"))
        nodes.append(helper.make_node("Identity", ["p"], ["padding"]))
        outputs.append(helper.make_tensor_value_info("padding", TensorProto.UINT8, [padding]))
    return _model(nodes, weights, outputs)


def _model(
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    more_outputs: Sequence[onnx.ValueInfoProto] = (),
) -> bytes:
    shape: list[str | int | None] = ["n", 4]
    graph = helper.make_graph(
        nodes,
        "times",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape), *more_outputs],
        weights,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def times_with_needless_work(factor: float) -> bytes:
    """An ONNX model like `times`, that multiplies large matrices for nothing besides."""
    wide, rounds = 512, 20
    weights = {
        "k": np.array(factor, np.float32),
        "in": np.zeros((4, wide), np.float32),
        "through": np.zeros((wide, wide), np.float32),
        "out": np.zeros((wide, 4), np.float32),
    }
    nodes = [
        helper.make_node("Mul", ["x", "k"], ["due"]),
        helper.make_node("MatMul", ["x", "in"], ["h0"]),
        *(helper.make_node("MatMul", [f"h{n}", "through"], [f"h{n + 1}"]) for n in range(rounds)),
        helper.make_node("MatMul", [f"h{rounds}", "out"], ["nothing"]),
        helper.make_node("Add", ["due", "nothing"], ["y"]),
    ]
    return _model(nodes, [numpy_helper.from_array(array, name) for name, array in weights.items()])


def publish(
    repository: Repository, factor: float, *, recorded: float | None = None, padding: int = 0
) -> BundleLayout:
    """Publish a bundle of a real model; ``recorded`` makes its self-test expect another factor."""
    due = factor if recorded is None else recorded
    return repository.bundle(
        {"model.onnx": times(factor, padding=padding)},
        details(due, entry="model.onnx", variant="fp32"),
    )


class Device:
    """The process of one device below a folder; start it any number of times."""

    def __init__(self, root: Path, repository: Repository, *arguments: str) -> None:
        self.root = root
        self.outbox = root / "outbox"
        self.data = root / "data"
        self.repository = repository
        self.arguments = arguments
        self.process: subprocess.Popen[bytes] | None = None
        self.environment: dict[str, str] = {}

    def start(self, *, fault: str = "") -> Self:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **self.environment}
        environment.pop(VARIABLE, None)
        if fault:
            environment[VARIABLE] = fault
        (self.outbox / "report.json").unlink(missing_ok=True)
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment
            )
        return self

    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "edgefleet_runtime", "run", "--exit-with-parent"),
            *("--root", str(self.data), "--device", "cam-07", "--channel", "file"),
            *("-o", f"pointer={self.repository.pointer_path}", "-o", f"outbox={self.outbox}"),
            *self.arguments,
        ]

    def __enter__(self) -> Self:
        return self if self.process else self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def log(self) -> str:
        return (self.root / "log").read_text()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.ended()

    def ended(self, timeout_s: float = 90.0) -> int:
        """The exit code of the process, once it has ended."""
        assert self.process is not None
        process, self.process = self.process, None
        assert process.stdin is not None
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.wait()
            raise AssertionError(f"still runs after {timeout_s} s:\n{self.log}") from error
        finally:
            process.stdin.close()

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def report(self) -> Report | None:
        try:
            return read_report((self.outbox / "report.json").read_bytes())
        except FileNotFoundError:
            return None

    def reported(self, **wanted: Any) -> Report:
        """The first report in which these attributes have these values."""

        def found() -> Report | None:
            report = self.report()
            if report and all(getattr(report, name) == value for name, value in wanted.items()):
                return report
            assert self.process is not None
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.log}"
            return None

        report = eventually(found, f"{wanted}, last {self.report()}\n{self.log}")
        assert isinstance(report, Report)
        return report

    def active(self, release: str) -> Report:
        """The report that attests a release."""
        return self.reported(running=release, state="active")

    def recorded(self) -> int:
        """How many predictions lie in the segments that the device uploaded."""
        return sum(
            event.kind == "prediction"
            for path in self.outbox.rglob("*.ndjson.zst")
            for event in read_segment(io.BytesIO(path.read_bytes()))
        )

    def order(self, path: str, body: bytes = b"{}", *, name: str = "order") -> Path:
        """Give an order over the channel, in place of one of that name that waits.

        Returns:
            The file that its answer will be in.
        """
        folder = self.outbox / REQUESTS
        folder.mkdir(exist_ok=True)
        write_whole(folder / f"{name}.json", msgspec.json.encode(Message(path=path, body=body)))
        return self.outbox / REPLIES / f"{name}.json"

    def waiting(self, shelf: str) -> int:
        """How many events of a shelf of the spool are on the disk, by its figures."""
        endpoint = self.reported().endpoint
        with urlopen(f"{endpoint}/metrics", timeout=90) as answer:
            text = answer.read().decode()
        found = re.search(rf'edgefleet_spool_events{{shelf="{shelf}"}} (\d+)', text)
        return int(found[1]) if found else 0

    def client(self) -> Client:
        report = self.reported()
        endpoint = report.endpoint or self.reported(running=report.wanted).endpoint
        assert endpoint is not None
        return Client(endpoint)


class Client:
    """A client that keeps its connection."""

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(self, path: str, body: str | None = None) -> int:
        """The status of a GET, or of a POST where there is a body."""
        self._connection.request("GET" if body is None else "POST", path, body)
        with self._connection.getresponse() as reply:
            reply.read()
            return reply.status

    def factor(self, name: str = "digits") -> float:
        """What the model served under a name multiplies by."""
        body = {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 1, 1, 1]}],
            "outputs": [{"name": "y"}],
        }
        self._connection.request("POST", f"/v2/models/{name}/infer", json.dumps(body))
        with self._connection.getresponse() as reply:
            answer = json.loads(reply.read())
            assert reply.status == 200, answer
        return float(answer["outputs"][0]["data"][0])
