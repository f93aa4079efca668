"""A nucleus's IPC on a Unix socket, as the AWS IoT Device SDK's Greengrass client speaks it.

What it answers, and with which errors, follows the nucleus lite's source (``modules/ggipcd`` at
326e992b); each rule is listed in ``mock_rules.md``. It knows no cloud: what stands behind the
operations is a `Host`.

Rules kept here:

- A connection begins with CONNECT and a token; a wrong one is closed without an answer's flag.
- A component sees any component's configuration, and publishes only what its recipe's access
  control allows.
- A lost subscription is told by nothing: whoever depends on one reads again.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import logging
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from botocore.eventstream import ParserError

from edgefleet.errors import EdgeFleetError
from edgefleet_aws.cloud.eventstream import Decoder, Flag, Message, MessageType, encoded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    Cancel = Callable[[], None]

_log = logging.getLogger(__name__)

PREFIX = "aws.greengrass#"
VERSION = "0.1.0"
MAX_MESSAGE = 10_000_000  # bytes read at once from a component; the SDK's own limit is 16 MiB
_JSON = "application/json"


class IpcError(Exception):
    """An error as the nucleus names it, such as ``ResourceNotFoundError``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Host(Protocol):
    """What stands behind the socket."""

    def component_of(self, token: str) -> str | None:
        """The component that a token was given to at its start."""

    def configuration(self, component: str) -> Mapping[str, Any] | None:
        """A component's whole configuration; None for one that isn't installed."""

    def watch(self, component: str, changed: Callable[[list[str]], None]) -> Cancel:
        """Call back with the path of each key that changes, until cancelled."""

    def may(self, component: str, operation: str, topic: str) -> bool:
        """Whether the component's recipe allows an operation of the MQTT proxy on a topic."""

    def announce(self, component: str, tell: Callable[[Mapping[str, Any]], None]) -> Cancel | None:
        """Call back with what is told of deployments; None where this nucleus tells nothing."""

    def put_off(self, component: str, deployment: str, wait_s: float) -> None:
        """Take a component's answer to what it was told.

        Raises:
            IpcError: it isn't awaited.
        """

    async def publish(self, topic: str, payload: bytes) -> None:
        """Publish to IoT Core as this device.

        Raises:
            EdgeFleetError: it can't be published now, or never.
        """

    def subscribe(self, topic_filter: str, received: Callable[[str, bytes], None]) -> Cancel:
        """Call back with topic and payload of each message, until cancelled."""


