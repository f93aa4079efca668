"""A device of a fleet with gateways: all that the channel carries goes through them."""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING, Self

from edgefleet.errors import ConfigurationError, EdgeFleetError
from edgefleet.protocol.documents import decode
from edgefleet.protocol.gateway import (
    ARCHIVES,
    MAX_DOCUMENT_BYTES,
    MAX_EVENTS_BYTES,
    OFFER_HEADER,
    POINTER,
    POLL_HEADER,
    REPORT,
    ROOT,
    RUNTIME,
    WAITING_HEADER,
    RuntimeOffer,
)
from edgefleet.protocol.names import check_path
from edgefleet_runtime.channels.pull.answers import foreign
from edgefleet_runtime.channels.pull.blobs import PulledSource
from edgefleet_runtime.channels.pull.clock import GatewayClock
from edgefleet_runtime.channels.pull.credentials import credentials_in
from edgefleet_runtime.channels.pull.gateways import Gateways
from edgefleet_runtime.channels.pull.hot import send_hot
from edgefleet_runtime.channels.pull.https import TIMEOUT_S
from edgefleet_runtime.channels.pull.operators import Operators
from edgefleet_runtime.channels.pull.polled import MOST_BYTES, PolledChannel
from edgefleet_runtime.channels.pull.polling import News, in_thread
from edgefleet_runtime.channels.pull.settings import POLL_S, WAIT_S, read_settings
from edgefleet_runtime.channels.pull.uploads import Uploads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from email.message import Message
    from pathlib import Path

    from edgefleet.protocol.event import Event
    from edgefleet_runtime.channels.pull.credentials import Credentials
    from edgefleet_runtime.channels.pull.polling import Start
    from edgefleet_runtime.channels.requests import Reply, Request
    from edgefleet_runtime.store.sources import Source

_log = logging.getLogger(__name__)

AGAIN_S = 2.0  # where requests are said to wait, and none is given


class GatewayChannel(PolledChannel):
    """One device's connection to the gateways of its fleet.

    Args:
        credentials: of the device.
        wait_s: seconds that a gateway is asked to wait for news; 0 for not.
        poll_s: seconds between two calls where it doesn't wait and names no other.
        proxy: as of `https.Https`.
        timeout_s: likewise.
        now: seconds since 1970, by the device's clock.
        clock: monotonic seconds.
        jitter: source of chance.
        start: runs the polling.
    """

    hot_max_bytes = MAX_EVENTS_BYTES
    paced = True  # an upload goes on where it broke off

    def __init__(
        self,
        credentials: Credentials,
        *,
        wait_s: float = WAIT_S,
        poll_s: float = POLL_S,
        proxy: str | None = None,
        timeout_s: float = TIMEOUT_S,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        jitter: random.Random | None = None,
        start: Start = in_thread,
    ) -> None:
        gateway_time = GatewayClock(now)
        self._closing = threading.Event()
        self.gateways = Gateways(
            credentials, gateway_time, proxy=proxy, timeout_s=timeout_s, clock=clock
        )
        super().__init__(
            remark=gateway_time.said,
            wait_s=wait_s,
            poll_s=poll_s,
            clock=clock,
            jitter=jitter,
            start=start,
        )
        # `opened` is set later by whoever owns the channel.
        self._uploads = Uploads(
            self.gateways,
            lambda path: self.opened(path),  # noqa: PLW0108
            clock=clock,
        )
        self._operators: Operators | None = None
        self._offer: str | None = None
        self.on_offer: Callable[[], object] = lambda: None
        """Called by the polling thread when a runtime is offered, another one, or none any more."""

    @classmethod
    def from_options(cls, options: Mapping[str, str], *, device: str) -> Self:
        settings = read_settings(options)
        if settings.identity is None:
            raise ConfigurationError("no identity is named", cure="give -o identity=DIR")
        return cls(
            credentials_in(settings.identity, device),
            wait_s=settings.wait_s,
            poll_s=settings.poll_s,
            proxy=settings.proxy,
        )

    # ------------------------------------------------------------------------------------- coming

    def serve(self, ask: Callable[[Request], Reply]) -> None:
        self._operators = Operators(self.gateways, ask, pause=self._closing.wait)

    def addresses(self) -> tuple[str, ...]:
        return tuple(f"{address}{ROOT}" for address in self.gateways.addresses)

    def source(self, address: str) -> Source | None:
        for gateway in self.gateways.addresses:
            if address.rstrip("/") == f"{gateway}{ROOT}":
                return PulledSource(self.gateways.host(gateway), address)
        return None

    def offered_runtime(self) -> RuntimeOffer | None:
        """The runtime that is offered to this device now; None where none is.

        Raises:
            EdgeFleetError: the gateway doesn't tell.
        """
        answered = self.gateways.ask("GET", RUNTIME, max_bytes=MAX_DOCUMENT_BYTES)
        if answered.status == 204:
            return None
        return decode(RuntimeOffer, answered.body, max_bytes=MAX_DOCUMENT_BYTES)

    def archives(self) -> tuple[Source, ...]:
        """Where the archives lie that an offer names, by their digests."""
        return tuple(
            PulledSource(self.gateways.host(each), f"{each}{ARCHIVES}", place=_archive_path)
            for each in self.gateways.addresses
        )

    def _poll(self, held: News, wait_s: float) -> News:
        headers = {}
        if held.etag is not None:
            headers["If-None-Match"] = held.etag
        if wait_s >= 1:
            headers["Prefer"] = f"wait={int(wait_s)}"
        if self._offer is not None:
            headers[OFFER_HEADER] = self._offer
        answered = self.gateways.ask(
            "GET", POINTER, headers=headers, wait_s=wait_s, max_bytes=MOST_BYTES
        )
        if answered.status == 204:
            pointer, etag = None, None
        elif answered.status == 304:
            pointer, etag = held.pointer, held.etag
        else:
            pointer, etag = answered.body, answered.headers["ETag"]
        if answered.status != 204 and pointer is None:
            raise foreign(self.gateways.addresses[0])
        again_s = _number(answered.headers, POLL_HEADER)
        offer, before = answered.headers[OFFER_HEADER], self._offer
        self._offer = offer
        if offer != before:
            self.on_offer()
        if self._operators is None or not _number(answered.headers, WAITING_HEADER):
            return News(pointer, etag, again_s, busy=offer != before)
        return self._asked(self._operators, News(pointer, etag, again_s))

    def _asked(self, operators: Operators, news: News) -> News:
        """Take the requests that wait; a failure leaves them there, and the pointer is here."""
        try:
            taken = operators.fetch()
        except EdgeFleetError as error:
            _log.info("requests of operators can't be had: %s", error.message)
            taken = 0
        return news._replace(asked=True) if taken else news._replace(again_s=AGAIN_S)

    # -------------------------------------------------------------------------------------- going

    def send_report(self, report: bytes) -> None:
        headers = {"Content-Type": "application/json"}
        self.gateways.ask("PUT", REPORT, body=report, headers=headers)

    def send_hot(self, events: Sequence[Event]) -> None:
        send_hot(self.gateways, events)

    def upload(self, name: str, path: Path) -> None:
        self._uploads.put(check_path(name, what="segment name"), path)

    def close(self) -> None:
        self._closing.set()
        if self._operators is not None:
            self._operators.close()
        self.poller.close()
        self.gateways.close()
        self.wake()


def _archive_path(digest: str) -> str:
    return digest.replace(":", "/")


def _number(headers: Message, name: str) -> float | None:
    try:
        found = float(headers.get(name, ""))
    except ValueError:
        return None
    return found if 0 <= found < float("inf") else None
