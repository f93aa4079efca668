"""Hook specifications. A plugin module implements any of them with `hookimpl`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from edgefleet.plugins.provider import Provider
    from edgefleet.protocol.release import Release
    from edgefleet.protocol.target import HardwareTarget

PROJECT = "edgefleet"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Hooks:
    """The hooks that EdgeFleet calls."""

    @hookspec
    def edgefleet_provider(self) -> Provider:  # type: ignore[empty-body]
        """Give the plugin's provider: a factory of services."""

    @hookspec
    def edgefleet_hardware_targets(self) -> list[HardwareTarget]:  # type: ignore[empty-body]
        """Give hardware targets to add to the built-in ones."""

    @hookspec
    def edgefleet_before_deploy(self, release: Release, groups: list[str], actor: str) -> None:
        """Told before anything is written; raise to veto."""

    @hookspec
    def edgefleet_after_deploy(self, deployment: object, actor: str) -> None:
        """Told after the pointer was published, for audit; an exception is only logged."""
