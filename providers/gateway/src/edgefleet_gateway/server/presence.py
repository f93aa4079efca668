"""When devices last asked this gateway for anything, written to the state store now and then."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import timedelta
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from edgefleet.errors import ConflictError, EdgeFleetError, UnavailableError
from edgefleet.protocol.documents import decode, encode
from edgefleet_gateway.records import SEEN_EVERY_S, SeenRecord

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from edgefleet.interfaces.state import StateStore
    from edgefleet_gateway.mirror import Mirror

PART = 2500  # devices of one document: with the longest names that there may be, 360 KB
FORGETS_EVERY = 360  # writings, about an hour
ABANDONED = timedelta(days=1)  # after which what a gateway wrote is taken over by another
_LOG = logging.getLogger(__name__)


class Presence:
    """What one gateway saw.

    Args:
        gateway: its name, the same after a restart.
        state: where it is written.
        mirror: calls the state store.
        now: by the gateway's clock.

    Attributes:
        begun: set when it took over what was written before.
    """

    def __init__(
        self, gateway: str, state: StateStore, mirror: Mirror, *, now: Callable[[], datetime]
    ) -> None:
        self.gateway = gateway
        self.begun = asyncio.Event()
        self._state = state
        self._mirror = mirror
        self._now = now
        self._seen: dict[str, int] = {}
        self._places: dict[str, int] = {}  # device -> its part
        self._changed: set[int] = set()

    def seen(self, device: str, when: datetime) -> None:
        """Note that a device asked for something."""
        second = int(when.timestamp())
        if self._seen.get(device) != second:
            self._seen[device] = second
            place = self._places.setdefault(device, len(self._places) // PART)
            self._changed.add(place)

    async def run(self) -> None:
        """Begin with what was written before, then write again and again, until cancelled."""
        abandoned: list[tuple[str, str]] = []
        for turn in count():
            try:
                if not self.begun.is_set():
                    found, abandoned = await self._mirror.call(self._written)
                    self._adopt(found)
                await self.flush()
                while abandoned:
                    key, tag = abandoned.pop()
                    await self._mirror.call(lambda k=key, t=tag: self._delete(k, t))  # type: ignore[misc]
                if turn % FORGETS_EVERY == 0:
                    await self.forget_removed()
                self.begun.set()
            except EdgeFleetError as error:
                _LOG.warning("when devices were seen can't be written: %s", error.message)
            await asyncio.sleep(SEEN_EVERY_S)

    async def flush(self) -> None:
        """Write what changed, and that this gateway runs, though it saw nobody.

        Raises:
            EdgeFleetError: it can't be; it is written next time.
        """
        parts, self._changed = self._changed | {0}, set()
        seen: dict[int, dict[str, int]] = {part: {} for part in sorted(parts)}
        for device, second in self._seen.items():
            if (part := self._places[device]) in seen:
                seen[part][device] = second
        try:
            for part, devices in seen.items():
                record = SeenRecord(written=self._now(), devices=devices)
                await self._mirror.call(partial(self._write, part, record))
        except BaseException:
            self._changed |= parts
            raise

    async def forget_removed(self) -> None:
        """Forget devices that the fleet has no more, or what is held would only grow."""
        seen = set(self._seen)  # who comes meanwhile isn't in the list
        try:
            gone = seen - await self._mirror.call(self._enrolled)
        except EdgeFleetError as error:
            _LOG.info("which devices were removed can't be told now: %s", error.message)
            return
        if not gone:
            return
        self._changed |= set(self._places.values())  # of them the last ones may be empty now
        for device in gone:
            del self._seen[device]
        self._places = {device: number // PART for number, device in enumerate(self._seen)}

    def _enrolled(self) -> set[str]:
        keys = self._mirror.keys
        below = self._state.keys(keys.devices)
        found = {key.removeprefix(keys.devices).removesuffix(".json") for key in below}
        if self._state.read(keys.bell) is None:  # which every enrolment rings
            raise UnavailableError("there is no bell in the state store")
        return found

    def _write(self, part: int, record: SeenRecord) -> None:
        data = encode(record)  # here, in a thread: it takes milliseconds
        self._state.update(self._mirror.keys.seen(self.gateway, part), lambda _: data)

    def _adopt(self, found: dict[str, int]) -> None:
        for device, second in found.items():
            self._seen.setdefault(device, second)
            place = self._places.setdefault(device, len(self._places) // PART)
            self._changed.add(place)

    def _written(self) -> tuple[dict[str, int], list[tuple[str, str]]]:
        """What this gateway wrote before, and what others wrote that are gone.

        Two gateways may take over the same, which harms nobody: the later sighting counts.
        """
        found: dict[str, int] = {}
        abandoned: list[tuple[str, str]] = []
        for key in list(self._state.keys(self._mirror.keys.seen_all)):
            stored = self._state.read(key)
            if stored is None:
                continue
            record = decode(SeenRecord, stored.data)
            own = key.startswith(f"{self._mirror.keys.seen_all}{self.gateway}/")
            gone = not own and record.written < self._now() - ABANDONED
            if own or gone:
                for device, second in record.devices.items():
                    found[device] = max(second, found.get(device, 0))
            if gone:
                abandoned.append((key, stored.tag))
        return found, abandoned

    def _delete(self, key: str, tag: str) -> None:
        with suppress(ConflictError):  # another gateway did, or its owner is back
            self._state.delete(key, expect=tag)
