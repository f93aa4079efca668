"""The plugin: which roles this provider serves, and how each service is built.

Each factory imports what it needs itself: naming a provider must cost nothing.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from edgefleet.plugins.hooks import hookimpl
from edgefleet.plugins.provider import Context, Provider, Role
from edgefleet_template.settings import TemplateSettings

if TYPE_CHECKING:
    from edgefleet.interfaces.deployer import Deployer
    from edgefleet.interfaces.registry import Registry
    from edgefleet.interfaces.state import StateStore
    from edgefleet.interfaces.telemetry import Telemetry


class TemplateProvider(Provider):
    """Everything but training, which a profile can take from another provider."""

    name: ClassVar[str] = "template"
    roles: ClassVar[frozenset[Role]] = frozenset(Role) - {Role.TRAINER}

    @property
    def settings_type(self) -> type[TemplateSettings]:
        return TemplateSettings

    def state(self, settings: TemplateSettings, context: Context) -> StateStore:
        from edgefleet_template.state import SqliteStateStore

        return SqliteStateStore(settings.home(context.base))

    def registry(self, settings: TemplateSettings, context: Context) -> Registry:
        from edgefleet_template.registry import registry_below

        return registry_below(settings.home(context.base))

    def deployer(self, settings: TemplateSettings, context: Context) -> Deployer:
        from edgefleet_template.deployer import MailboxDeployer

        return MailboxDeployer(settings.home(context.base), name=context.name)

    def telemetry(self, settings: TemplateSettings, context: Context) -> Telemetry:
        from edgefleet_template.telemetry import MailboxTelemetry

        return MailboxTelemetry(settings.home(context.base))


@hookimpl
def edgefleet_provider() -> TemplateProvider:
    """Give the provider."""
    return TemplateProvider()
