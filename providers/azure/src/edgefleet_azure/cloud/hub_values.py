"""What one IoT Hub holds, as values: identities, configurations, messages, methods, faults."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from edgefleet_azure.cloud.hub_merge import Deployment
from edgefleet_azure.cloud.hub_twins import Twin

MAX_MESSAGE = 256 << 10  # bytes of a message to the cloud, properties included
MAX_METHOD = 128 << 10  # bytes of a direct method's payload, both ways


class HubError(Exception):
    """An answer of IoT Hub's that is no success.

    Attributes:
        status: of HTTP.
        code: IoT Hub's own, such as ``DeviceNotFound``.
    """

    def __init__(
        self, status: int, code: str, message: str, *, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s


def key() -> str:
    """A symmetric key of a new identity."""
    return base64.b64encode(secrets.token_bytes(32)).decode()


@dataclass
class Identity:
    """A device, or a module of one.

    Attributes:
        device: its name.
        module: name of the module; None for the device itself.
        authentication: as the service shows it; keys in base64.
        edge: whether the device has IoT Edge.
        generation: another one after it was deleted and made again.
        number: counts its changes; the etag is made of it.
        statuses: of configurations that target it, by their names.
        count: how many devices alike it stands for; queries count as many.
    """

    device: str
    module: str | None
    authentication: dict[str, Any]
    edge: bool = False
    managed_by: str = ""
    scope: str = ""
    parents: tuple[str, ...] = ()
    enabled: bool = True
    reason: str = ""
    generation: str = field(default_factory=lambda: secrets.token_hex(8))
    number: int = 1
    connected: int = 0
    active: str = "0001-01-01T00:00:00Z"
    twin: Twin = field(default_factory=Twin)
    statuses: dict[str, str] = field(default_factory=dict)
    count: int = 1

    @property
    def etag(self) -> str:
        return etag_of(self.number)

    def keys(self) -> tuple[str, str]:
        """Its symmetric keys; empty for one that shows a certificate."""
        found = self.authentication.get("symmetricKey") or {}
        return found.get("primaryKey") or "", found.get("secondaryKey") or ""


def etag_of(number: int) -> str:
    """An etag of IoT Hub's kind, without its quotes."""
    return base64.b64encode(number.to_bytes(8, "big")).decode()


@dataclass
class Configuration:
    """An automatic deployment.

    Attributes:
        document: as it was given: labels, content, target condition, priority, metrics.
        created: rises with each one that is made.
        evaluated: whether the hub has looked for devices that it targets.
        counted: its metrics, as they were counted last.
    """

    id: str
    document: dict[str, Any]
    created: int
    created_at: str
    updated_at: str
    number: int = 1
    evaluated: bool = False
    counted: dict[str, int] = field(default_factory=dict)

    @property
    def deployment(self) -> Deployment:
        """What merging needs of it."""
        content = self.document.get("content") or {}
        return Deployment(
            self.id, self.document["priority"], self.created, content.get("modulesContent") or {}
        )


class Message(NamedTuple):
    """A message from a module to the cloud.

    Attributes:
        device: that the authenticated connection belongs to, never what the body says.
        output: that the module gave it to; edgeHub's routes chose it.
        properties: of the application.
        enqueued: when the hub took it, RFC 3339.
    """

    device: str
    module: str
    body: bytes
    output: str = ""
    content_type: str = ""
    content_encoding: str = ""
    properties: Mapping[str, str] = {}
    enqueued: str = ""


class MethodReply(NamedTuple):
    """What a module answered to a direct method.

    Attributes:
        payload: JSON.
    """

    status: int
    payload: Any


Cancel = Callable[[], None]
Method = Callable[[str, Any, float], MethodReply]
"""Answers (name, payload, seconds that the caller waits)."""
