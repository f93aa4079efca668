"""First contact: a machine with a token becomes a device of the fleet.

Rules kept here:

- The gateway is verified before the token is shown: by its public key, by the authority in a file,
  or by the system's authorities. Who is pinned or named needs no clock; a device fresh from its box
  may think it is 1970.
- The same again changes nothing: neither once it is done, nor after an answer that was lost.
"""

from __future__ import annotations

import random
import re
import ssl
import time
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from edgefleet.errors import (
    AccessDeniedError,
    ConfigurationError,
    InvalidInputError,
    UnavailableError,
)
from edgefleet.protocol.documents import decode, encode
from edgefleet.protocol.gateway import ENROLL, Enrolment, Identity
from edgefleet_runtime.channels.pull.answers import refused
from edgefleet_runtime.channels.pull.clock import NO_CHECK_TIME, GatewayClock
from edgefleet_runtime.channels.pull.failures import is_of_time
from edgefleet_runtime.channels.pull.https import Https
from edgefleet_runtime.channels.pull.identity import IdentityFolder, pull_extra, token_mark
from edgefleet_runtime.retry import pauses

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from edgefleet_runtime.channels.pull.https import Connection
    from edgefleet_runtime.channels.pull.identity import Kept

TRIES = 4
MAX_PINS = 8
MAX_ANSWER_BYTES = 128 << 10
_NO_CLOCK = "or give --pin or --ca, which need no clock"
_NO_TRUST = (
    "give --pin as in what `edgefleet device enroll NAME` printed, or the fleet's authority by "
    "--ca FILE; if a network's sign-in page answers, sign in"
)
_PIN = re.compile(r"\Asha256//([A-Za-z0-9+/]{43}=)\Z")
_TOKEN = re.compile(r"\A[A-Za-z0-9_\-]{20,128}\Z")


class Trust(NamedTuple):
    """By what a gateway is verified that is met for the first time.

    Attributes:
        pins: base64 of the SHA-256 of the public keys that it may have; none for authorities.
        ca: file with the fleet's authority, PEM; None for the system's.
    """

    pins: tuple[str, ...] = ()
    ca: Path | None = None


class Enrolled(NamedTuple):
    """What became of it.

    Attributes:
        kept: who this device is.
        already: whether it was before, by this very token.
        clock: what is wrong with this device's clock; None for nothing.
    """

    kept: Kept
    already: bool
    clock: str | None


def enroll(
    gateway: str,
    folder: Path,
    token: str,
    *,
    trust: Trust,
    labels: Mapping[str, str] | None = None,
    proxy: str | None = None,
    wait: Callable[[float], object] = time.sleep,
    now: Callable[[], float] = time.time,
) -> Enrolled:
    """Have this machine be the device that a token is for.

    Args:
        gateway: ``https://HOST:PORT``.
        folder: for the identity, see `identity`.
        token: from whoever operates the fleet.
        trust: by what the gateway is verified.
        labels: facts about the device.
        proxy: as of `Https`.
        wait: called with seconds, between two tries.
        now: seconds since 1970, by this device's clock.

    Raises:
        InvalidInputError: the token or the address can't be one.
        AccessDeniedError: the gateway refused the token, or isn't the one that was meant.
        UnavailableError: no answer; the same again goes on.
        ConfigurationError: the folder can't be used.
    """
    if not _TOKEN.match(token):
        raise InvalidInputError(
            "what came by standard input is no token",
            cure="paste the whole of what `edgefleet device enroll NAME` printed",
        )
    files, mark = IdentityFolder(folder), token_mark(token)
    there = files.readable()
    if there is not None and there.token == mark:
        return Enrolled(there, already=True, clock=None)
    asked = Enrolment(token=token, request=files.request(), labels=dict(labels or {}))
    clock = GatewayClock(now)
    found = _asked(_host(gateway, trust, proxy, now), encode(asked), clock, wait, trust)
    return Enrolled(files.take(found, token=mark), already=False, clock=clock.said())


