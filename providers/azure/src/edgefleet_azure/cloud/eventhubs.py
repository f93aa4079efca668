"""The Event Hubs-compatible endpoint of one IoT hub of the mock cloud.

The hub's messages from devices lie in partitions, in the order in which they came, and the
unmodified azure-eventhub client reads them over AMQP and TLS. What is enforced: tokens at ``$cbs``
and with each request to ``$management``, five readers of a partition and consumer group, retention
by count and by age. What isn't there: epochs, checkpoints, sending, WebSockets.

``docs``: https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-messages-read-builtin and
https://learn.microsoft.com/azure/event-hubs/event-hubs-amqp-protocol-guide
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from edgefleet_azure.cloud.amqp_codec import Array, Int, Timestamp
from edgefleet_azure.cloud.amqp_frames import RefusalError, answer, event
from edgefleet_azure.cloud.amqp_peer import Peer
from edgefleet_azure.events import DEFAULT_GROUP

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence

    from edgefleet_azure.cloud.amqp_frames import Message

PARTITIONS = 4  # what the portal suggests for a hub
RETENTION_S = 86_400  # a hub's, unless it is set otherwise
MAX_KEPT = 20_000  # messages a partition of the mock
_PATIENCE_S = 60.0
MAX_READERS = 5  # of a partition and a consumer group
_SELECTOR = re.compile(
    r"\s*amqp\.annotation\.x-opt-(?P<field>sequence-number|offset|enqueued-time)"
    r"\s*(?P<operator>>=?)\s*'(?P<value>-1|@latest|[0-9]{1,19})'\s*"
)
_PATH = re.compile(r"(?P<hub>[^/]+)/ConsumerGroups/(?P<group>[^/]+)/Partitions/(?P<partition>\d+)")


class Kept(NamedTuple):
    """A message in a partition; ``enqueued`` in milliseconds since 1970."""

    sequence: int
    offset: int
    enqueued: int
    encoded: bytes


class Partition:
    """Messages of some devices in order; may be used by any thread."""

    def __init__(self, *, max_kept: int, retention_s: float, clock: Callable[[], float]) -> None:
        self._kept: deque[Kept] = deque(maxlen=max_kept)
        self._retention_ms = int(retention_s * 1000)
        self._clock = clock
        self._lock = threading.Lock()
        self._next, self._offset, self._newest = 0, 0, 0
        self.readers: dict[str, int] = {}
        self.wakes: list[Callable[[], None]] = []

    def append(self, encode: Callable[[int, int, int], bytes], size: int) -> None:
        """Keep a message, made from its number, offset and time."""
        with self._lock:
            self._newest = max(self._newest, int(self._clock() * 1000))
            encoded = encode(self._next, self._offset, self._newest)
            self._kept.append(Kept(self._next, self._offset, self._newest, encoded))
            self._next += 1
            self._offset += size
            wakes = list(self.wakes)
        for wake in wakes:
            wake()

    def after(self, position: Callable[[Kept], bool], sequence: int, most: int) -> list[Kept]:
        """The oldest messages from that number on which the position lets through."""
        oldest = int(self._clock() * 1000) - self._retention_ms
        with self._lock:
            while self._kept and self._kept[0].enqueued < oldest:
                self._kept.popleft()
            found: list[Kept] = []
            for kept in self._kept:
                if len(found) >= most:
                    break
                if kept.sequence >= sequence and position(kept):
                    found.append(kept)
            return found

    def forget(self) -> None:
        """Drop what is kept; numbers go on."""
        with self._lock:
            self._kept.clear()

    def kept(self) -> dict[str, Any]:
        """All of it as JSON."""
        with self._lock:
            messages = [
                [one.sequence, one.offset, one.enqueued, base64.b64encode(one.encoded).decode()]
                for one in self._kept
            ]
            numbers = [self._next, self._offset, self._newest]
        return {"numbers": numbers, "messages": messages}

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Go on with what was kept; numbers go on as well."""
        with self._lock:
            self._next, self._offset, self._newest = kept["numbers"]
            self._kept.clear()
            for sequence, offset, enqueued, encoded in kept["messages"]:
                self._kept.append(Kept(sequence, offset, enqueued, base64.b64decode(encoded)))

    def facts(self) -> dict[str, object]:
        """What ``$management`` tells of it."""
        with self._lock:
            first = self._kept[0].sequence if self._kept else self._next
            last = self._kept[-1] if self._kept else None
            return {
                "begin_sequence_number": first,
                "last_enqueued_sequence_number": self._next - 1,
                "last_enqueued_offset": str(-1 if last is None else last.offset),
                "last_enqueued_time_utc": Timestamp(self._newest),
                "is_partition_empty": last is None,
            }

    @property
    def next_sequence(self) -> int:
        """The number that the next message gets."""
        with self._lock:
            return self._next


