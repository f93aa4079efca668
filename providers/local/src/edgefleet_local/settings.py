"""Settings of the local provider. Imports nothing heavy: naming a provider must cost nothing."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from edgefleet.plugins.provider import ProviderSettings


class LocalSettings(ProviderSettings):
    """What ``[profiles.<name>.local]`` may hold.

    Attributes:
        prefix: folder below ``root`` that holds this fleet; several fleets may share a root.
        root: folder of the fleets; relative to the profile file, else to the current folder.
        supervise: whether this process may run devices. Where it may not, devices run as long as
            some other process runs them.
    """

    prefix: str = Field(default="fleet", pattern=r"^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$")
    root: Path = Path(".edgefleet")
    supervise: bool = True

    def home(self, base: Path) -> Path:
        """Folder of the fleet; ``base`` is where a relative ``root`` starts."""
        return (base / self.root.expanduser()).absolute() / self.prefix
