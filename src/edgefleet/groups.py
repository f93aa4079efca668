"""Editing a group: read its record, decide, write it by compare-and-swap, publish the pointer.

Killed anywhere, the old or the new holds: the record is written before the pointer is published,
so a record that is ahead of its channel tells the next caller to publish again. Two operators at
once: the loser of the compare-and-swap reads again and decides anew, so that neither edit is lost.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from edgefleet.errors import ConflictError, UnavailableError
from edgefleet.identity import Reserve, fleet_id, group_key, take_pair, take_pairs
from edgefleet.protocol.release import EMPTY, Release
from edgefleet.rollout.records import (
    GroupRecord,
    Stamp,
    encode_record,
    policy_of,
    read_record,
    recovered,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from edgefleet.identity import Pair
    from edgefleet.interfaces.deployer import Deployer
    from edgefleet.services import Services

_LOG = logging.getLogger(__name__)
MAX_TRIES = 20  # of an edit that others keep overtaking


class GroupEditor:
    """Reads and edits group records of one fleet.

    Args:
        services: of the fleet's profile.
        brief: whether it lives for one call: what it found in the registry, it takes to be there.
    """

    def __init__(self, services: Services, *, brief: bool = False) -> None:
        self._services = services
        self._brief = brief
        self._there: dict[str, Release] = {}
        self._storing = threading.Lock()  # so that threads store a release once

    def record(self, deployer: Deployer, group: str) -> GroupRecord:
        """The group's record; an empty one before the first deployment.

        A lost one is recovered from the pointer that the group's channel carries, so that the next
        edit adds to what the devices run instead of replacing it.
        """
        return self._held(deployer, group)[0]

    def _held(self, deployer: Deployer, group: str) -> tuple[GroupRecord, str | None]:
        """The record and the tag it was read with; no tag where it isn't stored."""
        stored = self._services.state.read(group_key(deployer.name, group))
        if stored is not None:
            return read_record(stored.data), stored.tag
        on_channel = deployer.pointer(group)
        if on_channel is None:
            return GroupRecord(), None
        _LOG.warning("the record of %s/%s was lost; its pointer tells", deployer.name, group)
        return recovered(on_channel), None

    def release(self, digest: str) -> Release:
        """The release with that digest."""
        if digest == EMPTY.digest:
            return EMPTY
        found = self._there.get(digest)
        if found is None:
            found = self._services.registry.get_release(digest)
            self._remember(found)
        return found

    def store(self, release: Release) -> None:
        """Keep a release in the registry, where pointers to it find it."""
        with self._storing:
            if release.digest not in self._there:
                self._services.registry.put_release(release)
                self._remember(release)

    def _remember(self, release: Release) -> None:
        if self._brief:
            self._there[release.digest] = release

    def reserve(self, count: int) -> Reserve:
        """Numbers for so many edits, by one write of the fleet's counter."""
        epoch, numbers = take_pairs(self._services.state, count, seen=self._pairs_seen)
        return Reserve(self.fleet_id(), epoch, numbers)

    def fleet_id(self, *, write: bool = True) -> str:
        """The fleet's UUID; without ``write`` nothing is stored, see `identity.fleet_id`."""
        return fleet_id(self._services.state, seen=self._fleets_seen, write=write)

    def edit(
        self,
        deployer: Deployer,
        group: str,
        change: Callable[[GroupRecord, Callable[[], Stamp]], GroupRecord],
        *,
        actor: str,
        reserve: Reserve | None = None,
    ) -> tuple[GroupRecord, bool]:
        """Change a group's record and publish its pointer.

        Args:
            deployer: the group's.
            group: its bare name.
            change: pure but for the releases it stores; called again when somebody came in between.
                It returns the record it was given to leave everything as it is.
            actor: who does it.
            reserve: numbers taken before.

        Returns:
            The record in force afterwards, its pointer on the channel; and whether this call
            changed it.
        """
        deployer.group(group)
        key = group_key(deployer.name, group)
        stamp = partial(self._stamp, deployer, group, actor=actor, reserve=reserve)
        for _ in range(MAX_TRIES):
            before, tag = self._held(deployer, group)
            after = change(before, lambda held=before: stamp(held))  # type: ignore[misc]
            if after != before:
                try:
                    self._services.state.write(key, encode_record(after), expect=tag)
                except ConflictError:
                    _LOG.info("group %s/%s was changed meanwhile; again", deployer.name, group)
                    continue
            return self.publish(deployer, group), after != before
        msg = f"others kept changing group {group!r}"
        raise ConflictError(msg, cure="repeat the call when fewer operators are at work")

    def publish(self, deployer: Deployer, group: str) -> GroupRecord:
        """Put the newest pointer of the record on the channel, until the two agree."""
        for _ in range(MAX_TRIES):
            record = self.record(deployer, group)
            if record.pointer is None:
                return record
            try:
                deployer.publish(group, record.pointer, policy=policy_of(record))
            except ConflictError:
                if self.record(deployer, group) == record:
                    raise  # the channel is above the record: not a race between operators
                continue
            if self.record(deployer, group) == record:
                return record
        msg = f"others kept publishing to group {group!r}"
        raise ConflictError(msg, cure="repeat the call when fewer operators are at work")

    def forget(self, deployer: Deployer, group: str) -> None:
        """Delete the record of a group that was removed."""
        key = group_key(deployer.name, group)
        while (stored := self._services.state.read(key)) is not None:
            with suppress(ConflictError):  # somebody edited it meanwhile
                self._services.state.delete(key, expect=stored.tag)

    def _stamp(
        self,
        deployer: Deployer,
        group: str,
        held: GroupRecord,
        *,
        actor: str,
        reserve: Reserve | None,
    ) -> Stamp:
        floor = max(
            (0, 0) if held.pointer is None else held.pointer.pair,
            self._on_channel(deployer, group),
        )
        pair = None if reserve is None else reserve.take(floor)
        if pair is None:
            pair = take_pair(self._services.state, floor=floor, seen=self._pairs_seen)
        return Stamp(
            fleet=self.fleet_id() if reserve is None else reserve.fleet,
            epoch=pair[0],
            number=pair[1],
            at=datetime.now(UTC),
            actor=actor,
            sources=self._services.registry.blobs.sources,
        )

    def _on_channel(self, deployer: Deployer, group: str) -> Pair:
        """What a new pair has to be above; publishing itself refuses where it can't be read now."""
        try:
            pointer = deployer.pointer(group)
        except UnavailableError:
            return 0, 0
        return (0, 0) if pointer is None else pointer.pair

    def _fleets_seen(self) -> Iterable[str]:
        return (pointer_fleet for pointer_fleet, _ in self._seen())

    def _pairs_seen(self) -> Iterable[Pair]:
        return (pair for _, pair in self._seen())

    def _seen(self) -> Iterator[tuple[str, Pair]]:
        """Fleet and pair of every pointer and report that can be found: for lost documents only."""
        for key in self._services.state.keys("groups/"):
            stored = self._services.state.read(key)
            pointer = None if stored is None else read_record(stored.data).pointer
            if pointer is not None:
                yield pointer.fleet, pointer.pair
        for deployer in self._services.deployers.values():
            for group in deployer.groups():
                pointer = deployer.pointer(group.name)
                if pointer is not None:
                    yield pointer.fleet, pointer.pair
            for device in deployer.devices():
                if device.report is not None and device.report.fleet is not None:
                    yield device.report.fleet, device.report.pair