def pins_of(text: str) -> tuple[str, ...]:
    """Pins as ``curl --pinnedpubkey`` takes them: ``sha256//BASE64``, several with semicolons.

    Raises:
        InvalidInputError: it has another form.
    """
    found = [_PIN.match(part.strip()) for part in text.split(";")]
    if len(found) > MAX_PINS or not all(found):
        raise InvalidInputError(
            f"not a pin: {text[:100]!r}", cure="write sha256//BASE64, as the printed command does"
        )
    return tuple(one[1] for one in found if one is not None)


def _asked(
    host: Https,
    body: bytes,
    clock: GatewayClock,
    wait: Callable[[float], object],
    trust: Trust,
) -> Identity:
    """What the gateway answers; asked again where it isn't there."""
    chance = pauses(random.Random(), first_s=2.0)  # noqa: S311 - spreads load, guards nothing
    tries = 0
    try:
        while True:
            tries += 1
            try:
                return _asked_once(host, body, clock)
            except UnavailableError as error:
                helps = _what_helps(error, trust)
                if helps is not None:
                    raise UnavailableError(error.message, cure=helps, retryable=False) from error
                if tries == TRIES or not error.retryable:
                    raise
            wait(next(chance))
    finally:
        host.close()


def _what_helps(error: UnavailableError, trust: Trust) -> str | None:
    """What to do about a certificate, where asking again helps nobody; None for all else."""
    if is_of_time(error.__cause__):
        return f"{error.cure}; {_NO_CLOCK}"
    if trust == Trust() and isinstance(error.__cause__, ssl.SSLCertVerificationError):
        return _NO_TRUST
    return None


def _asked_once(host: Https, body: bytes, clock: GatewayClock) -> Identity:
    headers = {"Content-Type": "application/json", "Connection": "close"}
    answered = host.ask("POST", ENROLL, body=body, headers=headers, max_bytes=MAX_ANSWER_BYTES)
    clock.heard(answered.headers["Date"])
    if answered.status != 200:
        raise refused(answered, host.where)
    return decode(Identity, answered.body)


def _host(gateway: str, trust: Trust, proxy: str | None, now: Callable[[], float]) -> Https:
    if not _is_gateway(gateway):
        raise InvalidInputError(
            f"not a gateway's address: {gateway[:200]!r}", cure="write https://HOST:PORT"
        )
    context = _context(trust)

    def greet(connection: Connection) -> None:
        if trust.pins:
            _check_pin(connection, trust.pins)

    return Https(gateway, context=lambda: context, proxy=proxy, greet=greet, now=now)


def _is_gateway(address: str) -> bool:
    try:
        parts = urlsplit(address)
        named = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return named and not ("@" in parts.netloc or parts.path.strip("/") or parts.query)


def _context(trust: Trust) -> ssl.SSLContext:
    if not trust.pins and trust.ca is None:
        return ssl.create_default_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if trust.pins:  # what verifies it comes in `_check_pin`, before anything is sent
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    try:
        context.load_verify_locations(cafile=trust.ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"the authority in {trust.ca} can't be read: {error}",
            cure="give the file that the gateway's operator gave you, in PEM",
        ) from error
    context.verify_flags |= NO_CHECK_TIME
    return context


def _check_pin(connection: Connection, pins: tuple[str, ...]) -> None:
    with pull_extra():
        from edgefleet_runtime.channels.pull.keys import pin_of  # noqa: PLC0415
    sock = connection.sock
    shown = sock.getpeercert(binary_form=True) if isinstance(sock, ssl.SSLSocket) else None
    if shown is None or pin_of(shown) not in pins:
        raise AccessDeniedError(
            f"{connection.where} has another key than the pinned one: nothing was sent to it",
            cure="if a network's sign-in page answers, sign in; if the gateway was set up anew, "
            "have a new command printed; else somebody stands between",
        )
