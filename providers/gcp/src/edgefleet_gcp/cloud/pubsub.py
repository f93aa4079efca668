"""Pub/Sub's REST API: topics, subscriptions that are pulled from, deadlines, redelivery.

https://cloud.google.com/pubsub/docs/reference/rest and https://cloud.google.com/pubsub/quotas.
Messages are delivered at least once and in no order that is promised; here it is the order they
came in. Who publishes is told to nobody.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from edgefleet.testing.cloud.calls import Refused, Reply
from edgefleet_gcp.cloud.calls import Call, Route

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_BYTES = 10_000_000  # of a request, and of a message
MAX_MESSAGES = 1000  # of a request, either way
MAX_ATTRIBUTES, MAX_KEY, MAX_VALUE = 100, 256, 1024
DEADLINES_S = (10, 600)
_TOPIC = "/v1/projects/{project}/topics/{topic}"
_SUBSCRIPTION = "/v1/projects/{project}/subscriptions/{subscription}"


@dataclass
class Delivery:
    """A message in a subscription.

    Attributes:
        message: as Pub/Sub tells it.
        ack_id: of the newest delivery.
        until: when it is delivered again, by the mock's clock.
        attempts: how often it was delivered.
    """

    message: dict[str, Any]
    ack_id: str = ""
    until: float = float("-inf")
    attempts: int = 0


@dataclass
class Subscribed:
    """A subscription."""

    topic: str
    deadline_s: int = 10
    waiting: dict[str, Delivery] = field(default_factory=dict)


class PubSub:
    """Topics and subscriptions.

    Args:
        clock: gives the time, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ahead_s = 0.0
        self._lock = threading.Lock()
        self._topics: set[str] = set()
        self._subscriptions: dict[str, Subscribed] = {}
        self._numbers = itertools.count(1)

    @property
    def routes(self) -> Sequence[Route]:
        """What it answers."""
        return (
            Route("pubsub.Publish", "POST", f"{_TOPIC}:publish", self._publish),
            Route("pubsub.TestIamPermissions", "POST", f"{_TOPIC}:testIamPermissions", self._test),
            Route("pubsub.Pull", "POST", f"{_SUBSCRIPTION}:pull", self._pull),
            Route("pubsub.Acknowledge", "POST", f"{_SUBSCRIPTION}:acknowledge", self._acknowledge),
            Route(
                "pubsub.ModifyAckDeadline",
                "POST",
                f"{_SUBSCRIPTION}:modifyAckDeadline",
                self._modify,
            ),
            Route(
                "pubsub.TestIamPermissions",
                "POST",
                f"{_SUBSCRIPTION}:testIamPermissions",
                self._test,
            ),
            Route("pubsub.CreateTopic", "PUT", _TOPIC, self._create_topic),
            Route("pubsub.CreateSubscription", "PUT", _SUBSCRIPTION, self._create_subscription),
        )

    def pass_time(self, seconds: float) -> None:
        """Have so much time pass here, so that deadlines do."""
        with self._lock:
            self._ahead_s += seconds

    def create(self, topic: str, subscription: str) -> None:
        """Have a topic and a subscription of it, by their full names."""
        with self._lock:
            self._topics.add(topic)
            self._subscriptions.setdefault(subscription, Subscribed(topic, deadline_s=60))

    def waiting(self, subscription: str) -> int:
        """How many messages nobody has acknowledged."""
        with self._lock:
            return len(self._subscriptions[subscription].waiting)

    # Topics

    def _create_topic(self, call: Call) -> Reply:
        name = _topic(call)
        call.require("pubsub.topics.create", _project(call), shown=_project(call))
        with self._lock:
            if name in self._topics:
                raise Refused(409, "", f"Resource already exists in the project (resource={name}).")
            self._topics.add(name)
        return Reply(body={"name": name})

    def _publish(self, call: Call) -> Reply:
        name = _topic(call)
        call.require("pubsub.topics.publish", name, shown=name)
        body = call.body(MAX_BYTES * 2)
        if len(body) > MAX_BYTES:
            raise Refused(400, "", f"The request size is {len(body)} bytes, {MAX_BYTES} allowed.")
        sent = call.json().get("messages")
        if not isinstance(sent, list) or not 0 < len(sent) <= MAX_MESSAGES:
            raise Refused(400, "", f"The value for message_count is not 1 to {MAX_MESSAGES}.")
        messages = [self._checked(one) for one in sent]
        with self._lock:
            if name not in self._topics:
                raise _missing(name)
            for message in messages:
                message["messageId"] = str(next(self._numbers))
                for subscribed in self._subscriptions.values():
                    if subscribed.topic == name:
                        subscribed.waiting[message["messageId"]] = Delivery(message)
        return Reply(body={"messageIds": [one["messageId"] for one in messages]})

    @staticmethod
    def _checked(sent: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        data, attributes = sent.get("data", ""), sent.get("attributes", {})
        if not data and not attributes:
            raise Refused(400, "", "Some messages are empty: neither data nor attributes.")
        try:
            base64.b64decode(data, validate=True)
        except (binascii.Error, TypeError) as error:
            raise Refused(400, "", "Invalid value for data: Base64 decoding failed.") from error
        if len(attributes) > MAX_ATTRIBUTES:
            raise Refused(400, "", f"A message has more than {MAX_ATTRIBUTES} attributes.")
        for key, value in attributes.items():
            if not isinstance(value, str) or len(value.encode()) > MAX_VALUE:
                raise Refused(400, "", f"The value of {key!r} is too long or no text.")
            if not 0 < len(key.encode()) <= MAX_KEY or key.startswith("goog"):
                raise Refused(400, "", f"The attribute {key!r} is too long, empty or reserved.")
        published = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        return {"data": data, "attributes": attributes, "publishTime": published}

    # Subscriptions

    def _create_subscription(self, call: Call) -> Reply:
        name, told = _subscription(call), call.json()
        call.require("pubsub.subscriptions.create", _project(call), shown=_project(call))
        topic = str(told.get("topic", ""))
        call.require("pubsub.topics.attachSubscription", topic, shown=topic)
        deadline_s = int(told.get("ackDeadlineSeconds") or 10)
        if not DEADLINES_S[0] <= deadline_s <= DEADLINES_S[1]:
            raise Refused(400, "", f"Invalid ack deadline given: {deadline_s}.")
        with self._lock:
            if topic not in self._topics:
                raise _missing(topic)
            if name in self._subscriptions:
                raise Refused(409, "", f"Resource already exists in the project (resource={name}).")
            self._subscriptions[name] = Subscribed(topic, deadline_s)
        return Reply(body={"name": name, "topic": topic, "ackDeadlineSeconds": deadline_s})

    def _pull(self, call: Call) -> Reply:
        with self._lock:
            subscribed = self._consumed(call)
            most = call.json().get("maxMessages")
            if not isinstance(most, int) or most < 1:
                raise Refused(400, "", "You have passed a bad value of max_messages.")
            now, found = self._now(), list[dict[str, Any]]()
            for waiting in subscribed.waiting.values():
                if waiting.until <= now and len(found) < min(most, MAX_MESSAGES):
                    waiting.ack_id = secrets.token_urlsafe(24)
                    waiting.until = now + subscribed.deadline_s
                    waiting.attempts += 1
                    found.append({"ackId": waiting.ack_id, "message": waiting.message})
        return Reply(body={"receivedMessages": found} if found else {})

    def _acknowledge(self, call: Call) -> Reply:
        with self._lock:
            subscribed, ids = self._consumed(call), _ack_ids(call)
            now = self._now()
            for number, waiting in tuple(subscribed.waiting.items()):
                # One that comes too late is taken, and may have no effect.
                if waiting.ack_id in ids and waiting.until > now:
                    del subscribed.waiting[number]
        return Reply(body={})

    def _modify(self, call: Call) -> Reply:
        with self._lock:
            subscribed, ids = self._consumed(call), _ack_ids(call)
            seconds = call.json().get("ackDeadlineSeconds")
            if not isinstance(seconds, int) or not 0 <= seconds <= DEADLINES_S[1]:
                raise Refused(400, "", f"Invalid ack deadline given: {seconds}.")
            now = self._now()
            for waiting in subscribed.waiting.values():
                if waiting.ack_id in ids and waiting.until > now:
                    waiting.until = now + seconds
        return Reply(body={})

    def _consumed(self, call: Call) -> Subscribed:
        name = _subscription(call)
        call.require("pubsub.subscriptions.consume", name, shown=name)
        subscribed = self._subscriptions.get(name)
        if subscribed is None:
            raise _missing(name)
        return subscribed

    def _test(self, call: Call) -> Reply:
        name = _topic(call) if "topic" in call.parts else _subscription(call)
        if call.account is None:
            raise Refused(401, "", "Anonymous callers have no permissions.")
        with self._lock:
            if name not in self._topics and name not in self._subscriptions:
                raise _missing(name)
        asked = [str(one) for one in call.json().get("permissions", ())]
        return Reply(body={"permissions": [one for one in asked if call.account.has(one, name)]})

    def _now(self) -> float:
        return self._clock() + self._ahead_s

    def kept(self) -> dict[str, Any]:
        """Topics, subscriptions and what waits in them; deliveries under way are over."""
        with self._lock:
            return {
                "topics": sorted(self._topics),
                "next": next(self._numbers),
                "subscriptions": {
                    name: {
                        **asdict(one),
                        "waiting": {
                            number: delivery.message for number, delivery in one.waiting.items()
                        },
                    }
                    for name, one in self._subscriptions.items()
                },
            }

    def restore(self, kept: dict[str, Any]) -> None:
        """Become what `kept` told."""
        with self._lock:
            self._topics = set(kept["topics"])
            self._numbers = itertools.count(kept["next"])
            self._subscriptions = {
                name: Subscribed(
                    one["topic"],
                    one["deadline_s"],
                    {number: Delivery(message) for number, message in one["waiting"].items()},
                )
                for name, one in kept["subscriptions"].items()
            }


def _project(call: Call) -> str:
    return f"projects/{call.parts['project']}"


def _topic(call: Call) -> str:
    return f"{_project(call)}/topics/{call.parts['topic']}"


def _subscription(call: Call) -> str:
    return f"{_project(call)}/subscriptions/{call.parts['subscription']}"


def _ack_ids(call: Call) -> set[str]:
    ids = call.json().get("ackIds")
    if not isinstance(ids, list) or not ids:
        raise Refused(400, "", "No ack ids specified.")
    return {str(one) for one in ids}


def _missing(name: str) -> Refused:
    return Refused(404, "", f"Resource not found (resource={name.rpartition('/')[2]}).")
