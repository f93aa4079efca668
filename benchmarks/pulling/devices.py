"""Simulated devices that speak with a gateway as the runtime's pull channel does.

One process, one event loop. Each device has a certificate, a connection and a schedule of its own;
its requests are the bytes that a runtime sends. What a device does with what it is told is left
out.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import ssl
import statistics
import sys
import time
import traceback
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import httptools
import uvloop

from edgefleet.protocol.gateway import POINTER, REPORT
from edgefleet.protocol.pointer import Pointer
from edgefleet.protocol.report import AccessReport, Health, ModelReport, Report, SelfTest
from edgefleet.protocol.typed import decoder

PATIENCE_S = 30.0  # for an answer, beyond what was asked to wait
IDLE_S = 60.0  # as of the channel's connections: a device doesn't trust one silent for longer
WAIT_S = 50  # that the channel asks a gateway to wait
SPREAD = (0.8, 1.2)  # of the channel's pauses
AFTER_WAIT_S = (0.2, 0.4)  # likewise, after an answer that was waited for
VARIANTS = ("poll", "reconnect", "wait")
_READ_POINTER = decoder(Pointer)


class _Tls(ssl.SSLContext):
    """Resumes the last session: asyncio has no argument for it."""

    kept: ssl.SSLSession | None = None

    def wrap_bio(self, *args: Any, **words: Any) -> ssl.SSLObject:  # noqa: ANN401 - passed on
        return super().wrap_bio(*args, **{**words, "session": self.kept})


class _Connection(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self) -> None:
        self.open = False
        self.idle_since = 0.0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[int] | None = None
        self._parser: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self.open = cast("asyncio.Transport", transport), True

    def connection_lost(self, exc: Exception | None) -> None:
        self.open, self._parser = False, None  # which goes in a circle
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError("hung up before an answer"))

    def data_received(self, data: bytes) -> None:
        if self._parser is not None:
            self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of the parser."""
        self.headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        """Of the parser."""
        self.body += body

    def on_message_complete(self) -> None:
        """Of the parser."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(self._parser.get_status_code())

    async def ask(self, request: bytes, patience_s: float) -> int:
        """Send a request; the status of its answer."""
        assert self._transport is not None
        self.headers, self.body = {}, b""
        self._parser = httptools.HttpResponseParser(self)
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        async with asyncio.timeout(patience_s):
            status = await self._answer
        self.idle_since = time.monotonic()
        return status

    @property
    def tls(self) -> ssl.SSLObject:
        """The session that secures it."""
        assert self._transport is not None
        found: ssl.SSLObject = self._transport.get_extra_info("ssl_object")
        return found

    def close(self) -> None:
        """Hang up."""
        self.open = False
        if self._transport is not None:
            self._transport.close()


class Crowd:
    """All devices, and what was measured of them.

    Args:
        facts: ``port``, ``poll_s``, ``report_s``, ``authorities``, and of each device in
            ``devices`` the file with its key and certificate.
    """

    def __init__(self, facts: dict[str, Any]) -> None:
        self.port: int = facts["port"]
        self.poll_s: float = facts["poll_s"]
        self.report_s: float = facts["report_s"]
        self.authorities: str = facts["authorities"]
        self.files: list[str] = facts["devices"]
        self.variant = "poll"
        self.chance = random.Random(2026)  # noqa: S311 - spreads load
        self.polls: list[float] = []  # seconds of each, while `measures`
        self.did: Counter[str] = Counter()
        self.news: list[float] = []  # seconds from a pointer's issue to a device that has it
        self._heard = asyncio.Event()
        self.connected = 0
        self.everybody = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.report = _a_report()

    async def come(self, per_s: float) -> None:
        """Have all devices connect, so many a second, and go on asking."""
        for number, file in enumerate(self.files):
            task = asyncio.create_task(_Device(self, file).live())
            task.add_done_callback(_end)
            self._tasks.append(task)
            if number % 10 == 9:
                await asyncio.sleep(10 / per_s)
        await self.everybody.wait()

    async def measure(self, seconds: float, pid: int) -> dict[str, Any]:
        """Look on for a while, without stopping to collect garbage: devices don't stop together.

        Args:
            seconds: how long.
            pid: of the gateway's process.
        """
        gc.collect()
        gc.disable()
        self.polls.clear()
        self.news.clear()
        self.did.clear()
        own, used, began = time.process_time(), cpu_s(pid), time.monotonic()
        await asyncio.sleep(seconds)
        gc.enable()
        took = time.monotonic() - began
        used, own = cpu_s(pid) - used, time.process_time() - own
        cuts = statistics.quantiles(self.polls, n=100) if len(self.polls) > 1 else [0.0] * 99
        return {
            "variant": self.variant,
            "seconds": took,
            "core": used / took,
            "own_core": own / took,
            "polls_per_s": self.did["poll"] / took,
            "p50_ms": cuts[49] * 1000,
            "p99_ms": cuts[98] * 1000,
            "memory_bytes": memory_bytes(pid),
            **{name: self.did[name] for name in ("connect", "resume", "report", "failed")},
        }

    def hear(self, after_s: float) -> None:
        """Note that a device has a pointer, so long after its issue."""
        self.news.append(after_s)
        self._heard.set()

    async def told(self, seconds: float) -> dict[str, Any]:
        """What devices know of a pointer that was given to all groups just now.

        Args:
            seconds: that are given them for it.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while len(self.news) < len(self.files):
                    self._heard.clear()
                    await self._heard.wait()
        news = sorted(self.news)
        return {
            "told": len(news),
            "news_p50_s": news[len(news) // 2] if news else None,
            "news_last_s": news[-1] if news else None,
        }


class _Device:
    def __init__(self, crowd: Crowd, file: str) -> None:
        self._crowd = crowd
        self._tls = _Tls(ssl.PROTOCOL_TLS_CLIENT)
        self._tls.load_verify_locations(cadata=crowd.authorities)
        self._tls.load_cert_chain(file)
        self._etag = b""
        self._connection = _Connection()

    async def live(self) -> None:
        """Ask again and again, as the channel does."""
        crowd, chance = self._crowd, self._crowd.chance
        await self._turn()
        crowd.connected += 1
        if crowd.connected == len(crowd.files):
            crowd.everybody.set()
        pause = chance.uniform(0, crowd.poll_s)
        reports_at = time.monotonic() + chance.uniform(0, crowd.report_s)
        while True:
            await asyncio.sleep(pause)
            waited = await self._turn()
            pause = chance.uniform(*AFTER_WAIT_S) if waited else self._pause()
            if time.monotonic() >= reports_at:
                reports_at += crowd.report_s
                await self._counted("report", crowd.report)

    def _pause(self) -> float:
        return self._crowd.chance.uniform(*SPREAD) * self._crowd.poll_s

    async def _turn(self) -> bool:
        """One poll; whether the gateway waited, or might."""
        crowd = self._crowd
        waits = crowd.variant == "wait"
        request = f"GET {POINTER} HTTP/1.1\r\nHost: localhost:{crowd.port}\r\n".encode()
        request += b"Accept-Encoding: identity\r\nUser-Agent: edgefleet-runtime/1\r\n"
        if self._etag:
            request += b"If-None-Match: " + self._etag + b"\r\n"
        if waits:
            request += b"Prefer: wait=%d\r\n" % WAIT_S
        began = time.monotonic()
        status = await self._counted("poll", request + b"\r\n")
        if status == 200:
            self._etag = self._connection.headers[b"etag"]
            issued = _READ_POINTER.decode(self._connection.body).issued
            crowd.hear(time.time() - issued.timestamp())
        if status and not waits:
            crowd.polls.append(time.monotonic() - began)
        if crowd.variant == "reconnect":
            self._connection.close()
        return waits and bool(status)

    async def _counted(self, name: str, request: bytes) -> int:
        """The status of an answer; 0 where it fails."""
        patience_s = PATIENCE_S + (WAIT_S if self._crowd.variant == "wait" else 0)
        try:
            connection = await self._connected()
            status = await connection.ask(request, patience_s)
        except (OSError, TimeoutError) as error:
            self._connection.close()
            self._crowd.did["failed"] += 1
            print(f"{name}: {error!r}", file=sys.stderr)
            return 0
        self._tls.kept = connection.tls.session
        self._crowd.did[name] += 1
        if status not in (200, 204, 304):
            self._crowd.did["failed"] += 1
            print(f"{name}: {status} {connection.body!r}", file=sys.stderr)
        return status

    async def _connected(self) -> _Connection:
        before = self._connection
        if before.open and time.monotonic() - before.idle_since <= IDLE_S:
            return before
        before.close()
        self._connection = _Connection()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.get_running_loop().create_connection(
                lambda: self._connection,
                "127.0.0.1",
                self._crowd.port,
                ssl=self._tls,
                server_hostname="localhost",
            )
        self._crowd.did["connect"] += 1
        self._crowd.did["resume"] += bool(self._connection.tls.session_reused)
        return self._connection


def _end(task: asyncio.Task[None]) -> None:
    """End the process where a device ended: none should."""
    if not task.cancelled():
        traceback.print_exception(task.exception())
        os._exit(1)


def cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_bytes(pid: int) -> int:
    """Bytes of memory that a process holds now."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)


def _a_report() -> bytes:
    """A request that carries a report of usual size."""
    now = datetime.now(UTC)
    digest = "sha256:" + "a" * 64
    models = tuple(
        ModelReport(
            name=name,
            version="7",
            bundle=digest,
            variant="int8",
            engine="onnxruntime 1.31.1",
            providers=("CPUExecutionProvider",),
            self_test=SelfTest(passed=True, cases=8, max_error=0.002),
            inferences=120_000,
            latency_p50_us=812.0,
        )
        for name in ("detect", "classify")
    )
    report = Report(
        sequence=1,
        time=now,
        state="active",
        runtime="1.0.0",
        health=Health(pid=1, started=now, rss_bytes=90 << 20, disk_free_bytes=1 << 33),
        wanted=digest,
        running=digest,
        models=models,
        access=AccessReport(state="ok"),
        labels={"target": "raspberry-pi", "site": "north"},
    )
    body = report.encoded()
    head = f"PUT {REPORT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def simulate(facts: dict[str, Any]) -> None:
    """Be the devices: do what lines of JSON on standard input ask, and answer each by one."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_simulate(facts))


async def _simulate(facts: dict[str, Any]) -> None:
    crowd = Crowd(facts)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await _done(crowd, json.loads(line), facts["pid"])), flush=True)


async def _done(crowd: Crowd, asked: dict[str, Any], pid: int) -> dict[str, Any]:
    match asked["do"]:
        case "come":
            used = cpu_s(pid)
            await crowd.come(asked["per_s"])
            return {"core_s": cpu_s(pid) - used, "failed": crowd.did["failed"]}
        case "be":
            crowd.variant = asked["variant"]
            await asyncio.sleep(asked["seconds"])
            return {}
        case "measure":
            return await crowd.measure(asked["seconds"], pid)
        case "news":
            return await crowd.told(asked["seconds"])
        case other:
            raise ValueError(other)
