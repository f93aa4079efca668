"""What it means when no answer comes: names that don't resolve, proxies, networks that sign in.

A captive portal can't show the certificate that is expected, so it is known before anything is
sent. What it means is always the same: later, and nothing is lost.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import time
from typing import TYPE_CHECKING

from edgefleet.errors import AccessDeniedError, EdgeFleetError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

ELSE = "somebody else answers in its place, such as the sign-in page of a network"
SIGN_IN = "sign this device's network in, or check the address"
_TUNNEL = re.compile(r"\ATunnel connection failed: (\d{3})")  # http.client's own words
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})
_OF_TIME = frozenset({9, 10})  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
# Alerts by which a server refuses the certificate that it was shown: RFC 8446, section 6.2
_REFUSED = ("UNKNOWN_CA", "CERTIFICATE_REVOKED", "CERTIFICATE_EXPIRED", "BAD_CERTIFICATE")


def is_of_time(error: BaseException | None) -> bool:
    """Whether a certificate was refused for its time alone, by this device's clock."""
    return isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _OF_TIME


def failure_of(
    error: OSError | http.client.HTTPException | ValueError,
    where: str,
    *,
    proxy: str | None = None,
    now: Callable[[], float] = time.time,
) -> EdgeFleetError:
    """What a failure means, in words that help.

    Args:
        error: as the standard library raised it.
        where: host that was asked, for people.
        proxy: host of the proxy on the way; None where there is none.
        now: seconds since 1970, by this device's clock.
    """
    via = f"{where} by the proxy {proxy}" if proxy else where
    if isinstance(error, ssl.SSLError):
        return _untrusted(error, via, now)
    if isinstance(error, socket.gaierror):
        return UnavailableError(
            f"the name of {proxy or where} can't be resolved: {error.strerror}",
            cure="check this device's DNS; it asks again by itself",
        )
    refused = _TUNNEL.match(str(error)) if proxy else None
    if refused is not None:
        cure = "let the proxy pass connections to the gateway"
        if refused[1] == "407":
            cure = "give the proxy's user and password: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT"
        return UnavailableError(f"the proxy {proxy} refuses: HTTP {refused[1]}", cure=cure)
    if isinstance(error, TimeoutError):
        return UnavailableError(f"{via} says nothing for too long")
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return UnavailableError(f"{via}: {said or type(error).__name__}")


def _untrusted(error: ssl.SSLError, via: str, now: Callable[[], float]) -> EdgeFleetError:
    if is_of_time(error):
        today = time.strftime("%Y-%m-%d", time.gmtime(now()))
        return UnavailableError(
            f"{via} shows a certificate that is not valid now: this device's clock says it is "
            f"{today}",
            cure="if that is wrong, set the clock, such as with timedatectl; else the server needs "
            "a new certificate",
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return UnavailableError(
            f"{via} shows a certificate that is not believed ({error.verify_message}): {ELSE}",
            cure=f"{SIGN_IN}; where the fleet's authority was replaced, enrol the device again",
        )
    if any(word in str(error) for word in _REFUSED):
        return AccessDeniedError(
            f"{via} does not know this device's certificate: {error.reason}",
            cure="enrol the device again",
        )
    if error.reason in _NO_TLS:
        return UnavailableError(f"{via} speaks no TLS: {ELSE}", cure=SIGN_IN)
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return UnavailableError(
            f"{via} ends the connection without a word",
            cure="where it stays so, it may not believe this device: enrol it again",
        )
    return UnavailableError(f"{via}: {error.strerror or error}")
