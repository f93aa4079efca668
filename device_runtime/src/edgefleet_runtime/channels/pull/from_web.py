"""A device that only reads: a pointer and blobs as files of any web server.

Nobody takes what the device has to say, so reports and telemetry wait on its disk, within their
caps. The server is verified against the system's authorities.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from edgefleet.errors import (
    ConfigurationError,
    NotFoundError,
    UnavailableError,
)
from edgefleet_runtime.channels.pull.blobs import PulledSource
from edgefleet_runtime.channels.pull.clock import GatewayClock
from edgefleet_runtime.channels.pull.failures import ELSE, SIGN_IN
from edgefleet_runtime.channels.pull.https import TIMEOUT_S, Https
from edgefleet_runtime.channels.pull.polled import MOST_BYTES, PolledChannel
from edgefleet_runtime.channels.pull.polling import News, in_thread
from edgefleet_runtime.channels.pull.settings import POLL_S, read_settings
from edgefleet_runtime.store.http import refusal_of
from edgefleet_runtime.store.trust import system_context

if TYPE_CHECKING:
    import random
    import ssl
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from edgefleet.protocol.event import Event
    from edgefleet_runtime.channels.pull.polling import Start
    from edgefleet_runtime.store.sources import Source

POINTER = "pointer.json"
READ_ONLY = "a web server takes nothing: reports and telemetry wait on this device"


class WebChannel(PolledChannel):
    """One device's reading of a web server.

    Args:
        url: ``https://HOST/PATH``: below it lie ``pointer.json`` and ``blobs/sha256/<hex>``.
        poll_s: seconds between two calls.
        proxy: as of `https.Https`.
        timeout_s: likewise.
        context: TLS settings; None verifies against the system's authorities.
        now: seconds since 1970, by the device's clock.
        clock: monotonic seconds.
        jitter: source of chance.
        start: runs the polling.
    """

    def __init__(
        self,
        url: str,
        *,
        poll_s: float = POLL_S,
        proxy: str | None = None,
        timeout_s: float = TIMEOUT_S,
        context: ssl.SSLContext | None = None,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        jitter: random.Random | None = None,
        start: Start = in_thread,
    ) -> None:
        self._url, self._path = url.rstrip("/"), urlsplit(url).path.rstrip("/")
        self._host = Https(
            url,
            context=system_context if context is None else lambda: context,
            proxy=proxy,
            timeout_s=timeout_s,
            clock=clock,
            now=now,
        )
        self._time = GatewayClock(now, of="the web server")
        super().__init__(
            remark=lambda: "; ".join(filter(None, (READ_ONLY, self._time.said()))),
            wait_s=0.0,
            poll_s=poll_s,
            clock=clock,
            jitter=jitter,
            start=start,
        )

    @classmethod
    def from_options(cls, options: Mapping[str, str], *, device: str) -> Self:
        del device  # nobody asks
        settings = read_settings(options)
        if settings.url is None:
            raise ConfigurationError("no web server is named", cure="give -o url=https://HOST/PATH")
        return cls(settings.url, poll_s=settings.poll_s, proxy=settings.proxy)

    def addresses(self) -> tuple[str, ...]:
        return (self._url,)

    def source(self, address: str) -> Source | None:
        return PulledSource(self._host, address) if address.rstrip("/") == self._url else None

    def _poll(self, held: News, _wait_s: float) -> News:
        headers = {} if held.etag is None else {"If-None-Match": held.etag}
        answered = self._host.ask(
            "GET", f"{self._path}/{POINTER}", headers=headers, max_bytes=MOST_BYTES
        )
        if "Age" not in answered.headers:  # a cache gives the date of when it asked
            self._time.heard(answered.headers["Date"])
        status, where = answered.status, self._host.where
        if status == 304 and held.etag is not None:
            return held
        if status == 200 and answered.body.lstrip()[:1] == b"{":
            return News(answered.body, answered.headers["ETag"])
        if status in {404, 410}:
            raise NotFoundError(
                f"{where} has no {self._path}/{POINTER}", cure="put the group's pointer there"
            )
        if status < 400 or status == 511:
            raise UnavailableError(
                f"{where} gives no pointer (HTTP {status}): {ELSE}", cure=SIGN_IN
            )
        raise refusal_of(status, answered.headers, f"{where}, {POINTER}")

    def send_report(self, report: bytes) -> None:
        del report
        raise _nobody()

    def send_hot(self, events: Sequence[Event]) -> None:
        del events
        raise _nobody()

    def upload(self, name: str, path: Path) -> None:
        del name, path
        raise _nobody()

    def close(self) -> None:
        self.poller.close()
        self._host.close()
        self.wake()


def _nobody() -> UnavailableError:
    return UnavailableError(READ_ONLY, cure="enrol the device with a gateway to have them taken")
