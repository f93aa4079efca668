"""The gateways of a device's identity: one is asked, and when it isn't there, the next.

Rules kept here:

- All are verified against the authorities of the identity, by name, and by nothing else.
- A certificate's time is judged by `clock`, so that a wrong clock keeps no device away.
- The first gateway is the preferred one: who had to leave it tries it again after a while.
- A certificate that should be renewed is, before anything else is asked.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from edgefleet.errors import AccessExpiredError, EdgeFleetError, UnavailableError
from edgefleet.protocol.gateway import AUTHORITIES, MAX_DOCUMENT_BYTES, RENEW
from edgefleet_runtime.channels.pull.answers import foreign, is_json, refused
from edgefleet_runtime.channels.pull.clock import NO_CHECK_TIME, GatewayClock, valid_at
from edgefleet_runtime.channels.pull.https import MAX_ANSWER_BYTES, TIMEOUT_S, Https

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

    from edgefleet_runtime.channels.pull.credentials import Credentials
    from edgefleet_runtime.channels.pull.https import Answered, Connection

    Call = Callable[[Https], Answered]
    """Asks a host."""

_log = logging.getLogger(__name__)

PREFERRED_S = 600.0  # after which a device that had to go to another gateway tries the first again
RENEW_AGAIN_S = 300.0  # between two tries to renew a certificate that still lasts


class Gateways:
    """Where a device asks.

    Args:
        credentials: of the device.
        gateway_time: is told what answers say of the time.
        proxy: as of `Https`.
        timeout_s: likewise.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        credentials: Credentials,
        gateway_time: GatewayClock,
        *,
        proxy: str | None = None,
        timeout_s: float = TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.credentials = credentials
        self.time = gateway_time
        self._proxy, self._timeout_s, self._clock = proxy, timeout_s, clock
        self._lock = threading.Lock()
        self._renewing = threading.Lock()
        self._hosts: dict[str, Https] = {}
        self._current: str | None = None
        self._left_at = 0.0
        self._renew_at = 0.0

    @property
    def addresses(self) -> tuple[str, ...]:
        """Those there are, the one in use first."""
        known = self.credentials.identity.gateways
        first = self._current
        if first not in known or self._clock() - self._left_at > PREFERRED_S:
            return known
        return (first, *(each for each in known if each != first))

    def host(self, address: str) -> Https:
        """The connections to one of them."""
        with self._lock:
            found = self._hosts.get(address)
            if found is None:
                found = self._hosts[address] = Https(
                    address,
                    context=self._context,
                    proxy=self._proxy,
                    greet=self._greet,
                    timeout_s=self._timeout_s,
                    clock=self._clock,
                )
            return found

    def ask(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        wait_s: float = 0.0,
        max_bytes: int = MAX_ANSWER_BYTES,
        only: str | None = None,
    ) -> Answered:
        """Ask the gateway in use, or the next that is there.

        Args:
            method: as of `Https.ask`.
            path: likewise.
            body: likewise.
            headers: likewise.
            wait_s: likewise.
            max_bytes: likewise.
            only: address of the gateway to ask, and no other.

        Returns:
            An answer of success, or 304.

        Raises:
            EdgeFleetError: as `answers.refused` and `Https.ask`; of several, the first's.
        """

        def call(host: Https) -> Answered:
            return host.ask(
                method, path, body=body, headers=headers, wait_s=wait_s, max_bytes=max_bytes
            )

        if only is not None:
            return self._ask_one(only, call)
        first: EdgeFleetError | None = None
        for address in self.addresses:
            try:
                return self._ask_one(address, call)
            except UnavailableError as error:
                _log.info("%s", error.message)
                first = first or error
                if address == self.credentials.identity.gateways[0]:
                    self._left_at = self._clock()
        raise first or UnavailableError("the identity names no gateway")

    def close(self) -> None:
        """End all connections."""
        with self._lock:
            found = list(self._hosts.values())
        for host in found:
            host.close()

    def _ask_one(self, address: str, call: Call) -> Answered:
        self._renew_if_due(address)
        try:
            try:
                answered = self._answered(address, call)
            except AccessExpiredError:
                self._renew(address)
                answered = self._answered(address, call)
        except UnavailableError:
            raise
        except EdgeFleetError:
            self._settle(address)  # a refusal is an answer
            raise
        self._settle(address)
        return answered

    def _answered(self, address: str, call: Call) -> Answered:
        """A gateway's answer of success."""
        host = self.host(address)
        answered = call(host)
        self.time.heard(answered.headers["Date"])
        if not (200 <= answered.status < 300 or answered.status == 304):
            raise refused(answered, host.where)
        if answered.body and not is_json(answered.headers):
            raise foreign(host.where)
        return answered

    def _settle(self, address: str) -> None:
        """Go on with the gateway that answered."""
        self._current = address

    # --------------------------------------------------------------------------------- trust

    def _context(self) -> ssl.SSLContext:
        context = self.credentials.context()
        context.verify_flags |= NO_CHECK_TIME  # see `clock`
        return context

    def _greet(self, connection: Connection) -> None:
        """Believe a gateway whose certificate is valid by this device's clock or by its own."""
        certificate = connection.certificate()
        if valid_at(certificate, self.time.here()):
            return
        connection.request("GET", AUTHORITIES)
        with connection.getresponse() as reply:
            reply.read(MAX_DOCUMENT_BYTES)
            there = self.time.heard(reply.headers["Date"])
        if there is None or not valid_at(certificate, there):
            raise UnavailableError(
                f"the certificate of {connection.where} is not valid now, by its own clock either",
                cure="have the gateway restarted: it makes itself a new one",
            )

    # ------------------------------------------------------------------------------- renewal

    def _renew_if_due(self, address: str) -> None:
        now = self._clock()
        if now < self._renew_at or not self.time.known:
            return  # by a clock that nobody confirmed, every certificate may look old
        if not self.credentials.renewal_due(self.time.there()):
            return
        self._renew_at = now + RENEW_AGAIN_S
        try:
            self._renew(address)
        except EdgeFleetError as error:  # it may still be valid: what is asked then tells
            _log.warning("the certificate was not renewed: %s", error)

    def _renew(self, address: str) -> None:
        """Get a new certificate.

        Raises:
            AccessExpiredError: the old one ended too long ago.
            EdgeFleetError: not now.
        """
        shown = self.credentials.context()
        with self._renewing:
            if self.credentials.context() is not shown:
                return  # another thread did
            try:
                answered = self._answered(address, self._asks_renewal)
            except AccessExpiredError as error:
                raise AccessExpiredError(
                    f"the device's certificate ended, and was not renewed: {error.message}",
                    cure=error.cure,
                ) from error
            self.credentials.renewed(answered.body)
            _log.info("the device's certificate was renewed")

    def _asks_renewal(self, host: Https) -> Answered:
        body, headers = self.credentials.renewal(), {"Content-Type": "application/json"}
        return host.ask("POST", RENEW, body=body, headers=headers)
