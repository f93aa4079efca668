"""Another runtime for a group: its archives in the registry, the order in the state store.

Rules kept here:

- Archives first, then the order, the bell last: whoever hears of an order finds its archives.
- An order of the same archives keeps its salt, so that a larger cohort has the devices of a smaller
  one. Other archives get a new one: what failed under an order is not tried again under it.
"""

from __future__ import annotations

import secrets
from abc import abstractmethod
from typing import TYPE_CHECKING

import msgspec

from edgefleet.errors import NotFoundError
from edgefleet.interfaces.upgrading import CanUpgradeRuntime, UpgradeStatus
from edgefleet.protocol.documents import decode, encode
from edgefleet.protocol.gateway import RuntimeOffer
from edgefleet_gateway.archives import store_archives
from edgefleet_gateway.records import RuntimeRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from edgefleet.interfaces.registry import Registry
    from edgefleet.interfaces.state import StateStore
    from edgefleet.interfaces.values import DeviceInfo
    from edgefleet.protocol.gateway import Archive
    from edgefleet_gateway.records import Keys
    from edgefleet_gateway.roster import Roster


class Upgrades(CanUpgradeRuntime):
    """The part of the deployer that brings other runtimes to devices."""

    _keys: Keys
    _state: Callable[[], StateStore]
    _registry: Callable[[], Registry]
    _roster: Roster
    _clock: Callable[[], datetime]

    @abstractmethod
    def _devices(self, group: str | None) -> Iterator[DeviceInfo]: ...

    def _upgrade_runtime(
        self, group: str, archives: Sequence[Path], version: str | None, permille: int
    ) -> UpgradeStatus:
        self._check_group(group)
        if archives:
            stored = store_archives(archives, self._registry().blobs)
            wanted = _anew(stored.runtime, stored.archives)
        elif version is not None:
            wanted = self._known(version)
        else:
            there = self._ordered(self._keys.runtime(group))
            if there is None:
                raise NotFoundError(
                    f"no runtime was ordered for {group!r}",
                    cure="give the archives that edgefleet runtime build made",
                )
            wanted = there

        def change(data: bytes | None) -> bytes:
            before = None if data is None else decode(RuntimeRecord, data).offer
            same = before is not None and _same(before, wanted)
            offer = msgspec.structs.replace(
                before if before is not None and same else wanted, permille=permille
            )
            if data is not None and offer == before:
                return data
            return encode(RuntimeRecord(offer=offer, ordered=self._clock()))

        self._state().update(self._keys.runtime(group), change)
        self._roster.ring(f"runtime/{group}")
        return self._runtime_status(group)

    def _runtime_status(self, group: str) -> UpgradeStatus:
        self._check_group(group)
        offer = self._ordered(self._keys.runtime(group))
        devices: dict[str, str | None] = {}
        reverted: dict[str, str] = {}
        for info in self._devices(group):
            report = info.report
            devices[info.name] = None if report is None else report.runtime
            went = None if report is None else report.reverted
            if went is not None and offer is not None and went.runtime == offer.runtime:
                reverted[info.name] = went.reason
        return UpgradeStatus(group=group, offer=offer, devices=devices, reverted=reverted)

    def _check_group(self, group: str) -> None:
        if not self._roster.has_group(group):
            raise NotFoundError(f"no group {group!r}", cure="enrol a device into it first")

    def _ordered(self, key: str) -> RuntimeOffer | None:
        stored = self._state().read(key)
        return None if stored is None else decode(RuntimeRecord, stored.data).offer

    def _known(self, version: str) -> RuntimeOffer:
        """What was ordered as that version for any group."""
        seen: set[str] = set()
        for key in self._state().keys(self._keys.runtimes):
            offer = self._ordered(key)
            if offer is not None and offer.runtime == version:
                return _anew(version, offer.archives)
            if offer is not None:
                seen.add(offer.runtime)
        raise NotFoundError(
            f"the runtime {version!r} was ordered for no group",
            cure=f"give its archives; versions there are: {', '.join(sorted(seen)) or 'none'}",
        )


def _anew(version: str, archives: dict[str, Archive]) -> RuntimeOffer:
    return RuntimeOffer(runtime=version, archives=archives, salt=f"runtime-{secrets.token_hex(4)}")


def _same(one: RuntimeOffer, other: RuntimeOffer) -> bool:
    return (one.runtime, one.archives) == (other.runtime, other.archives)
