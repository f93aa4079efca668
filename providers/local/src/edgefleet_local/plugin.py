"""The plugin: everything local below one folder. Services are imported when they are asked for."""

# ruff: noqa: PLC0415 - naming a provider must cost nothing

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edgefleet.errors import UnsupportedError
from edgefleet.plugins.hooks import hookimpl
from edgefleet.plugins.provider import Context, Provider, Role
from edgefleet_local.settings import LocalSettings

if TYPE_CHECKING:
    from edgefleet.interfaces.pricing import Prices
    from edgefleet_local.deployer import LocalDeployer
    from edgefleet_local.registry import LocalRegistry
    from edgefleet_local.state import DirectoryStateStore
    from edgefleet_local.telemetry import LocalTelemetry
    from edgefleet_local.trainer import LocalTrainer


class LocalProvider(Provider):
    """All five roles in a folder; nothing is written before something is stored."""

    name: ClassVar[str] = "local"
    roles: ClassVar[frozenset[Role]] = frozenset(Role)

    @property
    def settings_type(self) -> type[LocalSettings]:
        return LocalSettings

    def registry(self, settings: LocalSettings, context: Context) -> LocalRegistry:
        home = _home(settings, context)
        from edgefleet_local.registry import LocalRegistry

        return LocalRegistry(home)

    def trainer(self, settings: LocalSettings, context: Context) -> LocalTrainer:
        home = _home(settings, context)
        from edgefleet_local.trainer import LocalTrainer

        return LocalTrainer(home)

    def deployer(self, settings: LocalSettings, context: Context) -> LocalDeployer:
        home = _home(settings, context)
        from edgefleet_local.deployer import LocalDeployer

        return LocalDeployer(home, name=context.name, supervise=settings.supervise)

    def telemetry(self, settings: LocalSettings, context: Context) -> LocalTelemetry:
        home = _home(settings, context)
        from edgefleet_local.telemetry import LocalTelemetry

        return LocalTelemetry(home)

    def state(self, settings: LocalSettings, context: Context) -> DirectoryStateStore:
        home = _home(settings, context)
        from edgefleet_local.state import DirectoryStateStore

        return DirectoryStateStore(home)

    def prices(self) -> Prices:
        from edgefleet.interfaces.pricing import prices_in

        return prices_in("edgefleet_local")


def _home(settings: LocalSettings, context: Context) -> Path:
    if sys.platform == "win32":
        raise UnsupportedError(
            "the local provider needs a Unix: file locks and process groups",
            cure="run it on Linux or macOS, or in WSL",
            provider="local",
        )
    return settings.home(context.base)


@hookimpl
def edgefleet_provider() -> LocalProvider:
    """Give the provider."""
    return LocalProvider()
