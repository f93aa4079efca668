"""Pub/Sub by its REST API: messages of a subscription, and the CloudEvents in them.

https://cloud.google.com/pubsub/docs/reference/rest and the Pub/Sub protocol binding of CloudEvents
(https://github.com/googleapis/google-cloudevents/blob/main/docs/spec/pubsub.md): structured mode
has an event as JSON in the message, told by the attribute ``content-type``; binary mode has its
data there, and everything else in attributes that begin with ``ce-``.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from edgefleet.errors import DocumentError
from edgefleet.protocol.event import read_event
from edgefleet_gcp.clients import pubsub_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefleet.protocol.event import Event
    from edgefleet_gcp.clients import Clients

DEVICE = "device"
"""Attribute that names the device; its sender writes it."""
STRUCTURED = "application/cloudevents+json"
_BINARY = "ce-"


class Message(NamedTuple):
    """A message that was delivered.

    Attributes:
        ack_id: acknowledges this delivery.
        id: of the message; deliveries of the same message share it.
        attributes: that it was published with.
        data: its body.
    """

    ack_id: str
    id: str
    attributes: Mapping[str, str]
    data: bytes


class Subscription:
    """One subscription.

    Args:
        clients: to reach Pub/Sub with.
        name: of it, in the clients' project.
    """

    def __init__(self, clients: Clients, name: str) -> None:
        self._clients = clients
        self._name = name

    def _url(self, verb: str) -> str:
        name = quote(self._name, safe="")
        path = f"projects/{self._clients.project}/subscriptions/{name}"
        return f"{pubsub_url()}/v1/{path}:{verb}"

    def pull(self, most: int) -> list[Message]:
        """Messages that are there now; others get none of them until their deadline has passed.

        None doesn't mean that there are none: Pub/Sub may answer so before it has looked
        everywhere.

        Args:
            most: so many at most; Pub/Sub gives no more than 1,000.
        """
        # Without it an empty subscription holds the call for about 90 s; Google advises against it
        # for who takes messages all the time, which a query doesn't.
        wanted = {"maxMessages": most, "returnImmediately": True}
        call = self._clients.call
        found = self._clients.asked(lambda: call("POST", self._url("pull"), json=wanted))
        return [_message(one) for one in found.get("receivedMessages", ())]

    def acknowledge(self, messages: list[Message]) -> None:
        """Have messages never delivered again."""
        ids = {"ackIds": [one.ack_id for one in messages]}
        call = self._clients.call
        self._clients.asked(lambda: call("POST", self._url("acknowledge"), json=ids))


def event_in(message: Message) -> Event:
    """The event that a message carries.

    Raises:
        DocumentError: it carries none.
    """
    attributes = {name.lower(): value for name, value in message.attributes.items()}
    if attributes.get("content-type", "").partition(";")[0].strip() == STRUCTURED:
        return read_event(message.data)
    told = {
        name.removeprefix(_BINARY): value
        for name, value in attributes.items()
        if name.startswith(_BINARY)
    }
    if not told:
        raise DocumentError("the message is no CloudEvent")
    kind = attributes.get("content-type", "application/json")
    try:
        data = json.loads(message.data or b"null")
        event = json.dumps({**told, "datacontenttype": kind, "data": data})
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"the event's data is no JSON: {error}") from error
    return read_event(event.encode())


def _message(found: dict[str, Any]) -> Message:
    inner: dict[str, Any] = found.get("message", {})
    try:
        data = base64.b64decode(inner.get("data", ""), validate=True)
    except binascii.Error:
        data = b""
    attributes = {str(k): str(v) for k, v in inner.get("attributes", {}).items()}
    return Message(str(found["ackId"]), str(inner.get("messageId", "")), attributes, data)
