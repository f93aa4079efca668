"""The plugin: a deployer whose devices pull. The server is a command of its own."""

# ruff: noqa: PLC0415 - naming a provider must cost nothing

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from edgefleet.plugins.hooks import hookimpl
from edgefleet.plugins.provider import Context, Provider, Role
from edgefleet_gateway.settings import GatewaySettings

if TYPE_CHECKING:
    from edgefleet_gateway.deployer import GatewayDeployer


class GatewayProvider(Provider):
    """Groups and devices in the profile's state store; what holds the bytes serves beside it."""

    name: ClassVar[str] = "gateway"
    roles: ClassVar[frozenset[Role]] = frozenset({Role.DEPLOYER})

    @property
    def settings_type(self) -> type[GatewaySettings]:
        return GatewaySettings

    def deployer(self, settings: GatewaySettings, context: Context) -> GatewayDeployer:
        from edgefleet_gateway.deployer import GatewayDeployer

        return GatewayDeployer(settings, context)


@hookimpl
def edgefleet_provider() -> GatewayProvider:
    """Give the provider."""
    return GatewayProvider()
