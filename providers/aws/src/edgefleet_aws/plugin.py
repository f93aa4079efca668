"""The plugin. Services, and boto3 with them, are imported when they are asked for."""

# ruff: noqa: PLC0415 - naming a provider must cost nothing

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from edgefleet.plugins.hooks import hookimpl
from edgefleet.plugins.provider import Context, Provider, Role
from edgefleet_aws.settings import AwsSettings

if TYPE_CHECKING:
    from edgefleet_aws.registry import SageMakerRegistry
    from edgefleet_aws.state import S3StateStore
    from edgefleet_aws.trainer import SageMakerTrainer


class AwsProvider(Provider):
    """Registry and state in S3 and SageMaker, training on SageMaker."""

    name: ClassVar[str] = "aws"
    roles: ClassVar[frozenset[Role]] = frozenset({Role.REGISTRY, Role.STATE, Role.TRAINER})

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


@hookimpl
def edgefleet_provider() -> AwsProvider:
    """Give the provider."""
    return AwsProvider()
