"""The plugin. Services, and Azure's libraries with them, are imported when they are asked for."""

# ruff: noqa: PLC0415 - naming a provider must cost nothing

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from edgefleet.plugins.hooks import hookimpl
from edgefleet.plugins.provider import Provider, Role
from edgefleet_azure.settings import AzureSettings

if TYPE_CHECKING:
    from edgefleet.interfaces.pricing import Prices
    from edgefleet.plugins.provider import Context
    from edgefleet_azure.registry import AzureMLRegistry
    from edgefleet_azure.renewal import RenewingDeployer
    from edgefleet_azure.state import BlobStateStore
    from edgefleet_azure.telemetry import AzureTelemetry
    from edgefleet_azure.trainer import AzureMLTrainer


class AzureProvider(Provider):
    """Models in Blob storage and Azure ML, training there, devices with IoT Edge."""

    name: ClassVar[str] = "azure"
    roles: ClassVar[frozenset[Role]] = frozenset(Role)

    @property
    def settings_type(self) -> type[AzureSettings]:
        return AzureSettings

    def registry(self, settings: AzureSettings, context: Context) -> AzureMLRegistry:
        from edgefleet_azure.clients import Clients
        from edgefleet_azure.registry import AzureMLRegistry

        return AzureMLRegistry(Clients(settings), settings)

    def trainer(self, settings: AzureSettings, context: Context) -> AzureMLTrainer:
        from edgefleet_azure.clients import Clients
        from edgefleet_azure.trainer import AzureMLTrainer

        return AzureMLTrainer(Clients(settings), settings, base=context.base)

    def deployer(self, settings: AzureSettings, context: Context) -> RenewingDeployer:
        from edgefleet_azure.access import AccessGrants
        from edgefleet_azure.clients import Clients
        from edgefleet_azure.renewal import RenewingDeployer

        clients = Clients(settings)
        return RenewingDeployer(
            clients,
            settings,
            name=context.name,
            state=context.state,
            grants=AccessGrants(clients, settings),
            base=context.base,
        )

    def telemetry(self, settings: AzureSettings, context: Context) -> AzureTelemetry:
        from edgefleet_azure.clients import Clients
        from edgefleet_azure.telemetry import AzureTelemetry

        return AzureTelemetry(Clients(settings), settings)

    def state(self, settings: AzureSettings, context: Context) -> BlobStateStore:
        from edgefleet_azure.clients import Clients
        from edgefleet_azure.state import BlobStateStore

        return BlobStateStore(Clients(settings), settings)

    def prices(self) -> Prices:
        from edgefleet.interfaces.pricing import prices_in

        return prices_in("edgefleet_azure")


@hookimpl
def edgefleet_provider() -> AzureProvider:
    """Give the provider."""
    return AzureProvider()
