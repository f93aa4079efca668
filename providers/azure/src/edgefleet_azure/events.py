"""Messages of devices, read from each hub's Event Hubs-compatible endpoint.

Rules kept here:

- The endpoint that is built into a hub takes no Entra token, only the hub's key
  (https://learn.microsoft.com/azure/iot-hub/iot-hub-dev-guide-azure-ad-rbac): that is asked of
  Azure Resource Manager for each reading and kept nowhere. An event hub that the profile names
  itself is read with the credential of everything else.
- It is read as the consumer group that install makes, an event hub of the profile's own as the one
  that every event hub has.
- Reading is bounded: what came before the reading began is read, nothing later, and when nothing
  comes for `STALLED_S` though more is wanted, it ends with an error.
- A message's device is the one that the hub wrote onto it, never what its body says.
- The client repeats by itself without end and without a word when a link fails; so it is told to
  give up at once, and what is repeated is decided here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from edgefleet.errors import (
    AccessDeniedError,
    EdgeFleetError,
    NotFoundError,
    ThrottledError,
    UnavailableError,
)
from edgefleet.interfaces.answers import read_answer
from edgefleet_azure.answers import Page
from edgefleet_azure.template import CONSUMER_GROUP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from azure.eventhub import EventData, EventHubConsumerClient

    from edgefleet_azure.clients import Clients
    from edgefleet_azure.settings import AzureSettings

_log = logging.getLogger(__name__)

API = "2023-06-30"  # of Microsoft.Devices
KEY_NAME = "service"  # the hub's own policy that may read, and may not write
DEFAULT_GROUP = "$Default"
"""The consumer group that every event hub has."""
STALLED_S = 60.0
READERS = 8  # partitions read at once
_DEVICE, _MODULE = b"iothub-connection-device-id", b"iothub-connection-module-id"
_BATCH = 200
_AHEAD = 4 * READERS  # batches that are read before somebody takes them
_WAIT_S = 1.0  # for room, before the end is looked for
_FILL_S = 0.1  # for more of a batch: the library hands nothing over before, unless it is full
_BACKOFF_S = 1.0
_TURN_S = 1.0  # of a thread that the client keeps for each reading, and sees its end in the next
_BUSY = ("server-busy", "resource-limit-exceeded", "Status code: 503")
_MISSING = ("amqp:not-found", "Status code: 404")


class Arrival(NamedTuple):
    """A message as the hub took it in.

    Attributes:
        device: the device that the hub knew its sender by.
        module: likewise; None for a device itself.
        enqueued: when the hub took it in.
        body: what was sent.
    """

    device: str
    module: str | None
    enqueued: datetime | None
    body: bytes


class EventSource(NamedTuple):
    """An event hub, or what looks like one, and who may read it.

    Attributes:
        partitions: how many it has; None where it is to be asked.
        group: the consumer group that it is read as.
    """

    host: str
    name: str
    credential: Any
    partitions: int | None = None
    group: str = DEFAULT_GROUP

    def __repr__(self) -> str:
        return f"<events of {self.name} at {self.host}>"


def sources(clients: Clients, settings: AzureSettings) -> Iterator[EventSource]:
    """Where messages of the fleet's devices are read, for each of its hubs.

    Raises:
        NotFoundError: a hub isn't in the fleet's resource group.
        UnavailableError: what answers isn't Azure Resource Manager.
        azure.core.exceptions.HttpResponseError: Azure Resource Manager refuses.
    """
    unknown = []
    for hub in settings.hubs:
        given = settings.events_endpoint.get(hub)
        if given is None:
            unknown.append(hub)
        else:
            host, _, name = given.partition("/")
            yield EventSource(host, name, clients.credential)
    if unknown:
        yield from _built_in(clients, settings, unknown)


class _Key(msgspec.Struct, frozen=True, rename="camel"):
    """What is read of a key of a hub, as ``listkeys`` gives it."""

    key_name: str
    primary_key: str

    def __repr__(self) -> str:
        return f"<key {self.key_name}>"


def _built_in(clients: Clients, settings: AzureSettings, hubs: list[str]) -> Iterator[EventSource]:
    from azure.core.credentials import AzureNamedKeyCredential  # noqa: PLC0415 - lazy

    kind = f"{settings.group_path}/providers/Microsoft.Devices/IotHubs"
    listed = read_answer(clients.arm("GET", kind, api_version=API), Page).value
    there = {found["properties"]["hostName"].lower(): found for found in listed}
    for hub in hubs:
        found = there.get(hub.lower())
        if found is None:
            msg = f"no IoT Hub {hub} in resource group {settings.resource_group}"
            raise NotFoundError(msg, cure=f"hubs there are: {', '.join(there) or 'none'}")
        keys = f"{kind}/{found['name']}/IotHubKeys/{KEY_NAME}/listkeys"
        key = read_answer(clients.arm("POST", keys, api_version=API), _Key)
        events = found["properties"]["eventHubEndpoints"]["events"]
        host = events["endpoint"].partition("://")[2].rstrip("/")
        credential = AzureNamedKeyCredential(key.key_name, key.primary_key)
        partitions = int(events["partitionCount"])
        yield EventSource(host, events["path"], credential, partitions, CONSUMER_GROUP)


def arrivals(
    source: EventSource, *, since: datetime | None = None, attempts: int = 4
) -> Iterator[Arrival]:
    """What a source took in up to now, the messages of a device in their order.

    Args:
        source: where.
        since: only what came after; None for all that is kept there.
        attempts: tries of each partition, the first included.

    Raises:
        AccessDeniedError: the key or token isn't taken.
        ThrottledError: it is too busy, again and again.
        UnavailableError: it can't be reached, or stalls.
    """
    if source.partitions is None:
        with _consumer(source, retries=attempts - 1) as client:
            partitions: list[str] = _asked(client.get_partition_ids)
    else:
        partitions = [str(number) for number in range(source.partitions)]
    yield from _Reading(source, since, attempts).of(partitions)


def _last(client: EventHubConsumerClient, partition: str, since: datetime | None) -> int | None:
    """The number of a partition's newest message; None when it has none to read."""
    facts = _asked(lambda: client.get_partition_properties(partition))
    if facts["is_empty"] or (since is not None and facts["last_enqueued_time_utc"] <= since):
        return None
    return int(facts["last_enqueued_sequence_number"])


