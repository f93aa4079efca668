"""A device's edgeHub: its modules connect to it by MQTT and TLS, and it keeps what can't go on yet.

Rules kept here, each in ``mock_rules.md``:

- A module shows a token for its own identity, and publishes under its own name only.
- What it subscribed to is kept for its next connection, unless it asks for a clean session.
- While the network is away, twins are answered from what was known last, reported properties are
  kept and sent as one patch, messages wait on the disk until their time to live ends.
- When the network is back, a module that listens is told what changed of its desired properties:
  the newest state, not what was between.
- Direct methods reach a module only while the network is there and it listens.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import logging
import re
import time
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from edgefleet_azure.cloud.edge_login import token_holds
from edgefleet_azure.cloud.edge_mqtt import Connection, Head, Refused
from edgefleet_azure.cloud.edge_routes import Route, route_for, routes_of
from edgefleet_azure.cloud.hub_twins import difference, merged
from edgefleet_azure.cloud.hub_values import MAX_MESSAGE, HubError, Message, MethodReply

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

    from edgefleet_azure.cloud.edge_store import EdgeStore
    from edgefleet_azure.cloud.hub_state import HubDevices
    from edgefleet_azure.cloud.hub_values import Cancel

_log = logging.getLogger(__name__)

PORT = 8883  # azure-iot-device connects to no other
GRACE_S = 5.0
EDGE_HUB = "$edgeHub"
_PATCHES = "$iothub/twin/PATCH/properties/desired/"
_METHODS = "$iothub/methods/POST/"
_EVENTS = re.compile(r"devices/([^/]+)/modules/([^/]+)/messages/events/(.*)")
_REPLY = re.compile(r"\$iothub/methods/res/(\d+)/\?\$rid=(.+)")
_TWIN = re.compile(r"\$iothub/twin/(GET|PATCH/properties/reported)/\?\$rid=([^&]+)")


class EdgeHub(Head):
    """One device's edgeHub; lives on one event loop.

    Args:
        device: its name.
        hub: IoT Hub, which is reached only while `online`.
        host: IoT Hub's name, which tokens are for.
        store: what is kept.
        address: of loopback, that it listens on.
        tls: its certificate.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        device: str,
        hub: HubDevices,
        *,
        host: str,
        store: EdgeStore,
        address: str,
        tls: ssl.SSLContext,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.device = device
        self.online = False
        self.expired = 0
        """Messages whose time to live ended."""
        self._hub, self._host, self._store = hub, host, store
        self._address, self._tls, self._clock = address, tls, clock
        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connections: dict[str, Connection] = {}
        self._links: dict[str, list[Cancel]] = {}
        self._asked: dict[str, asyncio.Future[MethodReply]] = {}
        self._numbers = itertools.count(1)
        self._routes: tuple[Route, ...] = ()
        self._tasks: set[asyncio.Task[None]] = set()

    # -- life

    @property
    def waiting(self) -> int:
        """Messages that wait for the network."""
        return len(self._store.messages)

    async def start(self) -> None:
        """Listen."""
        self._loop = asyncio.get_running_loop()
        self._server = await asyncio.start_server(
            self._accept, self._address, PORT, ssl=self._tls, limit=MAX_MESSAGE
        )
        self._route()

    async def stop(self) -> None:
        """End at once, as when the power goes; may be called twice."""
        server, self._server = self._server, None
        for module in list(self._links):
            self._unlink(module)
        self.online = False
        self.drop_connections()
        if server is not None:
            server.close()
            await server.wait_closed()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def forget_sessions(self) -> None:
        """Know no subscriptions any more, as an edgeHub that was made anew."""
        self._store.sessions.clear()
        self._store.save()

    def drop_connections(self) -> None:
        """Hang up on every module, as an edgeHub does that starts anew."""
        for connection in list(self._connections.values()):
            connection.cut()

    async def set_online(self, online: bool) -> None:  # noqa: FBT001 - what it is set to
        """Reach IoT Hub from now on, or no more."""
        self.online = online
        if not online:
            for module in list(self._links):
                self._unlink(module)
            return
        for module in {EDGE_HUB, *self._connections, *self._store.reports}:
            await self._link(module)
        self._flush()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await Connection(self, reader, writer).serve()

    # -- what IoT Hub tells

    async def _link(self, module: str) -> None:
        """Follow a module's twin, and hand over what was kept for it."""
        try:
            self._store.keys[module] = list(self._hub.keys(self.device, module))
            kept = self._store.reports.pop(module, None)
            if kept is not None:
                self._hub.report(self.device, module, kept)
            if module not in self._links:
                told = partial(self._told, module)
                self._links[module] = [
                    self._hub.connect(self.device, module),
                    self._hub.on_desired(self.device, module, told),
                ]
            self._listen(module)
            await self._refresh(module)
        except HubError as error:  # no such module any more, or a patch that no twin takes
            _log.info("%s of %s: %s", module, self.device, error.message)
        self._store.save()

    async def _refresh(self, module: str) -> None:
        before, twin = self._store.twins.get(module), self._hub.twin(self.device, module)
        self._store.twins[module] = twin
        if module == EDGE_HUB:
            self._route()
        elif before is not None and before["desired"]["$version"] != twin["desired"]["$version"]:
            await self._tell(module, difference(before["desired"], twin["desired"]))

    def _unlink(self, module: str) -> None:
        for cancel in self._links.pop(module, ()):
            cancel()

    def _told(self, module: str, patch: Mapping[str, Any]) -> None:
        """A patch of desired properties; called by any thread."""
        self._soon(self._patched, module, patch)

    def _soon(self, work: Callable[..., None], *given: Any) -> None:  # noqa: ANN401 - passed on
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the device is gone
                self._loop.call_soon_threadsafe(work, *given)

    def _patched(self, module: str, patch: Mapping[str, Any]) -> None:
        twin = self._store.twins.get(module)
        if twin is None or not self.online:
            return
        if patch["$version"] <= twin["desired"]["$version"]:  # read meanwhile
            return
        twin["desired"] = merged(twin["desired"], patch)
        self._store.save()
        if module == EDGE_HUB:
            self._route()
        else:
            self._run(self._tell(module, patch))

    def _run(self, work: Any) -> None:  # noqa: ANN401 - a coroutine
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, module: str, patch: Mapping[str, Any]) -> None:
        connection = self._connections.get(module)
        if connection is not None and f"{_PATCHES}#" in connection.topics:
            topic = f"{_PATCHES}?$version={patch['$version']}"
            await connection.publish(topic, json.dumps(patch).encode())

    def _route(self) -> None:
        twin = self._store.twins.get(EDGE_HUB)
        try:
            self._routes = () if twin is None else routes_of(twin["desired"])
        except ValueError as error:
            _log.warning("%s keeps its old routes: %s", self.device, error)

    # -- what modules ask

    def login(self, client: str, user: str, password: str) -> tuple[str, str] | None:
        host, _, rest = user.partition("/")
        device, _, rest = rest.partition("/")
        module = rest.partition("/")[0]
        if host != self._host or device != self.device or client != f"{device}/{module}":
            return None
        if self.online:
            with contextlib.suppress(HubError):
                self._store.keys[module] = list(self._hub.keys(device, module))
        resource = f"{host}/devices/{device}/modules/{module}"
        if not token_holds(password, resource, self._store.keys.get(module, ())):
            return None
        return device, module

    async def opened(self, connection: Connection, *, clean: bool) -> bool:
        module = connection.module
        there = self._connections.get(module)
        if there is not None:
            there.cut()  # the newer connection takes over, MQTT 3.1.4-2
        self._connections[module] = connection
        known = not clean and module in self._store.sessions
        connection.topics.update(self._store.sessions[module] if known else ())
        if self.online:
            await self._link(module)
        return known

    async def subscribed(self, connection: Connection) -> None:
        self._store.sessions[connection.module] = sorted(connection.topics)
        self._store.save()
        if self.online:
            await self._link(connection.module)

    def closed(self, connection: Connection) -> None:
        if self._connections.get(connection.module) is connection:
            del self._connections[connection.module]
            self._unlink(connection.module)

    async def published(self, connection: Connection, topic: str, data: bytes) -> None:
        twin, reply, events = _TWIN.match(topic), _REPLY.match(topic), _EVENTS.match(topic)
        if twin is not None:
            await self._twin(connection, twin[1], twin[2], data)
        elif reply is not None:
            waiting = self._asked.get(unquote(reply[2]))
            if waiting is not None and not waiting.done():
                waiting.set_result(MethodReply(int(reply[1]), json.loads(data or b"null")))
        elif events is not None:
            if (events[1], events[2]) != (connection.device, connection.module):
                raise Refused(f"{connection.module} may not publish on {topic[:200]}")
            self._message(connection.module, events[3], data)
        else:
            raise Refused(f"{connection.module} may not publish on {topic[:200]}")

    async def _twin(self, connection: Connection, what: str, number: str, data: bytes) -> None:
        module = connection.module
        version, status, answer = "", 200, b""
        try:
            if what == "GET":
                answer = json.dumps(self._twin_of(module)).encode()
            else:
                status, version = 204, f"&$version={self._report(module, json.loads(data))}"
        except HubError as error:
            status, answer = error.status, json.dumps({"message": error.message}).encode()
        except ValueError:
            status, answer = 400, b'{"message": "no JSON"}'
        await connection.publish(f"$iothub/twin/res/{status}/?$rid={number}{version}", answer)

    def _twin_of(self, module: str) -> Mapping[str, Any]:
        if self.online:
            self._store.twins[module] = self._hub.twin(self.device, module)
            self._store.save()
        twin = self._store.twins.get(module)
        if twin is None:
            raise HubError(503, "ServiceUnavailable", "no network, and this twin is not known")
        return twin

    def _report(self, module: str, patch: Mapping[str, Any]) -> int:
        if self.online:
            return self._hub.report(self.device, module, patch)
        self._store.report(module, patch)
        return 0

    # -- messages

    def _message(self, module: str, properties: str, data: bytes) -> None:
        if len(data) + len(properties) > MAX_MESSAGE:
            raise Refused(f"a message of {len(data)} bytes")
        pairs = (part.partition("=") for part in properties.split("&") if part)
        found = {unquote(name): unquote(value) for name, _, value in pairs}
        output = found.get("$.on", "")
        route = route_for(self._routes, module, output)
        if route is None:
            _log.info("%s: no route takes what %s sends to %r", self.device, module, output)
            return
        self._store.messages.append(
            {
                "module": module,
                "output": output,
                "body": base64.b64encode(data).decode(),
                "content_type": found.get("$.ct", ""),
                "content_encoding": found.get("$.ce", ""),
                "properties": {k: v for k, v in found.items() if not k.startswith("$.")},
                "priority": route.priority,
                "until": self._clock() + route.time_to_live_s,
            }
        )
        self._store.save()
        self._flush()

    def _flush(self) -> None:
        """Send what waits, as far as the network is there."""
        if not (self.online and self._store.messages):
            return
        now = self._clock()
        for kept in sorted(self._store.messages, key=lambda one: one["priority"]):
            if kept["until"] < now:
                self.expired += 1
                continue
            fields = {k: v for k, v in kept.items() if k not in {"priority", "until"}}
            body = base64.b64decode(fields.pop("body"))
            try:
                self._hub.send(Message(device=self.device, body=body, **fields))
            except HubError as error:
                _log.warning("IoT Hub refuses a message of %s: %s", self.device, error.message)
        self._store.messages = []
        self._store.save()

    # -- direct methods

    def _listen(self, module: str) -> None:
        connection, links = self._connections.get(module), self._links[module]
        hears = connection is not None and f"{_METHODS}#" in connection.topics
        if hears and len(links) == 2:  # the connection and the patches
            answer = partial(self._method, module)
            links.append(self._hub.on_method(self.device, module, answer))

    def _method(self, module: str, name: str, payload: Any, timeout_s: float) -> MethodReply:  # noqa: ANN401
        """Have a module answer; called by a thread of the service's side."""
        if self._loop is None or not self.online:
            raise HubError(404, "DeviceNotOnline", f"{self.device} isn't connected")
        work = self._ask(module, name, payload, timeout_s)
        # A while longer, because the device may lose its power meanwhile.
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s + GRACE_S)

    async def _ask(self, module: str, name: str, payload: Any, timeout_s: float) -> MethodReply:  # noqa: ANN401
        connection = self._connections.get(module)
        if connection is None:
            raise HubError(404, "DeviceNotOnline", f"{self.device} isn't connected")
        number = str(next(self._numbers))
        answer: asyncio.Future[MethodReply] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            async with asyncio.timeout(timeout_s):
                topic = f"{_METHODS}{quote(name, safe='')}/?$rid={number}"
                await connection.publish(topic, json.dumps(payload).encode())
                return await answer
        except TimeoutError as error:
            said = f"{self.device} gave no answer in time"
            raise HubError(504, "GatewayTimeout", said) from error
        finally:
            del self._asked[number]
