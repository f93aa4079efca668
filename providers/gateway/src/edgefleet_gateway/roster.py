"""The devices of a fleet as its operators keep them, and the bell that tells gateways of edits.

Rules kept here:

- The document first, the bell after; each edit rings it, also one that changed nothing, because
  whoever did it before may have been killed in between.
- What one device is asked for is read anew. What all are asked for is held, and what the bell names
  is read again: a remote store answers one read in the time in which a local one answers hundreds.
"""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import msgspec

from edgefleet.errors import ConflictError, NotFoundError
from edgefleet.protocol.documents import decode, encode
from edgefleet.protocol.names import DEVICE_PATTERN, GROUP_PATTERN
from edgefleet_gateway.records import (
    BELIEVED_S,
    KEPT_CHANGES,
    Bell,
    DeviceRecord,
    GroupRecord,
    Keys,
    ReportRecord,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from edgefleet.interfaces.state import StateStore

READERS = 16  # documents that are read at once
_BATCH = 512  # documents whose content is held at once
_RECORD = ".json"

T = TypeVar("T")


def utc_now() -> datetime:
    """What the clock of this machine says."""
    return datetime.now(UTC)


class Roster:
    """The devices of one fleet.

    Args:
        state: gives the profile's state store; reads come from several threads.
        keys: where its documents lie.
        clock: tells the time.
    """

    def __init__(
        self,
        state: Callable[[], StateStore],
        keys: Keys,
        *,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._state, self._keys, self._clock = state, keys, clock
        self._holding = threading.Lock()
        self._held: dict[str, DeviceRecord] = {}
        self._heard = -1  # number of the bell that what is held goes by
        self._since = 0.0

    # One device

    def find(self, device: str) -> DeviceRecord | None:
        """A device's record as it is now; None for none."""
        stored = self._state().read(self._keys.device(device))
        return None if stored is None else decode(DeviceRecord, stored.data)

    def report(self, device: str) -> ReportRecord | None:
        """What a device said last; None for nothing."""
        stored = self._state().read(self._keys.report(device))
        return None if stored is None else decode(ReportRecord, stored.data)

    # Edits

    def enroll(self, device: str, group: str, labels: Mapping[str, str]) -> DeviceRecord:
        """Record a device and its group. Labels it has already stay, unless given again.

        Raises:
            ConflictError: somebody put it into another group.
        """
        there = self.find(device)
        if there is not None:  # before a group is made that nobody meant
            _check_group(device, there, group)
        self._make_group(group)

        def change(data: bytes | None) -> bytes:
            if data is None:
                self._delete(self._keys.report(device))  # of one that had that name
                return encode(DeviceRecord(group=group, since=self._clock(), labels=dict(labels)))
            there = decode(DeviceRecord, data)
            _check_group(device, there, group)
            return _encoded(msgspec.structs.replace(there, labels={**there.labels, **labels}), data)

        made = self._state().update(self._keys.device(device), change)
        self._make_group(group)  # somebody may have removed it before the device was in it
        self.ring(f"device/{device}")
        return decode(DeviceRecord, made)

    def change(self, device: str, edit: Callable[[DeviceRecord], DeviceRecord]) -> DeviceRecord:
        """Change a device's record until nobody else came in between.

        Args:
            device: its name.
            edit: gives the record that it should be; may be called several times, may raise.

        Raises:
            NotFoundError: there is no such device any more.
        """

        def change(data: bytes | None) -> bytes:
            if data is None:
                raise NotFoundError(
                    f"no device {device!r}", cure="list the devices with: edgefleet devices"
                )
            return _encoded(edit(decode(DeviceRecord, data)), data)

        made = self._state().update(self._keys.device(device), change)
        self.ring(f"device/{device}")
        return decode(DeviceRecord, made)

    def label(self, device: str, labels: Mapping[str, str | None]) -> None:
        """Set and remove labels, also such as the device gave of itself.

        Raises:
            NotFoundError: there is no such device any more.
        """
        gone = {key for key, value in labels.items() if value is None}

        def edit(there: DeviceRecord) -> DeviceRecord:
            merged = {**there.labels, **labels}
            return msgspec.structs.replace(
                there,
                labels={key: value for key, value in merged.items() if value is not None},
                said={key: value for key, value in there.said.items() if key not in gone},
            )

        self.change(device, edit)

    def retire(self, device: str) -> None:
        """Remove a device with what it said and was asked; nothing where there is none.

        What it recorded stays. Its certificates count no longer, whoever shows them.
        """
        there = self.find(device)
        self._delete(self._keys.device(device))
        self._delete(self._keys.report(device))
        if there is not None and there.token:
            self._delete(self._keys.token(there.token))
        for below in (self._keys.requests, self._keys.answers):
            for key in list(self._state().keys(f"{below}{device}/")):
                self._delete(key)
        self.ring(f"device/{device}")

    def remove_group(self, group: str) -> tuple[str, ...]:
        """Remove a group without devices, with its pointers; the devices that keep it, else.

        It goes first and is looked at again: whoever enrols a device meanwhile makes it anew after
        writing the device, and one of both is seen.
        """
        if left := self._in_group(group):
            return left
        self._delete(self._keys.group(group))
        if left := self._in_group(group):
            self._make_group(group)
            return left
        for key in (f"{self._keys.groups}{group}", self._keys.runtime(group)):
            self._delete(key)
        self.ring(f"pointer/{group}", f"runtime/{group}")
        return ()

    def _in_group(self, group: str) -> tuple[str, ...]:
        return tuple(name for name, record in self.devices().items() if record.group == group)

    def ring(self, *what: str) -> None:
        """Tell gateways what has changed: ``device/NAME``, ``pointer/GROUP``, ``runtime/GROUP``."""

        def rung(bell: Bell) -> Bell:
            number = bell.number + 1
            changes = (*bell.changes, *((number, one) for one in what))
            return msgspec.structs.replace(bell, number=number, changes=changes[-KEPT_CHANGES:])

        self.change_bell(rung)

    def change_bell(self, edit: Callable[[Bell], Bell]) -> Bell:
        """Change the bell until nobody else came in between.

        Args:
            edit: gives what it should be; may be called several times.
        """

        def change(data: bytes | None) -> bytes:
            there = Bell() if data is None else decode(Bell, data)
            return encode(edit(there))

        return decode(Bell, self._state().update(self._keys.bell, change))

    def bell(self) -> Bell:
        """The bell as it is now."""
        stored = self._state().read(self._keys.bell)
        return Bell() if stored is None else decode(Bell, stored.data)

    # All

    def groups(self) -> list[str]:
        """Names of all groups: those that ever had a device or a pointer."""
        state = self._state()
        named = {_name_in(key, self._keys.named) for key in state.keys(self._keys.named)}
        carried = {key.removeprefix(self._keys.groups) for key in state.keys(self._keys.groups)}
        return sorted(name for name in named | carried if re.match(GROUP_PATTERN, name))

    def has_group(self, group: str) -> bool:
        """Whether there is such a group."""
        state = self._state()
        return any(
            state.read(key) is not None
            for key in (self._keys.group(group), f"{self._keys.groups}{group}")
        )

    def devices(self) -> dict[str, DeviceRecord]:
        """All devices by name, in order."""
        bell = self.bell()
        keys = self._state().keys(self._keys.devices)
        found = (_name_in(key, self._keys.devices) for key in keys)
        names = sorted(name for name in found if re.match(DEVICE_PATTERN, name))
        with self._holding:
            self._hear(bell)
            known = dict(self._held)
        missing = [name for name in names if name not in known]
        read = zip(missing, self._gathered(self.find, missing), strict=True)
        known |= {name: record for name, record in read if record is not None}
        listed = {name: known[name] for name in names if name in known}
        with self._holding:
            if self._heard == bell.number:  # else another thread knows better
                self._held = listed
        return dict(listed)

    def reports(self, devices: Sequence[str]) -> Iterator[ReportRecord | None]:
        """What each of some devices said last, in their order."""
        return self._gathered(self.report, devices)

    def _hear(self, bell: Bell) -> None:
        """Forget what the bell names, and all where it can't be known any more."""
        now = time.monotonic()
        known = not bell.changes or bell.changes[0][0] <= self._heard + 1
        if bell.number < self._heard or not known or now - self._since > BELIEVED_S:
            self._held, self._since = {}, now
        for number, what in bell.changes:
            if number > self._heard and what.startswith("device/"):
                self._held.pop(what.removeprefix("device/"), None)
        self._heard = bell.number

    def _gathered(self, read: Callable[[str], T], names: Sequence[str]) -> Iterator[T]:
        """What reading gives for each name, in their order; several are read at once."""
        if len(names) < 2:
            yield from map(read, names)
            return
        with ThreadPoolExecutor(
            min(READERS, len(names)), thread_name_prefix="edgefleet-roster"
        ) as pool:
            for start in range(0, len(names), _BATCH):
                yield from list(pool.map(read, names[start : start + _BATCH]))

    def _make_group(self, group: str) -> None:
        key = self._keys.group(group)
        if self._state().read(key) is None:
            with suppress(ConflictError):  # somebody else did
                self._state().write(key, encode(GroupRecord(since=self._clock())), expect=None)

    def _delete(self, key: str) -> None:
        delete(self._state(), key)


def delete(state: StateStore, key: str) -> None:
    """Delete a document as it is; no error where there is none."""
    while (stored := state.read(key)) is not None:
        with suppress(ConflictError):  # somebody changed or deleted it meanwhile
            state.delete(key, expect=stored.tag)
            return


def _check_group(device: str, there: DeviceRecord, group: str) -> None:
    """Refuse to have a device in two groups."""
    if there.group != group:
        raise ConflictError(
            f"device {device!r} is in group {there.group!r}",
            cure=f"a device is in one group: retire it first to move it to {group!r}",
            retryable=False,
        )


def _encoded(record: DeviceRecord, before: bytes) -> bytes:
    """A record's bytes; those of before where it says the same."""
    return before if decode(DeviceRecord, before) == record else encode(record)


def _name_in(key: str, below: str) -> str:
    """The name in a record's key."""
    return key.removeprefix(below).removesuffix(_RECORD)
