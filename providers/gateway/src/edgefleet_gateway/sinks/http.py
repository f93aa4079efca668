"""CloudEvents by HTTP: batches, or one structured event a request.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md

A batch that is refused for what it is (400, 413, 422) is halved until the event is found that the
other side doesn't take. Any other refusal is the other side's trouble, or a setting's, and what
waits goes on waiting. Redirects aren't followed: the token is for the address in the settings.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edgefleet.errors import AccessDeniedError, EdgeFleetError, ThrottledError, UnavailableError
from edgefleet.protocol.retry_after import retry_after_s
from edgefleet_gateway.sinks.base import Outcome, Sink, Waiting, read_secret, tls_context

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgefleet_gateway.sinks.settings import HttpSettings

BATCH = "application/cloudevents-batch+json; charset=utf-8"
SINGLE = "application/cloudevents+json; charset=utf-8"
MAX_BODY_BYTES = 240 << 10  # of a batch; common receivers take 256 KB
_MALFORMED = frozenset({400, 413, 422})


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Follow none: the answer counts as a refusal."""


class HttpSink(Sink):
    """Posts events.

    Args:
        settings: where to; paths in it are absolute.

    Raises:
        ConfigurationError: a certificate can't be used.
    """

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self.batch = settings.batch
        self._where = urlsplit(settings.url).netloc
        context = tls_context(settings.ca, settings.certificate, settings.key)
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context), _NoRedirects()
        )

    def send(self, events: Sequence[Waiting]) -> Outcome:
        taken: set[int] = set()
        refused: dict[int, str] = {}
        try:
            for batch in _batches(events):
                self._post(batch, taken, refused)
        except EdgeFleetError as error:
            return Outcome(frozenset(taken), refused, error)
        return Outcome(frozenset(taken), refused)

    def close(self) -> None:
        self._opener.close()

    def _post(self, batch: Sequence[Waiting], taken: set[int], refused: dict[int, str]) -> None:
        reason = self._refusal(batch)
        if reason is None:
            taken.update(event.number for event in batch)
        elif len(batch) == 1:
            refused[batch[0].number] = reason
        else:
            half = len(batch) // 2
            self._post(batch[:half], taken, refused)
            self._post(batch[half:], taken, refused)

    def _refusal(self, batch: Sequence[Waiting]) -> str | None:
        """Post a batch; why it is refused for what it is, or None when it was taken.

        Raises:
            EdgeFleetError: it must be sent again.
        """
        single = self.batch == 1
        data = [event.data for event in batch]
        body = data[0] if single else b"[" + b",".join(data) + b"]"
        headers = {"Content-Type": SINGLE if single else BATCH, **self._authorization()}
        request = urllib.request.Request(self._settings.url, body, headers, method="POST")  # noqa: S310 - checked in settings
        try:
            with self._opener.open(request, timeout=self._settings.timeout_s):
                return None
        except urllib.error.HTTPError as error:
            with error:
                if error.code in _MALFORMED:
                    return f"HTTP {error.code}"
                raise self._meaning(error) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise UnavailableError(f"{self._where}: {reason or type(error).__name__}") from error

    def _meaning(self, error: urllib.error.HTTPError) -> EdgeFleetError:
        said = f"{self._where} refuses events: HTTP {error.code}"
        if error.code in {401, 403}:
            return AccessDeniedError(said, cure="renew the token of the sink")
        if error.code in {429, 503}:
            throttled = ThrottledError(said)
            throttled.retry_after_s = retry_after_s(error.headers.get("Retry-After"))
            return throttled
        return UnavailableError(said)

    def _authorization(self) -> Mapping[str, str]:
        if self._settings.token is None:
            return {}
        return {"Authorization": f"Bearer {read_secret(self._settings.token)}"}


def _batches(events: Sequence[Waiting]) -> list[list[Waiting]]:
    """Events in batches of at most `MAX_BODY_BYTES`; one that is longer is alone in its own."""
    found: list[list[Waiting]] = []
    room = 0
    for event in events:
        if not found or len(event.data) + 1 > room:
            found.append([])
            room = MAX_BODY_BYTES
        found[-1].append(event)
        room -= len(event.data) + 1
    return found
