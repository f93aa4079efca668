"""The servers under test, started and asked once, so that what is measured is known to be right."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.serving.children import started
from benchmarks.serving.load import Spot, check_grpc, check_rest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.serving.models import Request, Subject

SCRIPT = Path(__file__).with_name("servers.py")
RUNTIME = (sys.executable, "-m", "edgefleet_runtime")


class UnderTest(NamedTuple):
    """A server that runs.

    Attributes:
        spot: where it speaks REST; None where it doesn't.
        calls: where it speaks gRPC; likewise.
        pids: of its processes.
        ready_s: from the start of its process to the end of its first right answer.
        request: what it is asked over REST.
    """

    spot: Spot | None
    calls: Spot | None
    pids: list[int]
    ready_s: float
    request: Request

    @property
    def rest(self) -> Spot:
        """Where it speaks REST."""
        assert self.spot is not None
        return self.spot

    @property
    def grpc(self) -> Spot:
        """Where it speaks gRPC."""
        assert self.calls is not None
        return self.calls

    def pss_bytes(self) -> int:
        """Memory of its processes, what they share counted by their parts (Linux)."""
        rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self.pids]
        lines = [line for rollup in rollups for line in rollup.splitlines()]
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


@contextmanager
def serving(kind: str, subject: Subject, uds: Path | None = None) -> Iterator[UnderTest]:
    """A server of `servers.py` until the block ends; asked once over what it speaks."""
    command = [sys.executable, str(SCRIPT), kind, str(subject.path), subject.name]
    began = time.perf_counter()
    with started(command + ([str(uds)] if uds else [])) as child:
        ports = [int(port) for port in child.said.split()]
        rest = None if kind == "floor+grpc" else Spot(ports[0], uds)
        calls = Spot(ports[-1]) if kind.endswith("+grpc") else None
        if rest is not None and kind != "null":
            check_rest(rest, subject.binary, subject)
        if calls is not None:
            check_grpc(calls, subject)
        ready_s = time.perf_counter() - began
        yield UnderTest(rest, calls, [child.pid], ready_s, subject.binary)


@contextmanager
def serving_alone(subject: Subject) -> Iterator[UnderTest]:
    """``edgefleet-runtime serve --model``, as a user starts it, until the block ends."""
    command = [*RUNTIME, "serve", "--model", f"{subject.name}={subject.path}", "--exit-with-parent"]
    began = time.perf_counter()
    with started([*command, "--http", "127.0.0.1:0"]) as child:
        rest = Spot(int(child.said.rpartition(":")[2]))
        check_rest(rest, subject.binary, subject)
        ready_s = time.perf_counter() - began
        yield UnderTest(rest, None, [child.pid], ready_s, subject.binary)
