"""The plugin. Services, and boto3 with them, are imported when they are asked for."""

# ruff: noqa: PLC0415 - naming a provider must cost nothing

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from edgefleet.plugins.hooks import hookimpl
from edgefleet.plugins.provider import Context, Provider, Role
from edgefleet_aws.settings import AwsSettings

if TYPE_CHECKING:
    from edgefleet.interfaces.pricing import Prices
    from edgefleet_aws.deployer import GreengrassDeployer
    from edgefleet_aws.registry import SageMakerRegistry
    from edgefleet_aws.state import S3StateStore
    from edgefleet_aws.telemetry import S3Telemetry
    from edgefleet_aws.trainer import SageMakerTrainer


class AwsProvider(Provider):
    """Models in S3 and SageMaker, training there, devices with Greengrass V2."""

    name: ClassVar[str] = "aws"
    roles: ClassVar[frozenset[Role]] = frozenset(Role)

    @property
    def settings_type(self) -> type[AwsSettings]:
        return AwsSettings

    def registry(self, settings: AwsSettings, context: Context) -> SageMakerRegistry:
        from edgefleet_aws.clients import Clients
        from edgefleet_aws.registry import SageMakerRegistry

        return SageMakerRegistry(Clients(settings), settings)

    def state(self, settings: AwsSettings, context: Context) -> S3StateStore:
        from edgefleet_aws.clients import Clients
        from edgefleet_aws.state import S3StateStore

        return S3StateStore(Clients(settings), settings)

    def trainer(self, settings: AwsSettings, context: Context) -> SageMakerTrainer:
        from edgefleet_aws.clients import Clients
        from edgefleet_aws.trainer import SageMakerTrainer

        return SageMakerTrainer(Clients(settings), settings, base=context.base)

    def deployer(self, settings: AwsSettings, context: Context) -> GreengrassDeployer:
        from edgefleet_aws.clients import Clients
        from edgefleet_aws.deployer import GreengrassDeployer

        return GreengrassDeployer(
            Clients(settings),
            settings,
            name=context.name,
            state=context.state,
            base=context.base,
        )

    def telemetry(self, settings: AwsSettings, context: Context) -> S3Telemetry:
        from edgefleet_aws.clients import Clients
        from edgefleet_aws.telemetry import S3Telemetry

        return S3Telemetry(Clients(settings), settings)

    def prices(self) -> Prices:
        from edgefleet.interfaces.pricing import prices_in

        return prices_in("edgefleet_aws")


@hookimpl
def edgefleet_provider() -> AwsProvider:
    """Give the provider."""
    return AwsProvider()
