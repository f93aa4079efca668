"""Hot events to a topic of Google Cloud Pub/Sub, by its REST API.

Each event is a message of its own, a CloudEvent in structured mode
(https://github.com/googleapis/google-cloudevents/blob/main/docs/spec/pubsub.md). Pub/Sub tells
nobody who published: the attribute ``device`` is what this device says, and counts where the fleet
trusts all that may publish to the topic.
"""

from __future__ import annotations

import base64
import json
import urllib.request
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from edgefleet.errors import ConfigurationError
from edgefleet.protocol.documents import encode
from edgefleet.protocol.event import attributed
from edgefleet.protocol.names import check_name
from edgefleet_runtime.channels.posts import Posts, batches
from edgefleet_runtime.store.google import GoogleTokens, pubsub_address
from edgefleet_runtime.store.http import NoRedirects
from edgefleet_runtime.store.trust import Verified

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefleet.protocol.event import Event

STRUCTURED = "application/cloudevents+json; charset=utf-8"
# https://cloud.google.com/pubsub/quotas#resource_limits, with room for what is around messages
MAX_MESSAGES = 1000
MAX_BYTES = 9_000_000
UNIT_BYTES = 1000  # a request is billed as 1 KB at least: https://cloud.google.com/pubsub/pricing
_MALFORMED = frozenset({400, 413})  # refused for what it is: the same again won't help


class PubSubSender:
    """Publishes to one topic.

    Args:
        address: ``pubsub://PROJECT/TOPIC``.
        device: the device's name.
        tokens: of this device; None for those that google-auth finds.

    Raises:
        ConfigurationError: the address names no topic.
    """

    max_bytes = MAX_BYTES * 3 // 4  # Base64 makes four bytes of three
    unit_bytes = UNIT_BYTES

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
        self._posts = Posts(
            urllib.request.build_opener(NoRedirects(), Verified()),
            self._request,
            malformed=_MALFORMED,
            refused=self._tokens.refused,
        )

    def send(self, events: Sequence[Event]) -> None:
        """Deliver events; all of them or, with an error, maybe some.

        Raises:
            AccessDeniedError: this device may not publish there.
            AccessExpiredError: it gets no token any more, or that isn't taken.
            UnavailableError, ThrottledError: not now.
        """
        messages = [self._message(one) for one in events]
        where = f"{urlsplit(pubsub_address()).netloc}, {self._path.rpartition('/')[2]}"
        for batch in batches(messages, max_bytes=MAX_BYTES, most=MAX_MESSAGES):
            self._posts.post(batch, where)

    def _message(self, event: Event) -> bytes:
        data = base64.b64encode(encode(attributed(event, self._device))).decode("ascii")
        attributes = {"content-type": STRUCTURED, "device": self._device}
        return json.dumps({"data": data, "attributes": attributes}).encode()

    def _request(self, messages: Sequence[bytes]) -> urllib.request.Request:
        url = f"{pubsub_address()}{self._path}"
        body = b'{"messages":[' + b",".join(messages) + b"]}"
        headers = {**self._tokens.headers(), "Content-Type": "application/json"}
        return urllib.request.Request(url, body, headers, method="POST")  # noqa: S310 - https, or this machine
