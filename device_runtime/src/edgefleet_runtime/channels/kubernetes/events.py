"""Hot events on their way out of the cluster: CloudEvents over HTTP, or one an MQTT message.

Both as the specifications have them, so that any receiver of CloudEvents takes them:
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md#33-batched-content-mode
and …/mqtt-protocol-binding.md. A receiver knows the device by the credentials it gave it; beside
that an event's ``source`` says ``/devices/NODE``.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from edgefleet.errors import AccessDeniedError, ConfigurationError, EdgeFleetError, UnavailableError
from edgefleet.protocol.documents import encode
from edgefleet.protocol.event import attributed
from edgefleet_runtime.channels.kubernetes.receivers import secret, tls_context
from edgefleet_runtime.channels.posts import Posts, batches
from edgefleet_runtime.store.http import NoRedirects, refusal_of
from edgefleet_runtime.store.trust import Verified

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgefleet.protocol.event import Event
    from edgefleet_runtime.channels.kubernetes.settings import Settings

BATCH = "application/cloudevents-batch+json; charset=utf-8"
MAX_BATCH_BYTES = 240 << 10  # common receivers take 256 KB
_MALFORMED = frozenset({400, 413, 415, 422})  # refused for what it is: the same again won't help


class Sender(Protocol):
    """Takes hot events.

    Attributes:
        max_bytes: most that it takes at once.
        unit_bytes: bytes that are billed as one.
    """

    max_bytes: int
    unit_bytes: int

    def send(self, events: Sequence[Event]) -> None:
        """Deliver events; all of them or, with an error, maybe some.

        Raises:
            EdgeFleetError: they are to be sent again.
        """


def sender_for(settings: Settings, device: str) -> Sender | None:
    """What takes hot events; None where no address is named.

    Raises:
        ConfigurationError: a file for it can't be used.
        MissingExtraError: an extra is missing for that kind of address.
    """
    address = settings.events
    scheme = urlsplit(address or "").scheme
    if address is None:
        return None
    if scheme in {"mqtt", "mqtts"}:
        from edgefleet_runtime.channels.kubernetes.mqtt import MqttSender  # noqa: PLC0415 - an extra

        return MqttSender(settings, device)
    if scheme == "pubsub":
        from edgefleet_runtime.channels.pubsub import PubSubSender  # noqa: PLC0415 - an extra

        return PubSubSender(address, device)
    return HttpSender(settings, device)


class HttpSender:
    """Posts batches of CloudEvents.

    Args:
        settings: address, token and certificates.
        device: the device's name.

    Raises:
        ConfigurationError: a certificate can't be used.
    """

    max_bytes = MAX_BATCH_BYTES
    unit_bytes = 1

    def __init__(self, settings: Settings, device: str) -> None:
        if settings.events is None:
            raise ConfigurationError("no address for events", cure="give the option events")
        self._address, self._device = settings.events, device
        self._token = settings.events_token
        opener = urllib.request.build_opener(Verified(tls_context(settings)), NoRedirects())
        self._posts = Posts(opener, self._request, malformed=_MALFORMED, refused=_refusal)

    def send(self, events: Sequence[Event]) -> None:
        """Deliver events, in as few requests as their size allows."""
        encoded = [encode(attributed(one, self._device)) for one in events]
        for batch in batches(encoded, max_bytes=MAX_BATCH_BYTES):
            self._posts.post(batch, urlsplit(self._address).netloc)

    def _request(self, batch: Sequence[bytes]) -> urllib.request.Request:
        headers = {"Content-Type": BATCH, **self._authorization()}
        body = b"[" + b",".join(batch) + b"]"
        return urllib.request.Request(self._address, body, headers, method="POST")  # noqa: S310 - checked in settings

    def _authorization(self) -> Mapping[str, str]:
        if self._token is None:
            return {}
        return {"Authorization": f"Bearer {secret(self._token)}"}


def _refusal(error: urllib.error.HTTPError, where: str) -> EdgeFleetError:
    said = f"events are refused by {where}: HTTP {error.code}"
    if error.code in {401, 403}:
        cure = "renew the credential of events, or let the device send there"
        return AccessDeniedError(said, cure=cure)
    if error.code in {429, 503}:
        return refusal_of(error.code, error.headers, f"events to {where}")
    return UnavailableError(said)
