"""Probes of a container: asked of the real process, counted as the kubelet counts.

Rules kept here:

- A startup probe holds back the others until it has succeeded.
- A probe that succeeds so often in a row has succeeded. It is asked more often than its period, so
  that nobody waits for a mock; see `Watcher`.
- It has failed when it failed for as long as its failures' periods take, so that a slow machine
  isn't taken for a broken program.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
import urllib.parse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from edgefleet_kubernetes.cloud.api_objects import Object

ASK_S = 0.1  # between two questions, where the period is longer
LEAST_TIMEOUT_S = 10.0  # a busy machine is given longer than a probe's timeout
MAX_HEAD = 16 << 10


class Failing(Exception):  # noqa: N818 - what a probe found
    """Why a probe failed."""


class Watcher:
    """One probe of one running container.

    Args:
        kind: ``startup``, ``readiness`` or ``liveness``.
        probe: as the container has it.
        ports: of the container, by name.
        address: of the pod.
        run: runs a command in the container within seconds, and gives its exit code.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        kind: str,
        probe: Mapping[str, Any],
        *,
        ports: Mapping[str, int],
        address: str,
        run: Callable[[list[str], float], Awaitable[int]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.kind = kind
        self._probe, self._ports, self._address = probe, ports, address
        self._run, self._clock = run, clock
        self._good = 0
        self._bad_since: float | None = None

    async def follow(self, told: Callable[[bool, str], None]) -> None:
        """Ask until cancelled, and tell of each change: whether it succeeded, and why not."""
        await asyncio.sleep(self._probe.get("initialDelaySeconds", 0))
        period = float(self._probe.get("periodSeconds", 10))
        verdict: bool | None = None
        while True:
            found, why = await self._ask()
            now = self._judge(period, succeeded=found)
            if now is not None and (now != verdict or not now):
                verdict = now
                told(now, why)
            await asyncio.sleep(min(period, ASK_S))

    def _judge(self, period: float, *, succeeded: bool) -> bool | None:
        """What the answers so far amount to; None for nothing yet."""
        if succeeded:
            self._bad_since = None
            self._good += 1
            return True if self._good >= self._probe.get("successThreshold", 1) else None
        self._good = 0
        now = self._clock()
        if self._bad_since is None:
            self._bad_since = now
        needed = (self._probe.get("failureThreshold", 3) - 1) * period
        return False if now - self._bad_since >= needed else None

    async def _ask(self) -> tuple[bool, str]:
        timeout = max(LEAST_TIMEOUT_S, float(self._probe.get("timeoutSeconds", 1)))
        try:
            async with asyncio.timeout(timeout):
                await self._once(timeout)
        except Failing as failing:
            return False, str(failing)
        except (OSError, EOFError, ValueError, IndexError, asyncio.LimitOverrunError) as error:
            return False, str(error) or type(error).__name__
        return True, ""

    async def _once(self, timeout_s: float) -> None:
        if "exec" in self._probe:
            code = await self._run(list(self._probe["exec"]["command"]), timeout_s)
            if code:
                raise Failing(f"command terminated with {code}")
        elif "httpGet" in self._probe:
            await self._get(self._probe["httpGet"])
        elif "tcpSocket" in self._probe:
            _, writer = await self._connect(self._probe["tcpSocket"], None)
            writer.close()
        else:
            raise Failing("probes of this kind are not in the mock")

    async def _connect(
        self, action: Mapping[str, Any], tls: ssl.SSLContext | None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        port = action["port"]
        number = self._ports.get(port) if isinstance(port, str) else port
        if number is None:
            raise Failing(f"couldn't find port: {port}")
        host = action.get("host") or self._address
        return await asyncio.open_connection(host, number, ssl=tls, limit=MAX_HEAD)

    async def _get(self, action: Mapping[str, Any]) -> None:
        tls = None
        if action.get("scheme") == "HTTPS":
            tls = ssl.create_default_context()
            tls.check_hostname = False
            tls.verify_mode = ssl.CERT_NONE  # the kubelet checks none either
        reader, writer = await self._connect(action, tls)
        try:
            path = urllib.parse.quote(action.get("path") or "/", safe="/?=&%:,;@!$*+~'()-._")
            given = {one["name"]: one["value"] for one in action.get("httpHeaders") or ()}
            headers = {
                "Host": self._address,
                "User-Agent": "kube-probe/1.34",
                "Accept": "*/*",
                "Connection": "close",
                **given,
            }
            head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            writer.write(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
            await writer.drain()
            answer = (await reader.readuntil(b"\r\n")).split()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        status = int(answer[1])
        if not 200 <= status < 400:
            raise Failing(f"HTTP probe failed with statuscode: {status}")


def watchers(
    container: Object,
    address: str,
    run: Callable[[list[str], float], Awaitable[int]],
) -> dict[str, Watcher]:
    """A container's probes by their kind."""
    ports = {
        one["name"]: one["containerPort"] for one in container.get("ports") or () if "name" in one
    }
    return {
        kind: Watcher(kind, container[f"{kind}Probe"], ports=ports, address=address, run=run)
        for kind in ("startup", "readiness", "liveness")
        if container.get(f"{kind}Probe")
    }
