"""What an offered runtime means for one device: a pure decision."""

from __future__ import annotations

import platform
import sys
from typing import TYPE_CHECKING, NamedTuple

from edgefleet.protocol.digest import hex_of
from edgefleet.protocol.pointer import Cohort, in_cohort

if TYPE_CHECKING:
    from edgefleet.protocol.gateway import Archive, RuntimeOffer
    from edgefleet_runtime.upgrade.places import Kept

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


class Wanted(NamedTuple):
    """A runtime that this device should become.

    Attributes:
        archive: what to fetch.
        name: its folder's, as the install script has it too.
        runtime: its version.
        order: what tells this offer from others.
    """

    archive: Archive
    name: str
    runtime: str
    order: str


def own_platform() -> str:
    """What this machine is, as archives are named for it."""
    machine = platform.machine()
    return f"{sys.platform}-{_MACHINES.get(machine, machine)}"


def wanted(
    offer: RuntimeOffer | None, *, device: str, machine: str, own: str, kept: Kept | None
) -> Wanted | None:
    """What to do about an offer; None for nothing.

    Args:
        offer: None where none is.
        device: this device's name, for the cohort.
        machine: its platform.
        own: name of the runtime that runs.
        kept: what is remembered; what failed under an order isn't tried again under it.
    """
    if offer is None:
        return None
    archive = offer.archives.get(machine)
    if archive is None:
        return None
    name = f"{offer.runtime}-{hex_of(archive.digest)[:12]}"
    order = f"{offer.salt}/{archive.digest}"
    if name == own or not in_cohort(Cohort(salt=offer.salt, permille=offer.permille), device):
        return None
    if kept is not None and kept.order == order and kept.failed:
        return None
    return Wanted(archive=archive, name=name, runtime=offer.runtime, order=order)