class IpcServer:
    """Serves a host's components; lives on one event loop.

    Args:
        path: of the socket.
        host: what stands behind it.
    """

    def __init__(self, path: Path, host: Host) -> None:
        self.path = path
        self.silent = False
        """Whether it takes everything in and answers nothing."""
        self._host = host
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    async def start(self) -> None:
        """Listen."""
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))

    async def stop(self) -> None:
        """Close every connection; may be called twice."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        self.drop()
        await server.wait_closed()
        self.path.unlink(missing_ok=True)

    def drop(self) -> None:
        """Close every connection, as a restarted nucleus does."""
        for connection in tuple(self._connections):
            connection.close()

    def lose_subscriptions(self) -> None:
        """Forget every subscription and say nothing, as a revision may do to them."""
        for connection in self._connections:
            connection.cancel_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self, self._host, writer)
        self._connections.add(connection)
        try:
            await connection.serve(reader)
        except (ParserError, ValueError) as error:
            _log.info("a component's connection ends: %s", error)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(connection)
            connection.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class _Stream(NamedTuple):
    """One call of a component, which may go on as a subscription."""

    number: int
    request: Mapping[str, Any]


class _Connection:
    def __init__(self, server: IpcServer, host: Host, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._host = host
        self._writer = writer
        self._component = ""
        self._cancels: dict[int, Cancel] = {}
        self._operations: dict[str, Callable[[_Stream], Awaitable[None]]] = {
            "GetConfiguration": self._get_configuration,
            "SubscribeToConfigurationUpdate": self._watch_configuration,
            "SubscribeToComponentUpdates": self._announce,
            "DeferComponentUpdate": self._put_off,
            "PublishToIoTCore": self._publish,
            "SubscribeToIoTCore": self._subscribe,
        }

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Answer until the component goes, or says what no component says."""
        decoder = Decoder()
        while data := await reader.read(64 << 10):
            if self._server.silent:
                continue
            for message in decoder.messages(data):
                if not self._component:
                    self._connect(message)
                    continue
                await self._answer(message)
            await self._writer.drain()

    def close(self) -> None:
        """Hang up."""
        self.cancel_all()
        self._writer.close()

    def cancel_all(self) -> None:
        """End every subscription without a word."""
        cancels, self._cancels = self._cancels, {}
        for cancel in cancels.values():
            cancel()

    def _connect(self, message: Message) -> None:
        if message.type is not MessageType.CONNECT or message.headers.get(":version") != VERSION:
            raise ValueError("the first message is no CONNECT of version 0.1.0")
        token = json.loads(message.payload or b"{}").get("authToken", "")
        component = self._host.component_of(token)
        if component is None:
            raise ValueError("the token is none that a component was started with")
        self._component = component
        self._send(Message(MessageType.CONNECT_ACK, Flag.CONNECTION_ACCEPTED, 0, {}, b""))

    async def _answer(self, message: Message) -> None:
        if message.type is MessageType.PING:
            self._send(Message(MessageType.PING_RESPONSE, Flag.NONE, 0, {}, b""))
            return
        if message.type is not MessageType.APPLICATION_MESSAGE:
            raise ValueError(f"a component sent {message.type.name}")
        if message.flags & Flag.TERMINATE_STREAM:
            cancel = self._cancels.pop(message.stream, None)
            if cancel is not None:
                cancel()
            end = Message(MessageType.APPLICATION_MESSAGE, message.flags, message.stream, {}, b"")
            self._send(end)
            return
        try:
            await self._handled(message)
        except ValueError as error:
            self._fail(message.stream, IpcError("InvalidArgumentsError", str(error)))
        except IpcError as error:
            self._fail(message.stream, error)

    async def _handled(self, message: Message) -> None:
        operation = message.headers.get("operation", "").removeprefix(PREFIX)
        request = json.loads(message.payload)
        if not isinstance(request, dict):
            raise IpcError("InvalidArgumentsError", "the request is no object")
        handler = self._operations.get(operation)
        if handler is None:
            raise IpcError("ServiceError", f"operation {operation!r} is not served here")
        await handler(_Stream(message.stream, request))

    # -- operations

    async def _get_configuration(self, stream: _Stream) -> None:
        component, path, value = self._found(stream)
        if path and not isinstance(value, dict):
            value = {path[-1]: value}  # a map comes without its key, anything else with it
        self._respond(stream, "GetConfiguration", {"componentName": component, "value": value})

    async def _watch_configuration(self, stream: _Stream) -> None:
        component, path, _ = self._found(stream)

        def changed(key: list[str]) -> None:
            if key[: len(path)] == path:
                about = {"componentName": component, "keyPath": key}
                content = {"configurationUpdateEvent": about}
                self._say(stream.number, "ConfigurationUpdateEvents", content)

        self._cancels[stream.number] = self._host.watch(component, changed)
        self._respond(stream, "SubscribeToConfigurationUpdate", {})

    async def _announce(self, stream: _Stream) -> None:
        def tell(content: Mapping[str, Any]) -> None:
            self._say(stream.number, "ComponentUpdatePolicyEvents", content)

        cancel = self._host.announce(self._component, tell)
        if cancel is None:  # an operation that a nucleus doesn't know is a ServiceError
            raise IpcError("ServiceError", "")
        self._cancels[stream.number] = cancel
        self._respond(stream, "SubscribeToComponentUpdates", {})

    async def _put_off(self, stream: _Stream) -> None:
        deployment, wait_ms = (
            stream.request.get(key) for key in ("deploymentId", "recheckAfterMs")
        )
        if not isinstance(deployment, str):
            message = "Cannot defer the update, the deployment ID provided was null"
            raise IpcError("InvalidArgumentsError", message)
        wait_s = wait_ms / 1000 if isinstance(wait_ms, int) else 0.0
        self._host.put_off(self._component, deployment, wait_s)
        self._respond(stream, "DeferComponentUpdate", {})

    def _found(self, stream: _Stream) -> tuple[str, list[str], Any]:
        component = stream.request.get("componentName") or self._component
        path = stream.request.get("keyPath") or []
        if not (isinstance(path, list) and all(isinstance(key, str) for key in path)):
            raise IpcError("ServiceError", "keyPath is no list of strings")
        value: Any = self._host.configuration(component)
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is None:
            raise IpcError("ResourceNotFoundError", "Key not found.")
        return component, path, value

    async def _publish(self, stream: _Stream) -> None:
        topic = self._topic(stream, "topicName", "PublishToIoTCore")
        try:
            payload = base64.b64decode(stream.request.get("payload") or "", validate=True)
        except (binascii.Error, TypeError) as error:
            raise IpcError("ServiceError", "'payload' is not valid base64.") from error
        try:
            await self._host.publish(topic, payload)
        except EdgeFleetError as error:
            raise IpcError("ServiceError", f"Failed to publish the message: {error}") from error
        self._respond(stream, "PublishToIoTCore", {})

    async def _subscribe(self, stream: _Stream) -> None:
        topic = self._topic(stream, "topicName", "SubscribeToIoTCore")

        def received(name: str, payload: bytes) -> None:
            data = base64.b64encode(payload).decode()
            content = {"message": {"topicName": name, "payload": data}}
            self._say(stream.number, "IoTCoreMessage", content)

        self._cancels[stream.number] = self._host.subscribe(topic, received)
        self._respond(stream, "SubscribeToIoTCore", {})

    def _topic(self, stream: _Stream, field: str, operation: str) -> str:
        topic = stream.request.get(field)
        if not isinstance(topic, str) or not topic:
            raise IpcError("ServiceError", "Received invalid parameters.")
        if not self._host.may(self._component, operation, topic):
            raise IpcError("UnauthorizedError", "IPC Operation not authorized.")
        return topic

    # -- answers

    def _respond(self, stream: _Stream, operation: str, content: Mapping[str, Any]) -> None:
        self._say(stream.number, f"{operation}Response", content)

    def _say(self, stream: int, kind: str, content: Mapping[str, Any]) -> None:
        headers = {"service-model-type": PREFIX + kind, ":content-type": _JSON}
        payload = json.dumps(content).encode()
        self._send(Message(MessageType.APPLICATION_MESSAGE, Flag.NONE, stream, headers, payload))

    def _fail(self, stream: int, error: IpcError) -> None:
        headers = {"service-model-type": PREFIX + error.code, ":content-type": _JSON}
        content = {"_message": str(error), "_errorCode": error.code}
        payload = json.dumps(content).encode()
        kind, flags = MessageType.APPLICATION_ERROR, Flag.TERMINATE_STREAM
        self._send(Message(kind, flags, stream, headers, payload))

    def _send(self, message: Message) -> None:
        if not self._writer.is_closing():
            self._writer.write(encoded(message))
