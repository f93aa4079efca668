"""Hot events to a topic of Google Cloud Pub/Sub, by its REST API.

Each event is a message of its own, a CloudEvent in structured mode
(https://github.com/googleapis/google-cloudevents/blob/main/docs/spec/pubsub.md). Pub/Sub tells
nobody who published: the attribute ``device`` is what this device says, and counts where the fleet
trusts all that may publish to the topic.
"""

from __future__ import annotations

import base64
import http.client
import json
import logging
import urllib.error
import urllib.request
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from edgefleet.errors import ConfigurationError, UnavailableError
from edgefleet.protocol.documents import encode
from edgefleet.protocol.event import attributed
from edgefleet.protocol.names import check_name
from edgefleet_runtime.store.google import GoogleTokens, pubsub_address
from edgefleet_runtime.store.http import TIMEOUT_S, NoRedirects

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgefleet.protocol.event import Event

STRUCTURED = "application/cloudevents+json; charset=utf-8"
# https://cloud.google.com/pubsub/quotas#resource_limits, with room for what is around messages
MAX_MESSAGES = 1000
MAX_BYTES = 9_000_000
_MALFORMED = frozenset({400, 413})  # refused for what it is: the same again won't help

_log = logging.getLogger(__name__)


class PubSubSender:
    """Publishes to one topic.

    Args:
        address: ``pubsub://PROJECT/TOPIC``.
        device: the device's name.
        tokens: of this device; None for those that google-auth finds.

    Raises:
        ConfigurationError: the address names no topic.
    """

    def __init__(self, address: str, device: str, tokens: GoogleTokens | None = None) -> None:
        parts = urlsplit(address)
        project, topic = parts.netloc, parts.path.strip("/")
        if parts.scheme != "pubsub" or not project or not topic or "/" in topic:
            raise ConfigurationError(
                f"{address!r} names no topic", cure="write pubsub://PROJECT/TOPIC"
            )
        self._path = f"/v1/projects/{quote(project)}/topics/{quote(topic)}:publish"
        self._device = check_name("device", device)
        self._tokens = tokens or GoogleTokens()
        self._opener = urllib.request.build_opener(NoRedirects())

    def send(self, events: Sequence[Event]) -> None:
        """Deliver events; all of them or, with an error, maybe some.

        Raises:
            AccessDeniedError: this device may not publish there.
            AccessExpiredError: it gets no token any more, or that isn't taken.
            UnavailableError, ThrottledError: not now.
        """
        messages = [self._message(one) for one in events]
        for batch in _batches(messages):
            self._publish(batch)

    def _message(self, event: Event) -> bytes:
        data = base64.b64encode(encode(attributed(event, self._device))).decode("ascii")
        attributes = {"content-type": STRUCTURED, "device": self._device}
        return json.dumps({"data": data, "attributes": attributes}).encode()

    def _publish(self, messages: list[bytes]) -> None:
        url = f"{pubsub_address()}{self._path}"
        body = b'{"messages":[' + b",".join(messages) + b"]}"
        headers = {**self._tokens.headers(), "Content-Type": "application/json"}
        request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310 - https, or this machine
        where = f"{urlsplit(url).netloc}, {self._path.rpartition('/')[2]}"
        try:
            with self._opener.open(request, timeout=TIMEOUT_S):
                return
        except urllib.error.HTTPError as error:
            with error:
                if error.code not in _MALFORMED:
                    raise self._tokens.refused(error, where) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            raise UnavailableError(f"{where}: {reason}") from error
        # It would be refused for ever, and all that come after it would wait.
        if len(messages) == 1:
            _log.warning("a hot event of %d bytes is dropped: %s refuses it", len(body), where)
            return
        self._publish(messages[: len(messages) // 2])
        self._publish(messages[len(messages) // 2 :])


def _batches(messages: list[bytes]) -> Iterator[list[bytes]]:
    """Messages as many at once as a request takes; a longer one is alone in its own."""
    batch: list[bytes] = []
    size = 0
    for data in messages:
        if batch and (len(batch) >= MAX_MESSAGES or size + len(data) + 1 > MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(data)
        size += len(data) + 1
    if batch:
        yield batch
