"""A deployer whose devices join by invitation, and telemetry that tells who may write for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from edgefleet.interfaces.abilities import CanProve, Proof
from edgefleet.interfaces.inviting import CanInvite, Invitation
from edgefleet.interfaces.telemetry import Telemetry
from edgefleet.plugins.hooks import hookimpl
from edgefleet.plugins.provider import Context, Provider, ProviderSettings, Role
from edgefleet_local.telemetry import LocalTelemetry
from tests.cli.keyed import Keyed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime, timedelta
    from typing import BinaryIO

    from edgefleet.protocol.event import Event
    from edgefleet.protocol.segment import SegmentName

PROBLEMS: dict[str, str | None] = {}
"""What keeps the user from each action of whoever receives; None for nothing."""


class Outpost(CanInvite, Keyed):
    """Groups, and no devices."""

    def _invite(
        self,
        device: str,
        group: str,
        labels: dict[str, str],
        lasts: timedelta,
        replace: bool,  # noqa: FBT001 - as the interface has it
    ) -> Invitation:
        raise NotImplementedError

    def _revoke(self, device: str) -> None:
        raise NotImplementedError


class ProvenTelemetry(CanProve, LocalTelemetry):
    """That of a folder, which gateways may write."""

    def _proofs(self) -> Iterator[Proof]:
        yield Proof("telemetry", "store:Read")

    def _receiving_proofs(self) -> Iterator[Proof]:
        for action, problem in PROBLEMS.items():
            yield Proof("receiving", action, problem=problem)


class ReadOnlyTelemetry(Telemetry):
    """Takes nothing from gateways, and has nothing."""

    provider = "outpost"

    def _segments(self) -> Iterator[SegmentName]:
        return iter(())

    def _open_file(self, device: str, path: str) -> BinaryIO:
        raise NotImplementedError

    def _hot(self, device: str | None, since: datetime | None) -> Iterator[tuple[str, Event]]:
        return iter(())


class OutpostSettings(ProviderSettings):
    """Which of the two it is."""

    receives: bool = True


class OutpostProvider(Provider):
    """Offers both."""

    name: ClassVar[str] = "outpost"
    roles: ClassVar[frozenset[Role]] = frozenset({Role.DEPLOYER, Role.TELEMETRY})

    @property
    def settings_type(self) -> type[ProviderSettings]:
        return OutpostSettings

    def deployer(self, settings: Any, context: Context) -> Outpost:
        return Outpost(context.name)

    def telemetry(self, settings: Any, context: Context) -> Telemetry:
        return ProvenTelemetry(context.base) if settings.receives else ReadOnlyTelemetry()


@hookimpl
def edgefleet_provider() -> OutpostProvider:
    """Give the provider."""
    return OutpostProvider()
