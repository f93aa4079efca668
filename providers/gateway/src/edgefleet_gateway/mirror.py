"""What one gateway process knows of the state store, so that polls read nothing.

Rules kept here:

- One small document, the bell, is read at each look; what it names is read again when it is asked
  for, and nothing is believed for longer than `BELIEVED_S`.
- While the store is away, what is held is served, however old, and nobody waits for the store. Not
  so a device that the bell has named since: it may have been revoked.
- A bell that was there and is gone means that the store isn't what it was, such as a folder whose
  disk isn't mounted: it counts as away, never as empty.
- What is asked for twice at once is read once.
- What nobody has asked for in a week is dropped, and of changes the last are remembered: a fleet's
  devices come and go under new names, and a gateway runs for years.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from edgefleet.errors import AccessDeniedError, EdgeFleetError, UnavailableError
from edgefleet.interfaces.wanted import WantedPointers
from edgefleet.protocol.documents import Document, decode, encode
from edgefleet_gateway.records import (
    BELIEVED_S,
    KEPT_CHANGES,
    AuthorityRecord,
    Bell,
    DeviceRecord,
    Keys,
    RuntimeRecord,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edgefleet.interfaces.state import StateStore
    from edgefleet.protocol.gateway import RuntimeOffer

T = TypeVar("T")
D = TypeVar("D", bound=Document)

PATIENCE_S = 5.0  # that a call of the state store may take before the store counts as away
AGAIN_S = 5.0  # between two reads for a certificate that is about to be refused
MAX_DOUBTED = 10_000  # such certificates that are remembered
KEPT_S = 7 * 86_400.0  # that something is held after it was last asked for
MAX_CHANGED = 10_000  # topics whose last change is remembered
THREADS = 8  # calls of the state store at once
_LOG = logging.getLogger(__name__)


class Tagged(NamedTuple):
    """A document as devices get it, and the ETag that tells it from others."""

    body: bytes
    etag: str


class _Held(NamedTuple):
    value: Any
    until: float  # by the clock; from then on it is read again
    asked: float  # by the clock, when anybody last asked for it


class Mirror:
    """A cached view of the state store. All but its reads happens on one event loop.

    Args:
        state: the profile's state store.
        prefix: of the settings.
        clock: seconds that only rise.
    """

    def __init__(
        self,
        state: StateStore,
        *,
        prefix: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.keys = Keys(prefix)
        self.away_since: float | None = None
        self._state = state
        self._wanted = WantedPointers(lambda: state, deployer=prefix)
        self._clock = clock
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="gateway-state")
        self._held: OrderedDict[str, _Held] = OrderedDict()  # what was asked for last at the end
        self._reading: dict[str, asyncio.Task[Any]] = {}
        self._bell: Bell | None = None
        self._bell_tag = ""
        self._turn = 0  # rises with each look that saw something new
        self._changed: OrderedDict[str, int] = OrderedDict()  # topic -> turn of its last change
        self._forgot = 0  # the turn in which everything may have changed
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}
        self._doubted: dict[str, float] = {}  # serial -> when it was about to be refused
        self._closed = False

    # ------------------------------------------------------------------------------- what it knows

    async def device(self, name: str) -> DeviceRecord | None:
        """A device's record; None for an unknown one.

        Raises:
            UnavailableError: the store is away, and this isn't held.
        """
        found: DeviceRecord | None = await self._get(
            f"device/{name}", partial(self._document, DeviceRecord, self.keys.device(name))
        )
        return found

    async def device_again(self, name: str, serial: str) -> DeviceRecord | None:
        """A device's record as it is now, before one of its certificates is refused.

        Another gateway may have given it that certificate since the last look. For each it is read
        once in `AGAIN_S`, so that whoever holds an old one makes no load.
        """
        now = self._clock()
        if self._doubted.get(serial, -AGAIN_S) + AGAIN_S <= now:
            if len(self._doubted) >= MAX_DOUBTED:
                self._doubted.clear()
            self._doubted[serial] = now
            self.forget(f"device/{name}")
        return await self.device(name)

    async def pointer(self, group: str) -> Tagged | None:
        """A group's pointer; None before the first. Errors as in `device`."""
        found: Tagged | None = await self._get(f"pointer/{group}", partial(self._pointer, group))
        return found

    async def runtime(self, group: str) -> Tagged | None:
        """The runtime offered to a group; None where none is. Errors as in `device`."""
        found: Tagged | None = await self._get(f"runtime/{group}", partial(self._runtime, group))
        return found

    async def authority(self) -> AuthorityRecord | None:
        """The public side of the fleet's authority. Errors as in `device`."""
        found: AuthorityRecord | None = await self._get(
            "authority", partial(self._document, AuthorityRecord, self.keys.authority)
        )
        return found

    async def first_runtime(self) -> RuntimeOffer | None:
        """What a device installs that only comes: what was given for it, else ordered last.

        Errors as in `device`.
        """
        found: RuntimeOffer | None = (await self._get("runtimes", self._runtimes))[0]
        return found

    async def archives(self) -> frozenset[str]:
        """Digests of all archives of runtimes that anybody may fetch. Errors as in `device`."""
        found: frozenset[str] = (await self._get("runtimes", self._runtimes))[1]
        return found

    def waiting(self, device: str) -> tuple[str, ...]:
        """Ids of requests that wait for a device, the oldest first."""
        return () if self._bell is None else self._bell.waiting.get(device, ())

    # ------------------------------------------------------------------------------- news

    def turn(self) -> int:
        """Take this before reading; `news` tells of everything that changes afterwards."""
        return self._turn

    def newer(self, topic: str, since: int) -> bool:
        """Whether a topic may have changed after `turn` gave ``since``."""
        return self._newest(topic) > since

    async def news(
        self,
        topics: Iterable[str],
        since: int,
        timeout_s: float,
        *,
        waiter: asyncio.Future[None] | None = None,
    ) -> bool:
        """Wait until one of some topics may have changed.

        Args:
            topics: ``device/NAME``, ``pointer/GROUP``, ``runtime/GROUP``, ``waiting/DEVICE``.
            since: what `turn` gave before the caller read what it has.
            timeout_s: longest wait.
            waiter: set by the caller to end the wait.

        Returns:
            True when one changed, the gateway ends or ``waiter`` was set, False after
            ``timeout_s``.
        """
        topics = tuple(topics)
        if self._closed or any(self._newest(topic) > since for topic in topics):
            return True
        waiter = waiter or asyncio.get_running_loop().create_future()
        for topic in topics:
            self._waiters.setdefault(topic, set()).add(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except TimeoutError:
            return False
        finally:
            for topic in topics:
                waiters = self._waiters.get(topic)
                if waiters is not None:
                    waiters.discard(waiter)
                    if not waiters:
                        del self._waiters[topic]
        return True

    @property
    def closed(self) -> bool:
        """Whether nobody waits any more, because the gateway ends."""
        return self._closed

    def end_waiting(self) -> None:
        """Wake whoever waits; nobody waits from now on."""
        self._closed = True
        for topic in list(self._waiters):
            self._wake(topic)

    def close(self) -> None:
        """Call the state store no more."""
        self.end_waiting()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def forget(self, topic: str) -> None:
        """Read something anew when it is asked for, because it was changed here."""
        self._turn += 1
        self._forget(topic)

    # ------------------------------------------------------------------------------- looking

    async def run(self, look_s: float) -> None:
        """Look again and again, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(look_s)

    async def look(self) -> None:
        """Read the bell, and forget what it names. A store that is away is noted, not raised."""
        try:
            stored = await self.call(lambda: self._state.read(self.keys.bell))
            if stored is None and self._bell is not None:
                raise UnavailableError("the bell is gone from the state store")
        except EdgeFleetError as error:
            self._note_away(error)
            return
        if self.away_since is not None:
            _LOG.info("the state store is back")
            self.away_since = None
        self._drop_unasked()
        if stored is None or stored.tag == self._bell_tag:
            return
        try:
            bell = decode(Bell, stored.data)
        except EdgeFleetError as error:
            _LOG.warning("the bell can't be read: %s", error.message)
            return
        self._heard(bell)
        self._bell, self._bell_tag = bell, stored.tag

    def _heard(self, bell: Bell) -> None:
        self._turn += 1
        before = self._bell
        fresh = [] if before is None else [c for c in bell.changes if c[0] > before.number]
        if before is None or bell.number < before.number or _lost(bell, before):
            self._forget_all()  # at the first look, after a restored backup, or too many changes
        for _, topic in fresh:
            self._forget(topic)
        known = {} if before is None else before.waiting
        for device, ids in bell.waiting.items():
            if not set(ids) <= set(known.get(device, ())):
                self._note_change(f"waiting/{device}")
                self._wake(f"waiting/{device}")

    def _forget_all(self) -> None:
        self._forgot = self._turn
        self._changed.clear()
        self._held.clear()
        for topic in list(self._waiters):
            self._wake(topic)

    def _forget(self, topic: str) -> None:
        self._note_change(topic)
        held = self._held.pop(topic, None)
        if held is not None and not topic.startswith("device/"):
            self._held[topic] = held._replace(until=-1.0)
        if topic.startswith("runtime/"):
            self._note_change("runtimes")
            self._held.pop("runtimes", None)
        self._wake(topic)

    def _note_change(self, topic: str) -> None:
        self._changed[topic] = self._turn
        self._changed.move_to_end(topic)
        while len(self._changed) > MAX_CHANGED:
            _, turn = self._changed.popitem(last=False)
            self._forgot = max(self._forgot, turn)  # of what isn't remembered it is believed

    def _drop_unasked(self) -> None:
        oldest = self._clock() - KEPT_S
        while self._held and next(iter(self._held.values())).asked < oldest:
            self._held.popitem(last=False)

    def _wake(self, topic: str) -> None:
        for waiter in self._waiters.get(topic, ()):
            if not waiter.done():
                waiter.set_result(None)

    def _newest(self, topic: str) -> int:
        return max(self._changed.get(topic, 0), self._forgot)

    def _note_away(self, error: Exception) -> None:
        if self.away_since is None:
            _LOG.warning("the state store is away: %s", error)
            self.away_since = self._clock()

    # ------------------------------------------------------------------------------- reading

    async def call(self, work: Callable[[], T]) -> T:
        """Call the state store in a thread.

        Raises:
            UnavailableError: it takes longer than it may; it may still happen.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await loop.run_in_executor(self._threads, work)
        except TimeoutError as error:
            raise UnavailableError(
                f"the state store took more than {PATIENCE_S:g} s", cure="ask again later"
            ) from error
        except EdgeFleetError:
            raise
        except Exception as error:
            _LOG.exception("the state store fails in a way that its provider doesn't know")
            raise UnavailableError(f"the state store fails: {error}") from error

    async def _get(self, topic: str, read: Callable[[], Any]) -> Any:  # noqa: ANN401 - by topic
        held, now = self._held.get(topic), self._clock()
        if held is not None:
            self._held[topic] = held._replace(asked=now)
            self._held.move_to_end(topic)
            if now < held.until or self.away_since is not None:
                return held.value
        if self.away_since is not None:
            raise UnavailableError("the state store is away", cure="ask again later")
        reading = self._reading.get(topic)
        if reading is None:
            reading = asyncio.ensure_future(self._read(topic, read))
            self._reading[topic] = reading
            reading.add_done_callback(partial(self._done, topic))
        try:
            return await asyncio.shield(reading)
        except EdgeFleetError:
            held = self._held.get(topic)
            if held is None:
                raise
            return held.value

    def _done(self, topic: str, reading: asyncio.Task[Any]) -> None:
        self._reading.pop(topic, None)
        if not reading.cancelled():
            reading.exception()  # whoever waited was told; nobody may have

    async def _read(self, topic: str, read: Callable[[], Any]) -> Any:  # noqa: ANN401 - by topic
        while True:
            turn = self._turn
            try:
                value = await self.call(lambda: self._found(read))
            except (UnavailableError, AccessDeniedError) as error:
                self._note_away(error)
                raise
            if self._newest(topic) <= turn:  # else it may have been read before it changed
                lasts = BELIEVED_S * random.uniform(0.8, 1.0)  # noqa: S311 - spreads reads
                now = self._clock()
                self._held[topic] = _Held(value, until=now + lasts, asked=now)
                self._held.move_to_end(topic)
                return value

    def _found(self, read: Callable[[], T]) -> T:
        value = read()
        known = self._bell is not None
        if value is None and known and self._state.read(self.keys.bell) is None:
            raise UnavailableError("the bell is gone from the state store")
        return value

    def _document(self, kind: type[D], key: str) -> D | None:
        stored = self._state.read(key)
        return None if stored is None else decode(kind, stored.data)

    def _pointer(self, group: str) -> Tagged | None:
        found = self._wanted.find(group)
        return None if found is None else tagged(found.pointer.encoded())

    def _runtime(self, group: str) -> Tagged | None:
        stored = self._state.read(self.keys.runtime(group))
        if stored is None:
            return None
        return tagged(encode(decode(RuntimeRecord, stored.data).offer))

    def _runtimes(self) -> tuple[RuntimeOffer | None, frozenset[str]]:
        given = self._document(RuntimeRecord, self.keys.first_runtime)
        ordered = [
            record
            for key in self._state.keys(self.keys.runtimes)
            if (record := self._document(RuntimeRecord, key)) is not None
        ]
        last = max(ordered, key=lambda record: record.ordered, default=None)
        first = given or last
        offers = [record.offer for record in (*ordered, *([given] if given else []))]
        digests = {archive.digest for offer in offers for archive in offer.archives.values()}
        return None if first is None else first.offer, frozenset(digests)


def _lost(bell: Bell, before: Bell) -> bool:
    """Whether the bell may have dropped a change that came since ``before``."""
    return len(bell.changes) >= KEPT_CHANGES and bell.changes[0][0] > before.number


def tagged(body: bytes) -> Tagged:
    """A document with the ETag of its content."""
    return Tagged(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
