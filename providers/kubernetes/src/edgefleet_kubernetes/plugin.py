"""The plugin. Services, and the clients with them, are imported when they are asked for."""

# ruff: noqa: PLC0415 - naming a provider must cost nothing

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from edgefleet.plugins.hooks import hookimpl
from edgefleet.plugins.provider import Provider, Role
from edgefleet_kubernetes.settings import KubernetesSettings

if TYPE_CHECKING:
    from edgefleet.interfaces.pricing import Prices
    from edgefleet.plugins.provider import Context
    from edgefleet_kubernetes.deployer import KubernetesDeployer
    from edgefleet_kubernetes.gitops import GitDeployer
    from edgefleet_kubernetes.registry import KubernetesRegistry
    from edgefleet_kubernetes.state import KubernetesStateStore
    from edgefleet_kubernetes.telemetry import KubernetesTelemetry
    from edgefleet_kubernetes.trainer import KubernetesTrainer


class KubernetesProvider(Provider):
    """Models in an OCI registry, training in Jobs, devices with DaemonSets, on any cluster."""

    name: ClassVar[str] = "kubernetes"
    roles: ClassVar[frozenset[Role]] = frozenset(Role)

    @property
    def settings_type(self) -> type[KubernetesSettings]:
        return KubernetesSettings

    def registry(self, settings: KubernetesSettings, context: Context) -> KubernetesRegistry:
        from edgefleet_kubernetes.registry import KubernetesRegistry

        return KubernetesRegistry(settings, state=context.state, base=context.base)

    def trainer(self, settings: KubernetesSettings, context: Context) -> KubernetesTrainer:
        from edgefleet_kubernetes.clients import Clients
        from edgefleet_kubernetes.trainer import KubernetesTrainer

        clients = Clients(settings, base=context.base)
        return KubernetesTrainer(clients, settings, base=context.base)

    def deployer(
        self, settings: KubernetesSettings, context: Context
    ) -> KubernetesDeployer | GitDeployer:
        from edgefleet_kubernetes.clients import Clients

        clients = Clients(settings, base=context.base)
        if settings.delivery == "git":
            from edgefleet_kubernetes.gitops import GitDeployer

            return GitDeployer(clients, settings, name=context.name, base=context.base)
        from edgefleet_kubernetes.deployer import KubernetesDeployer

        return KubernetesDeployer(clients, settings, name=context.name, state=context.state)

    def telemetry(self, settings: KubernetesSettings, context: Context) -> KubernetesTelemetry:
        from edgefleet_kubernetes.clients import Clients
        from edgefleet_kubernetes.telemetry import KubernetesTelemetry

        clients = Clients(settings, base=context.base)
        return KubernetesTelemetry(clients, settings, base=context.base)

    def state(self, settings: KubernetesSettings, context: Context) -> KubernetesStateStore:
        from edgefleet_kubernetes.clients import Clients
        from edgefleet_kubernetes.state import KubernetesStateStore

        return KubernetesStateStore(Clients(settings, base=context.base), settings)

    def prices(self) -> Prices:
        from edgefleet.interfaces.pricing import prices_in

        return prices_in("edgefleet_kubernetes")


@hookimpl
def edgefleet_provider() -> KubernetesProvider:
    """Give the provider."""
    return KubernetesProvider()
