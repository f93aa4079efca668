"""The device's AWS credentials, from the nucleus's token exchange service.

The service answers as the container credentials endpoint does
(https://docs.aws.amazon.com/greengrass/v2/developerguide/token-exchange-service-component.html):
short-lived keys of the role behind the device's role alias. They are kept in memory only.
"""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from datetime import datetime
from typing import NamedTuple
from urllib.parse import urlsplit

from edgefleet.errors import (
    AccessDeniedError,
    AccessExpiredError,
    ConfigurationError,
    UnavailableError,
)

ADDRESS_VARIABLE = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
TOKEN_VARIABLE = "AWS_CONTAINER_AUTHORIZATION_TOKEN"  # noqa: S105 - the name of a variable
TIMEOUT_S = 20.0  # the nucleus may have to ask AWS over a slow link
EARLY_S = 300.0  # ask for new keys while the old ones still hold for a transfer
MAX_BYTES = 64 << 10  # of an answer
_CURE = "check the role alias of the device's certificate, and the role behind it"
_CLOCK = "set the device's clock; or let the nucleus reach AWS, which renews them"


class Keys(NamedTuple):
    """Credentials of a role."""

    key_id: str
    secret: str
    token: str
    until_s: float
    """When they end, as `time.time` tells it."""

    def __repr__(self) -> str:
        """Without what is secret."""
        return f"<keys {self.key_id[:4]}…>"


class TokenExchange:
    """Gives the current keys; may be asked by several threads.

    Args:
        address: of the service.
        token: that it wants to see.
        timeout_s: longest wait for the next byte.
    """

    def __init__(self, address: str, token: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._address = address
        self._token = token
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._keys: Keys | None = None

    @classmethod
    def from_environment(cls) -> TokenExchange:
        """The service of the nucleus that started this process.

        Raises:
            ConfigurationError: it gave none, or one that is not on this machine.
        """
        address, token = os.environ.get(ADDRESS_VARIABLE), os.environ.get(TOKEN_VARIABLE)
        if not address or not token:
            raise ConfigurationError(
                f"{ADDRESS_VARIABLE} or {TOKEN_VARIABLE} is not set",
                cure="let the recipe depend on aws.greengrass.TokenExchangeService",
            )
        url = urlsplit(address)
        if url.scheme != "http" or url.hostname not in {"localhost", "127.0.0.1", "::1"}:
            raise ConfigurationError(f"{ADDRESS_VARIABLE} is no address of this machine")
        return cls(address, token)

    def keys(self) -> Keys:
        """Keys that hold for some minutes more.

        Raises:
            AccessDeniedError: the role alias gives none to this device.
            AccessExpiredError: what the service gives has ended.
            UnavailableError: the service, or AWS behind it, can't be reached.
        """
        with self._lock:
            if self._keys is None or self._keys.until_s - EARLY_S < time.time():
                self._keys = self._fetched(self._keys)
            return self._keys

    def forget(self) -> None:
        """Ask for new keys next time, because somebody refused these."""
        with self._lock:
            self._keys = None

    def _fetched(self, old: Keys | None) -> Keys:
        try:
            keys = _read(self._answer())
        except UnavailableError:
            if old is not None and old.until_s > time.time():
                return old
            raise
        if keys.until_s < time.time():
            raise AccessExpiredError("the token exchange service gives expired keys", cure=_CLOCK)
        return keys

    def _answer(self) -> bytes:
        request = urllib.request.Request(self._address, headers={"Authorization": self._token})  # noqa: S310 - checked above
        # No proxy: the service is on this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=self._timeout_s) as reply:
                answer: bytes = reply.read(MAX_BYTES)
        except urllib.error.HTTPError as error:
            with error:
                said = f"the token exchange service answers {error.code}"
                # https://docs.aws.amazon.com/iot/latest/developerguide/authorizing-direct-aws.html
                if error.code in (400, 401, 403, 404):
                    raise AccessDeniedError(said, cure=_CURE) from error
                raise UnavailableError(said) from error
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(f"no answer from the token exchange service: {error}") from error
        return answer


def _read(answer: bytes) -> Keys:
    try:
        content = json.loads(answer)
        return Keys(
            content["AccessKeyId"],
            content["SecretAccessKey"],
            content["Token"],
            datetime.fromisoformat(content["Expiration"]).timestamp(),
        )
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise UnavailableError(
            f"the token exchange service's answer makes no sense: {type(error).__name__}"
        ) from error
