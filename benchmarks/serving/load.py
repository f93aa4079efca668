"""Servers as child processes, and h2load as their client (Debian: nghttp2-client)."""

from __future__ import annotations

import http.client
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.serving.models import Subject

H2LOAD = shutil.which("h2load")


class Measured(NamedTuple):
    """One run of the client."""

    p50_us: float
    p99_us: float
    per_s: float


class Peer(NamedTuple):
    """A server that runs."""

    port: int
    pid: int
    uds: Path | None
    ready_s: float  # from the start of its process to the end of its first answer


@contextmanager
def serving(kind: str, subject: Subject, uds: Path | None = None) -> Iterator[Peer]:
    """Run a server of `servers.py` until the block ends."""
    script = str(Path(__file__).with_name("servers.py"))
    started = time.perf_counter()
    child = subprocess.Popen(
        [
            sys.executable,
            script,
            kind,
            str(subject.path),
            subject.name,
            *([str(uds)] if uds else []),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdin is not None
    try:
        port = int(child.stdout.readline())
        client = http.client.HTTPConnection("127.0.0.1", port)
        client.request("POST", subject.target, subject.body, subject.headers)
        answer = client.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()
        ready_s = time.perf_counter() - started
        client.close()
        yield Peer(port, child.pid, uds, ready_s)
    finally:
        child.stdin.close()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()


def load(
    peer: Peer,
    subject: Subject,
    folder: Path,
    *,
    clients: int,
    requests: int,
    uds: bool = False,
    http2: bool = False,
) -> Measured:
    """So many requests by so many clients, each of which waits for its answer.

    Raises:
        RuntimeError: a request failed.
    """
    assert H2LOAD is not None
    body, log = folder / "body", folder / "log"
    body.write_bytes(subject.body)
    log.unlink(missing_ok=True)
    protocol = [] if http2 else ["--h1"]
    headers = [part for item in subject.headers.items() for part in ("-H", ": ".join(item))]
    base = f"unix:{peer.uds}" if uds else f"http://127.0.0.1:{peer.port}"
    done = subprocess.run(
        [H2LOAD, *protocol, "-c", str(clients), "-n", str(requests), "-d", str(body), *headers,
         f"--log-file={log}", "-B", base, f"http://127.0.0.1:{peer.port}{subject.target}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = [line.split("\t") for line in log.read_text().splitlines()]
    if len(rows) < requests or any(row[1] != "200" for row in rows):
        raise RuntimeError(done.stdout)
    times = sorted(int(row[2]) for row in rows)
    begun = min(int(row[0]) for row in rows)
    ended = max(int(row[0]) + int(row[2]) for row in rows)
    return Measured(
        times[len(times) // 2],
        times[int(len(times) * 0.99)],
        requests / ((ended - begun) / 1e6),
    )


def pss_bytes(pid: int) -> int:
    """Memory of a process, what it shares counted by its part (Linux)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no Pss in smaps_rollup")
