"""A deployer in memory whose devices have access that ends: what `edgefleet access` works on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, ClassVar

from edgefleet.interfaces.access import AccessKind, AccessTerm, CanRenewAccess
from edgefleet.interfaces.deployer import Deployer
from edgefleet.interfaces.values import Group
from edgefleet.plugins.hooks import hookimpl
from edgefleet.plugins.provider import Context, Provider, ProviderSettings, Role

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgefleet.interfaces.values import DeviceInfo, Rendered
    from edgefleet.protocol.pointer import Pointer

LASTS = timedelta(days=30)
GIVEN: dict[str, datetime | None] = {}
"""When the access of each group ends; None for access that was revoked."""
CALLS: list[str] = []
"""The groups that were given new access, in order."""


class Keyed(CanRenewAccess, Deployer):
    """Groups with access, and no devices."""

    provider = "keyed"

    def __init__(self, name: str) -> None:
        self.name = name

    def _groups(self) -> Iterator[Group]:
        for name in (*GIVEN, "empty"):
            yield Group(name=name, deployer=self.name)

    def _devices(self, group: str | None) -> Iterator[DeviceInfo]:
        return iter(())

    def _label(self, device: str, labels: Mapping[str, str | None]) -> None:
        raise NotImplementedError

    def _pointer(self, group: str) -> Pointer | None:
        return None

    def _render(self, group: str, pointer: Pointer) -> Iterator[Rendered]:
        raise NotImplementedError

    def _publish(self, group: str, pointer: Pointer) -> None:
        raise NotImplementedError

    def _access_terms(self) -> Iterator[AccessTerm]:
        for group, ends in GIVEN.items():
            yield AccessTerm(AccessKind.READ, group, ends, LASTS)

    def _renew_access(self, term: AccessTerm) -> AccessTerm:
        group = str(term.group)
        CALLS.append(group)
        GIVEN[group] = ends = datetime.now(UTC) + LASTS
        return term._replace(ends=ends, renewed=True)

    def _revoke_access(self, kind: AccessKind) -> None:
        if kind is AccessKind.READ:
            GIVEN.update(dict.fromkeys(GIVEN))


class KeyedProvider(Provider):
    """Offers that deployer."""

    name: ClassVar[str] = "keyed"
    roles: ClassVar[frozenset[Role]] = frozenset({Role.DEPLOYER})

    @property
    def settings_type(self) -> type[ProviderSettings]:
        return ProviderSettings

    def deployer(self, settings: ProviderSettings, context: Context) -> Keyed:
        return Keyed(context.name)


@hookimpl
def edgefleet_provider() -> KeyedProvider:
    """Give the provider."""
    return KeyedProvider()
