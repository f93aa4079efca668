"""The state of one IoT Hub: identities, twins, automatic deployments, and what devices see of it.

The service's REST API is `hub_rest`; `HubDevices` is all that the edge side uses. Whatever changes
tags, twins or deployments has the deployments evaluated at once, unless the hub is told to `hold`:
the real one takes minutes. Callbacks come in the order of the changes, outside any lock.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import threading
from collections import deque
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from edgefleet.errors import LimitExceededError
from edgefleet_azure.cloud.hub_merge import Merged, merge, placed
from edgefleet_azure.cloud.hub_query import parse_condition
from edgefleet_azure.cloud.hub_twins import difference
from edgefleet_azure.cloud.hub_values import (
    MAX_MESSAGE,
    MAX_METHOD,
    Cancel,
    Configuration,
    HubError,
    Identity,
    Message,
    Method,
    MethodReply,
    etag_of,
    key,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Patched = Callable[[dict[str, Any]], None]

_log = logging.getLogger(__name__)

EDGE_AGENT, EDGE_HUB = "$edgeAgent", "$edgeHub"


class HubDevices(Protocol):
    """The hub as devices reach it; every call is one of an authenticated device or module.

    All raise `HubError`: 404 where there is no such device or module, 400 for what is too large.
    """

    def keys(self, device: str, module: str | None) -> tuple[str, str]:
        """The symmetric keys of an identity, in base64."""

    def connect(self, device: str, module: str | None) -> Cancel:
        """Show the identity as connected, until the result is called."""

    def twin(self, device: str, module: str | None) -> dict[str, Any]:
        """``{"desired": {…, "$version": 1}, "reported": {…, "$version": 1}}``."""

    def on_desired(self, device: str, module: str | None, received: Patched) -> Cancel:
        """Have each later patch of desired properties, ``$version`` included, given on."""

    def report(self, device: str, module: str | None, patch: Mapping[str, Any]) -> int:
        """Merge a patch into reported properties; gives their new ``$version``."""

    def send(self, message: Message) -> None:
        """Take a message in; the hub stamps when."""

    def on_method(self, device: str, module: str | None, answer: Method) -> Cancel:
        """Have direct methods of one identity answered."""

    def merged(self, device: str) -> Merged:
        """What the deployments in force make of a device, as its twins already show."""


class HubState:
    """One IoT Hub. Implements `HubDevices`.

    Args:
        clock: gives the time, with its zone.
        host: name of the hub.
    """

    def __init__(
        self,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
        *,
        host: str = "localhost",
    ) -> None:
        self.host = host
        self._clock = clock
        self._lock = threading.RLock()
        self._delivering = threading.RLock()
        self._due: deque[Callable[[], None]] = deque()
        self._patched: dict[tuple[str, str | None], list[Patched]] = {}
        self._methods: dict[tuple[str, str | None], Method] = {}
        self._sinks: list[Callable[[Message], None]] = []
        self._depth = 0
        self._made = 0
        self._holding = False
        self.identities: dict[tuple[str, str | None], Identity] = {}
        """Devices and modules, by device and module; None for the device itself."""
        self.configurations: dict[str, Configuration] = {}

    # Whoever changes something

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the state still; what devices are to be told of is told afterwards, in order."""
        with self._lock:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                outermost = not self._depth
        if outermost:
            self._deliver()

    def _deliver(self) -> None:
        # Whoever delivers already takes ours along: a callback may wait for another thread.
        while self._due and self._delivering.acquire(blocking=False):
            try:
                while self._due:
                    self._tell(self._due.popleft())
            finally:
                self._delivering.release()

    @staticmethod
    def _tell(told: Callable[[], None]) -> None:
        try:
            told()
        except Exception:  # noqa: BLE001 - whatever a reader raises is the reader's affair
            _log.exception("a device's or a reader's side of the hub failed")

    def now(self) -> str:
        """The time, as IoT Hub writes it."""
        return self._clock().astimezone(dt.UTC).isoformat().replace("+00:00", "Z")

    def identity(self, device: str, module: str | None = None) -> Identity:
        """A device or module.

        Raises:
            HubError: 404: there is none.
        """
        found = self.identities.get((device, module))
        if found is None:
            what = "Device" if module is None else "Module"
            name = device if module is None else f"{device}/{module}"
            raise HubError(404, f"{what}NotFound", f"{what} {name} not registered")
        return found

    def modules(self, device: str) -> list[Identity]:
        """Modules of a device, by name."""
        with self._lock:
            found = [
                one
                for (owner, module), one in self.identities.items()
                if owner == device and module is not None
            ]
        return sorted(found, key=lambda one: one.module or "")

    def add(self, identity: Identity) -> None:
        """Make a device or module; one with IoT Edge gets edgeAgent and edgeHub."""
        with self.changing():
            self.identities[identity.device, identity.module] = identity
            if identity.module is None and identity.edge:
                for module in (EDGE_AGENT, EDGE_HUB):
                    self.module(identity.device, module)
            self.evaluate(identity.device)

    def remove(self, device: str, module: str | None = None) -> None:
        """Take an identity away; a device goes with its modules."""
        with self.changing():
            self.identity(device, module)
            for at in list(self.identities):
                if at == (device, module) or (module is None and at[0] == device):
                    del self.identities[at]
                    self._patched.pop(at, None)
                    self._methods.pop(at, None)

    def module(self, device: str, module: str) -> Identity:
        """A module of a device, made where it is missing, as IoT Edge does."""
        found = self.identities.get((device, module))
        if found is None:
            keys = {"primaryKey": key(), "secondaryKey": key()}
            managed = "" if module.startswith("$") else "IotEdge"
            found = Identity(
                device,
                module,
                {"type": "sas", "symmetricKey": keys},
                managed_by=managed,
                count=self.identity(device).count,
            )
            self.identities[device, module] = found
        return found

    def number(self) -> int:
        """A number above every one before it."""
        with self._lock:
            self._made += 1
            return self._made

    def go_on_above(self, number: int) -> None:
        """Give only numbers above that one from now on."""
        self._made = max(self._made, number)

    def change_twin(
        self,
        device: str,
        module: str | None,
        *,
        tags: Mapping[str, Any] | None,
        desired: Mapping[str, Any] | None,
        replace: bool,
    ) -> Identity:
        """Change a twin from the service's side: patch, or replace what is given.

        Raises:
            HubError: 404, or 400 with what the twin can't take; then nothing changed.
        """
        with self.changing():
            identity = self.identity(device, module)
            twin, now = identity.twin, self.now()
            before = twin.tags
            try:
                if tags is not None:
                    twin.tag(tags, replace=replace)
                if desired is not None:
                    self._set_desired(identity, desired, now, replace=replace)
            except LimitExceededError as error:
                twin.tags = before
                raise HubError(400, "ArgumentInvalid", error.message) from error
            twin.version += 1
            self.evaluate(device)
            return identity

    def _set_desired(
        self, identity: Identity, desired: Mapping[str, Any], now: str, *, replace: bool
    ) -> None:
        section = identity.twin.desired
        if replace:
            patch = section.replace(desired, now)
        else:
            section.patch(desired, now)
            patch = dict(desired)
        told = {**patch, "$version": section.version}
        for received in self._patched.get((identity.device, identity.module), ()):
            self._due.append(partial(received, told))

    # Automatic deployments

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Evaluate no deployment meanwhile, as the real hub doesn't for minutes; then all."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
            self.evaluate_all()

    def evaluate_all(self) -> None:
        """Have every device follow the deployments in force."""
        with self.changing():
            for device, module in list(self.identities):
                if module is None:
                    self.evaluate(device)
            if not self._holding:
                for one in self.configurations.values():
                    one.evaluated = True

    def evaluate_new(self, made: Configuration) -> None:
        """Have the devices that a new deployment targets follow it."""
        if self._holding:
            return
        holds = parse_condition(made.document.get("targetCondition") or "")
        with self.changing():
            for (device, module), one in list(self.identities.items()):
                if module is None and holds(self.seen(one)):
                    self.evaluate(device)
            made.evaluated = True

    def evaluate_without(self, name: str) -> None:
        """Have the devices that a deployment targeted follow those that are left."""
        with self.changing():
            for (device, module), one in list(self.identities.items()):
                if module == EDGE_AGENT and name in one.statuses:
                    self.evaluate(device)

    def evaluate(self, device: str) -> None:
        """Have a device's twins follow the deployments that target it."""
        if self._holding:
            return
        with self.changing():
            identity = self.identities.get((device, None))
            if identity is None or not identity.edge:
                return
            result = self.merged(device)
            self.module(device, EDGE_AGENT).statuses = result.status
            for module, places in result.places.items():
                owner = self.module(device, module)
                section = owner.twin.desired
                wanted = placed(section.content, places)
                patch = difference(section.content, wanted)
                if patch:
                    self._set_desired(owner, patch, self.now(), replace=False)
                    owner.twin.version += 1
            for module in self.identity(device, EDGE_AGENT).twin.desired.content.get("modules", {}):
                self.module(device, module)

    def targeting(self, device: str) -> list[Configuration]:
        """Automatic deployments whose condition holds for a device."""
        with self._lock:
            twin = self.seen(self.identity(device))
            return [
                one
                for one in self.configurations.values()
                if parse_condition(one.document.get("targetCondition") or "")(twin)
            ]

    def seen(self, identity: Identity) -> dict[str, Any]:
        """A twin as conditions and queries see it."""
        twin = identity.twin
        document: dict[str, Any] = {"deviceId": identity.device}
        if identity.module is not None:
            document["moduleId"] = identity.module
        return {
            **document,
            "etag": etag_of(identity.twin.version),
            "deviceEtag": identity.etag,
            "status": "enabled" if identity.enabled else "disabled",
            "connectionState": "Connected" if identity.connected else "Disconnected",
            "lastActivityTime": identity.active,
            "cloudToDeviceMessageCount": 0,
            "authenticationType": identity.authentication.get("type", "sas"),
            "version": twin.version,
            "tags": twin.tags,
            "properties": {
                "desired": twin.desired.document(),
                "reported": twin.reported.document(),
            },
            "capabilities": {"iotEdge": identity.edge},
            "configurations": {
                name: {"status": status} for name, status in identity.statuses.items()
            },
        }

    def merged(self, device: str) -> Merged:
        with self._lock:
            return merge(one.deployment for one in self.targeting(device))

    # The devices' side

    def keys(self, device: str, module: str | None) -> tuple[str, str]:
        with self._lock:
            return self.identity(device, module).keys()

    def connect(self, device: str, module: str | None) -> Cancel:
        with self._lock:
            identity = self.identity(device, module)
            identity.connected += 1
            identity.active = self.now()

        def disconnect() -> None:
            with self._lock:
                identity.connected -= 1

        return _once(disconnect)

    def twin(self, device: str, module: str | None) -> dict[str, Any]:
        with self._lock:
            twin = self.identity(device, module).twin
            document = {"desired": twin.desired.told(), "reported": twin.reported.told()}
            copied: dict[str, Any] = json.loads(json.dumps(document))
            return copied

    def on_desired(self, device: str, module: str | None, received: Patched) -> Cancel:
        with self._lock:
            self.identity(device, module)
            self._patched.setdefault((device, module), []).append(received)

        def cancel() -> None:
            with self._lock:
                there = self._patched.get((device, module), [])
                if received in there:
                    there.remove(received)

        return cancel

    def report(self, device: str, module: str | None, patch: Mapping[str, Any]) -> int:
        with self.changing():
            identity = self.identity(device, module)
            try:
                identity.twin.reported.patch(patch, self.now())
            except LimitExceededError as error:
                raise HubError(400, "ArgumentInvalid", error.message) from error
            identity.twin.version += 1
            identity.active = self.now()
            self.evaluate(device)  # conditions may name what is reported
            return identity.twin.reported.version

    def send(self, message: Message) -> None:
        size = len(message.body) + sum(
            len(f"{k}{v}".encode()) for k, v in message.properties.items()
        )
        if size > MAX_MESSAGE:
            raise HubError(413, "MessageTooLarge", f"a message of {size} bytes, 256 KB are allowed")
        with self.changing():
            self.identity(message.device, message.module).active = self.now()
            stamped = message._replace(enqueued=self.now())
            for sink in self._sinks:
                self._due.append(partial(sink, stamped))

    def on_message(self, sink: Callable[[Message], None]) -> None:
        """Have each message to the cloud given on, for the Event Hubs-compatible endpoint."""
        with self._lock:
            self._sinks.append(sink)

    def on_method(self, device: str, module: str | None, answer: Method) -> Cancel:
        with self._lock:
            self.identity(device, module)
            self._methods[device, module] = answer

        def cancel() -> None:
            with self._lock:
                if self._methods.get((device, module)) is answer:
                    del self._methods[device, module]

        return cancel

    def invoke(
        self,
        device: str,
        module: str | None,
        name: str,
        payload: Any,  # noqa: ANN401 - JSON
        timeout_s: float,
    ) -> MethodReply:
        """Have a device answer a direct method.

        Raises:
            HubError: 404: it isn't connected; 413: payload or answer are too large.
        """
        if len(json.dumps(payload).encode()) > MAX_METHOD:
            raise HubError(413, "RequestEntityTooLarge", "a payload has at most 128 KB")
        with self._lock:
            self.identity(device, module)
            answer = self._methods.get((device, module))
        if answer is None:
            raise HubError(404, "DeviceNotOnline", f"{device} isn't connected")
        reply = answer(name, payload, timeout_s)
        if len(json.dumps(reply.payload).encode()) > MAX_METHOD:
            raise HubError(413, "RequestEntityTooLarge", "an answer has at most 128 KB")
        return reply


def _once(action: Callable[[], None]) -> Cancel:
    pending = [action]

    def act() -> None:
        if pending:
            pending.pop()()

    return act
