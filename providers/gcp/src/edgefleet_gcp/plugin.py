"""The plugin. Services, and Google's libraries with them, are imported when they are asked for."""

# ruff: noqa: PLC0415 - naming a provider must cost nothing

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from edgefleet.plugins.hooks import hookimpl
from edgefleet.plugins.provider import Context, Provider, Role
from edgefleet_gcp.settings import GcpSettings

if TYPE_CHECKING:
    from edgefleet.interfaces.pricing import Prices
    from edgefleet_gcp.registry import GcsRegistry
    from edgefleet_gcp.state import GcsStateStore
    from edgefleet_gcp.telemetry import GcsTelemetry


class GcpProvider(Provider):
    """Models, state and telemetry in Cloud Storage, hot events by Pub/Sub."""

    name: ClassVar[str] = "gcp"
    roles: ClassVar[frozenset[Role]] = frozenset({Role.REGISTRY, Role.STATE, Role.TELEMETRY})

    @property
    def settings_type(self) -> type[GcpSettings]:
        return GcpSettings

    def registry(self, settings: GcpSettings, context: Context) -> GcsRegistry:
        from edgefleet_gcp.clients import Clients
        from edgefleet_gcp.registry import GcsRegistry

        return GcsRegistry(Clients(settings), settings, base=context.base)

    def state(self, settings: GcpSettings, context: Context) -> GcsStateStore:
        from edgefleet_gcp.clients import Clients
        from edgefleet_gcp.state import GcsStateStore

        return GcsStateStore(Clients(settings), settings)

    def telemetry(self, settings: GcpSettings, context: Context) -> GcsTelemetry:
        from edgefleet_gcp.clients import Clients
        from edgefleet_gcp.telemetry import GcsTelemetry

        return GcsTelemetry(Clients(settings), settings)

    def prices(self) -> Prices:
        from edgefleet.interfaces.pricing import prices_in

        return prices_in("edgefleet_gcp")


@hookimpl
def edgefleet_provider() -> GcpProvider:
    """Give the provider."""
    return GcpProvider()