def _asked(ask: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever is asked for
    from azure.eventhub.exceptions import EventHubError  # noqa: PLC0415 - lazy

    try:
        return ask()
    except EventHubError as error:
        raise translated(error) from error


class _Reading:
    """Partitions read side by side, each by a thread and a client of its own."""

    def __init__(self, source: EventSource, since: datetime | None, attempts: int) -> None:
        self._source, self._since, self._attempts = source, since, attempts
        self._found: queue.Queue[list[Arrival] | str | EdgeFleetError] = queue.Queue(_AHEAD)
        self._over = threading.Event()
        self._room = threading.Semaphore(READERS)
        self._open: dict[str, EventHubConsumerClient] = {}

    def of(self, partitions: list[str]) -> Iterator[Arrival]:
        threads = [
            threading.Thread(target=self._read, args=(one,), name=f"events {one}", daemon=True)
            for one in partitions
        ]
        left = set(partitions)
        for thread in threads:
            thread.start()
        try:
            while left:
                try:
                    found = self._found.get(timeout=STALLED_S)
                except queue.Empty:
                    raise _stalled(self._source) from None
                if isinstance(found, str):
                    left.discard(found)
                elif isinstance(found, EdgeFleetError):
                    raise found
                else:
                    yield from found
        finally:
            self._over.set()
            for client in list(self._open.values()):
                client.close()  # one that can't connect tries for ever, and asks nobody
            for thread in threads:
                thread.join(STALLED_S)

    def _read(self, partition: str) -> None:
        with self._room:
            try:
                with _consumer(self._source, retries=self._attempts - 1) as client:
                    last = _last(client, partition, self._since)
                if last is not None:
                    self._repeat(partition, last)
            except EdgeFleetError as error:
                self._put(error)
            except Exception as error:  # noqa: BLE001 - a thread's end must be known
                self._put(UnavailableError(f"{self._source!r}: {type(error).__name__}"))
            else:
                self._put(partition)

    def _repeat(self, partition: str, last: int) -> None:
        start: datetime | int | str = "-1" if self._since is None else self._since
        for attempt in range(1, self._attempts + 1):
            once = _Once(partition, last, self._put, self._over)
            with _consumer(self._source, retries=0) as client:
                self._open[partition] = client
                failure = once.read(client, start)
            start = start if once.newest is None else once.newest
            if failure is None:
                return
            if not failure.retryable or attempt == self._attempts:
                raise failure
            _log.debug("partition %s of %r again: %s", partition, self._source, failure.message)
            self._over.wait(min(_BACKOFF_S * 2 ** (attempt - 1), STALLED_S / 4))

    def _put(self, found: list[Arrival] | str | EdgeFleetError) -> None:
        while not self._over.is_set():
            with contextlib.suppress(queue.Full):
                self._found.put(found, timeout=_WAIT_S)
                return


class _Once:
    """One link to one partition."""

    def __init__(
        self,
        partition: str,
        last: int,
        put: Callable[[list[Arrival]], None],
        over: threading.Event,
    ) -> None:
        self._partition, self._last = partition, last
        self._put, self._over = put, over
        self._failure: EdgeFleetError | None = None
        self.newest: int | None = None

    def read(
        self, client: EventHubConsumerClient, start: datetime | int | str
    ) -> EdgeFleetError | None:
        """Read up to the last one wanted; what went wrong, if anything did."""
        self._client = client
        client.receive_batch(
            self._on_batch,
            max_batch_size=_BATCH,
            max_wait_time=_FILL_S,
            partition_id=self._partition,
            starting_position=start,
            on_error=self._on_error,
        )
        return self._failure

    def _on_batch(self, _: object, batch: list[EventData]) -> None:
        wanted = [event for event in batch if (event.sequence_number or 0) <= self._last]
        if batch:
            self._put([one for one in map(_arrival, wanted) if one is not None])
            self.newest = batch[-1].sequence_number
        done = self.newest is not None and self.newest >= self._last
        if done or self._over.is_set():
            self._client.close()

    def _on_error(self, _: object, error: Exception) -> None:
        self._failure = translated(error)
        self._client.close()


def _arrival(event: EventData) -> Arrival | None:
    system = event.system_properties
    device, module = system.get(_DEVICE), system.get(_MODULE)
    if device is None:
        return None  # told by the hub itself, not by a device
    sections: Any = event.body  # what a device sends has one or more of bytes
    body = sections if isinstance(sections, bytes) else b"".join(sections)
    return Arrival(
        device.decode(), None if module is None else module.decode(), event.enqueued_time, body
    )


def _consumer(source: EventSource, *, retries: int) -> EventHubConsumerClient:
    from azure.eventhub import EventHubConsumerClient, TransportType  # noqa: PLC0415 - lazy

    host, _, port = source.host.partition(":")
    options: dict[str, Any] = {}
    if port:
        options["custom_endpoint_address"] = f"sb://{source.host}"
    return EventHubConsumerClient(
        host,
        source.name,
        source.group,
        source.credential,
        transport_type=TransportType.Amqp,
        # The client looks at no variable by itself; these are what the other libraries read.
        connection_verify=os.environ.get("SSL_CERT_FILE") or os.environ.get("REQUESTS_CA_BUNDLE"),
        retry_total=retries,
        retry_backoff_factor=_BACKOFF_S / 2,
        load_balancing_interval=_TURN_S,
        **options,
    )


def translated(error: Exception) -> EdgeFleetError:
    """One of azure-eventhub's errors as one of ours; never with a token in it."""
    from azure.eventhub.exceptions import AuthenticationError  # noqa: PLC0415 - lazy

    told = str(error)
    said = told.partition("\n")[0][:300]
    if any(sign in told for sign in _MISSING):
        msg = f"the event hub or its consumer group isn't there: {said}"
        return NotFoundError(msg, cure="edgefleet install; check `events_endpoint`")
    if isinstance(error, AuthenticationError):
        msg = f"the event hub lets this identity not read: {said}"
        cure = "let the identity in use read the hub's keys, or be a data receiver of the event hub"
        return AccessDeniedError(msg, cure=cure)
    if any(sign in told for sign in _BUSY):
        return ThrottledError(f"the event hub is too busy: {said}", cure="repeat the call later")
    return UnavailableError(f"the event hub can't be read: {said}", cure="repeat the call later")


def _stalled(source: EventSource) -> UnavailableError:
    msg = f"{source!r}: nothing came for {STALLED_S:.0f} s, though more is kept there"
    return UnavailableError(msg, cure="repeat the call later")
