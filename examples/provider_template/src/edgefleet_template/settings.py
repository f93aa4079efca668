"""Settings: what a profile says about this provider. Nothing heavy is imported here."""

from __future__ import annotations

from pathlib import Path

from edgefleet.plugins.provider import ProviderSettings


class TemplateSettings(ProviderSettings):
    """What ``[profiles.<name>.template]`` may hold, beside ``prefix``.

    Attributes:
        root: where the shared folder is mounted; relative to the profile file.
    """

    root: Path

    def home(self, base: Path) -> Path:
        """The folder of this fleet."""
        return (base / self.root.expanduser()).absolute() / self.prefix
