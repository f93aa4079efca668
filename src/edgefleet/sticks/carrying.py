"""What of a fleet travels by a stick."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from edgefleet.capabilities import require
from edgefleet.errors import NotFoundError
from edgefleet.interfaces.progress import Bytes
from edgefleet.interfaces.receipts import CanTakeReceipts
from edgefleet.interfaces.receiving import CanReceive
from edgefleet.sticks.exported import export, needed, pointer_of
from edgefleet.sticks.taken import Taking

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from edgefleet.groups import GroupEditor
    from edgefleet.services import Services
    from edgefleet.sticks.exported import Exported
    from edgefleet.sticks.taken import Taken


class Carrying:
    """The part of a fleet that reaches devices without a network."""

    _services: Services
    _groups: GroupEditor

    def export_group(
        self,
        group: str,
        to: PathLike[str] | str,
        *,
        targets: Sequence[str] = (),
        progress: bool = True,
    ) -> Exported:
        """Put a group's release on a stick, for devices whose channel takes it from there.

        A call that was interrupted goes on where it stopped. The same again changes nothing. A
        stick carries one group, and is taken by the devices that are in it now: what it held before
        goes when the new release is whole. What devices of another fleet wrote there stays, with a
        warning.

        Args:
            group: ``group`` or ``deployer/group``.
            to: where the stick is mounted.
            targets: leave out variants that are for other hardware targets; none leaves out none.
            progress: show it where a person looks.

        Raises:
            NotFoundError: nothing was deployed to the group.
            StorageFullError: the stick lacks room; what it held is untouched.
            UnavailableError: the stick was pulled out: it holds what it held before.
        """
        deployer, name = self._services.find_group(group)
        blobs = self._services.registry.blobs
        pointer = pointer_of(deployer.pointer(name), group)
        wanted = needed(blobs, pointer, targets=targets)
        total = sum(one.size for one in wanted)
        with Bytes(f"exporting {group}", total, enabled=progress) as advance:
            return export(
                blobs,
                pointer,
                wanted,
                Path(to),
                group=f"{deployer.name}/{name}",
                devices=[device.name for device in deployer.devices(name)],
                progress=advance,
            )

    def take_receipts(self, source: PathLike[str] | str) -> Taken:
        """Take what devices wrote on a stick: reports, hot events, segments and samples.

        What is taken goes from the stick. What no device of the fleet signed, or a revoked one, is
        put aside there and told. The same again changes nothing.

        Args:
            source: where the stick is mounted.

        Raises:
            InvalidInputError: there is no stick that a group was exported to, or it was for a
                group of another fleet; nothing was taken or moved.
            UnsupportedError: no deployer of the profile knows devices by their signatures, or its
                telemetry takes nothing in their names.
            UnavailableError: the stick was pulled out; what was taken is kept.
        """
        deployers = tuple(self._services.deployers.values())
        able = [one for one in deployers if isinstance(one, CanTakeReceipts)]
        if not able:
            require(deployers[0], CanTakeReceipts)

        def home_of(device: str) -> CanTakeReceipts:
            for deployer in deployers:
                try:
                    deployer.device(device)
                except NotFoundError:
                    continue
                if isinstance(deployer, CanTakeReceipts):
                    return deployer
            raise NotFoundError(
                f"no device {device!r} here signs what it sends",
                cure="list the devices with: edgefleet devices",
            )

        telemetry = require(self._services.telemetry, CanReceive)
        with TemporaryDirectory(prefix="edgefleet-") as scratch:
            return Taking(
                Path(source),
                fleet=self._groups.fleet_id(write=False),
                home_of=home_of,
                telemetry=telemetry,
                scratch=Path(scratch),
            ).take()