class PartitionFeed:
    """What one reader of a partition hasn't got yet."""

    def __init__(
        self,
        partition: Partition,
        group: str,
        position: Callable[[Kept], bool],
        wake: Callable[[], None],
    ) -> None:
        self._partition, self._group, self._position, self._wake = partition, group, position, wake
        self._next = 0
        partition.wakes.append(wake)

    def take(self, most: int) -> list[bytes]:
        """The next messages there are, up to so many."""
        found = self._partition.after(self._position, self._next, most)
        if found:
            self._next = found[-1].sequence + 1
        return [kept.encoded for kept in found]

    def end(self) -> None:
        """Make room for another reader."""
        self._partition.wakes.remove(self._wake)
        self._partition.readers[self._group] -= 1


class EventHubs:
    """The endpoint, listening on loopback from `start` to `stop`.

    Args:
        name: the Event Hubs-compatible name of the hub.
        tls: how to show who it is; its certificate names ``localhost``.
        admits: whether a bearer token, as it was put, is good.
        partitions: how many there are.
        groups: gives the consumer groups that there are now.
        max_kept: messages a partition.
        retention_s: how long a message is kept, in seconds.
        clock: the time, in seconds since 1970.
    """

    def __init__(
        self,
        name: str,
        *,
        tls: ssl.SSLContext,
        admits: Callable[[str], bool],
        partitions: int = PARTITIONS,
        groups: Callable[[], Collection[str]] = lambda: (DEFAULT_GROUP,),
        max_kept: int = MAX_KEPT,
        retention_s: float = RETENTION_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.port = 0
        self._tls, self._admits, self._groups, self._clock = tls, admits, groups, clock
        self._created = int(clock() * 1000)
        self._partitions = [
            Partition(max_kept=max_kept, retention_s=retention_s, clock=clock)
            for _ in range(partitions)
        ]
        self._faults: deque[tuple[str, str]] = deque()
        self._peers: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._running: tuple[asyncio.AbstractEventLoop, threading.Thread] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        """Where it listens, as the client takes it: ``sb://localhost:PORT``."""
        return f"sb://localhost:{self.port}"

    def start(self) -> None:
        """Listen on a free port of loopback."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name=f"amqp {self.name}")
        self._running = loop, thread
        thread.start()
        self._do(self._listen())

    def stop(self) -> None:
        """End every connection; may be called twice."""
        if self._running is None:
            return
        self._do(self._end())
        (loop, thread), self._running = self._running, None
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_PATIENCE_S)
        loop.close()

    def _do(self, work: Coroutine[object, object, None]) -> None:
        if self._running is None:
            work.close()
        else:
            asyncio.run_coroutine_threadsafe(work, self._running[0]).result(_PATIENCE_S)

    def append(
        self,
        device: str,
        module: str | None,
        properties: Mapping[str, str],
        body: bytes,
    ) -> None:
        """Take in a message of a device, or of one of its modules, as the hub does.

        Args:
            device: the name that it proved to the hub.
            module: likewise; None for the device itself.
            properties: the application's own.
            body: what it sent.
        """
        number = int.from_bytes(hashlib.sha256(device.encode()).digest()[:4], "big")
        partition = self._partitions[number % len(self._partitions)]
        given: dict[str, object] = dict(properties)

        def encode(sequence: int, offset: int, enqueued: int) -> bytes:
            annotations: dict[str, object] = {
                "x-opt-sequence-number": sequence,
                "x-opt-offset": str(offset),
                "x-opt-enqueued-time": Timestamp(enqueued),
                "x-opt-partition-key": device,
                "iothub-connection-device-id": device,
                "iothub-enqueuedtime": Timestamp(enqueued),
                "iothub-message-source": "Telemetry",
            }
            if module is not None:
                annotations["iothub-connection-module-id"] = module
            return event(annotations, given, body)

        partition.append(encode, len(body))

    def refuse(self, condition: str, description: str, *, times: int = 1) -> None:
        """Answer the next attempts to read, or to ask about partitions, with an error.

        Args:
            condition: as the service names it, such as ``com.microsoft:server-busy``.
            description: its words.
            times: how many attempts.
        """
        self._faults.extend([(condition, description)] * times)

    def forget(self) -> None:
        """Drop what is kept, as when its time has passed."""
        for partition in self._partitions:
            partition.forget()

    def kept(self) -> list[dict[str, Any]]:
        """Its partitions, as JSON."""
        return [partition.kept() for partition in self._partitions]

    def restore(self, kept: Sequence[Mapping[str, Any]]) -> None:
        """Go on with what an earlier run of the mock kept."""
        for partition, found in zip(self._partitions, kept, strict=True):
            partition.restore(found)

    def drop(self) -> None:
        """End every connection there is, as a server that goes away does."""
        self._do(self._drop())

    @property
    def partition_count(self) -> int:
        """How many partitions there are."""
        return len(self._partitions)

    @property
    def readers(self) -> int:
        """How many links read from partitions now."""
        return sum(sum(partition.readers.values()) for partition in self._partitions)

    # What `Peer` asks

    def admit(self, request: Message) -> bytes | None:
        """Refuse a token that isn't good, or that is put for another endpoint."""
        token, properties = request.body, request.properties
        if properties.get("operation") != "put-token" or not isinstance(token, str):
            return _status(request, 400, "amqp:invalid-field: only put-token is done here")
        audience = str(properties.get("name", ""))  # sb://HOST/HUB, or below it
        if audience.partition("://")[2].split("/")[1:2] != [self.name]:
            return _status(request, 404, f"amqp:not-found: nothing is called {audience}")
        if not self._admits(token):
            return _status(request, 401, "InvalidSignature: the token isn't good here")
        return None

    def granted(self, request: Message) -> bytes:
        """Tell that a token was taken."""
        return _status(request, 202, "Accepted")

    def manage(self, request: Message) -> bytes:
        """Tell of the hub or of one partition."""
        properties = request.properties
        if not self._admits(str(properties.get("security_token", ""))):
            return _status(request, 401, "InvalidSignature: the token isn't good here")
        if self._faults:
            return _status(request, 503, ": ".join(self._faults.popleft()))
        if properties.get("operation") != "READ" or properties.get("name") != self.name:
            return _status(request, 404, f"amqp:not-found: nothing is called {properties}")
        ids = [str(number) for number in range(len(self._partitions))]
        match properties.get("type"), properties.get("partition"):
            case "com.microsoft:eventhub", _:
                facts: dict[str, object] = {
                    "name": self.name,
                    "type": "com.microsoft:eventhub",
                    "created_at": Timestamp(self._created),
                    "partition_count": Int(len(ids)),
                    "partition_ids": Array(ids),
                }
            case "com.microsoft:partition", partition if partition in ids:
                facts = {
                    "name": self.name,
                    "type": "com.microsoft:partition",
                    "partition": partition,
                    **self._partitions[int(partition)].facts(),
                }
            case _:
                return _status(request, 404, "amqp:not-found: no such partition")
        return _status(request, 200, "OK", facts)

    def feed(self, address: str, selector: str | None, wake: Callable[[], None]) -> PartitionFeed:
        """Messages of the partition that the address names, from where the selector says."""
        if self._faults:
            raise RefusalError(*self._faults.popleft())
        match = _PATH.fullmatch(address)
        if (
            match is None
            or match["hub"] != self.name
            or match["group"] not in self._groups()
            or int(match["partition"]) >= len(self._partitions)
        ):
            raise RefusalError("amqp:not-found", f"The messaging entity {address!r} isn't there")
        partition = self._partitions[int(match["partition"])]
        position = _position(selector, partition)
        readers = partition.readers.get(match["group"], 0)
        if readers >= MAX_READERS:
            raise RefusalError(
                "amqp:resource-limit-exceeded",
                "Exceeded the maximum number of allowed receivers per partition in a consumer "
                f"group which is {MAX_READERS}",
            )
        partition.readers[match["group"]] = readers + 1
        return PartitionFeed(partition, match["group"], position, wake)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(
            self._serve,
            "127.0.0.1",
            0,
            ssl=self._tls,
            ssl_handshake_timeout=30,
            ssl_shutdown_timeout=0.5,  # a client that is gone doesn't say goodbye
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._peers.add(task)
            task.add_done_callback(self._peers.discard)
        await Peer(reader, writer, self).serve()

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._drop()

    async def _drop(self) -> None:
        peers = list(self._peers)
        for peer in peers:
            peer.cancel()
        await asyncio.gather(*peers, return_exceptions=True)


def _status(request: Message, code: int, description: str, body: object = None) -> bytes:
    facts: dict[str, object] = {"status-code": Int(code), "status-description": description}
    return answer(request, facts, {} if body is None else body)


def _position(selector: str | None, partition: Partition) -> Callable[[Kept], bool]:
    """Whether a message lies behind the position that a reader gave."""
    if selector is None:
        return lambda _: True
    match = _SELECTOR.fullmatch(selector)
    if match is None:
        raise RefusalError("com.microsoft:argument-error", f"no position: {selector!r}")
    value = match["value"]
    if value == "@latest":
        start = partition.next_sequence
        return lambda kept: kept.sequence >= start
    least = int(value) + (match["operator"] == ">")
    match match["field"]:
        case "sequence-number":
            return lambda kept: kept.sequence >= least
        case "offset":
            return lambda kept: kept.offset >= least
    return lambda kept: kept.enqueued >= least
