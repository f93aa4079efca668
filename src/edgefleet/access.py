"""What `Fleet` does with the access of its devices, over every deployer that has some to renew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.capabilities import require
from edgefleet.interfaces.access import CanRenewAccess
from edgefleet.interfaces.progress import Steps

if TYPE_CHECKING:
    from datetime import timedelta

    from edgefleet.interfaces.access import AccessKind, AccessTerm
    from edgefleet.services import Services


def terms(services: Services) -> dict[str, tuple[AccessTerm, ...]]:
    """What devices were given, by the deployer's name; deployers without such access are left out.

    Sends nothing that changes anything.
    """
    return {name: deployer.access() for name, deployer in _renewable(services).items()}


def renew(
    services: Services, *, group: str | None, within: timedelta | None, progress: bool
) -> dict[str, tuple[AccessTerm, ...]]:
    """Renew what ends soon; see `CanRenewAccess.renew_access`."""
    if group is not None:
        deployer, name = services.find_group(group)
        able = require(deployer, CanRenewAccess)
        return {deployer.name: able.renew_access(group=name, within=within)}
    found = {}
    for name, one in _renewable(services).items():
        total = len(one.access()) if progress else 0
        with Steps("renewing access", total, enabled=progress) as step:
            found[name] = one.renew_access(within=within, step=step)
    return found


def revoke(services: Services, kind: AccessKind) -> tuple[str, ...]:
    """End all access of a kind; the names of the deployers that had any to end."""
    found = _renewable(services)
    for deployer in found.values():
        deployer.revoke_access(kind)
    return tuple(found)


def _renewable(services: Services) -> dict[str, CanRenewAccess]:
    return {
        name: deployer
        for name, deployer in services.deployers.items()
        if isinstance(deployer, CanRenewAccess)
    }
