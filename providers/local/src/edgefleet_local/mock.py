"""The mock of the local provider: the provider itself, on a folder of the mock's own.

There is nothing to stand in for: devices are real runtimes, the registry is a real folder. What it
adds is that the mock's process alone runs the devices, and that their power can be cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from edgefleet.plugins.provider import Role
from edgefleet.testing.mock import MockCloud
from edgefleet_local.deployer import LocalDeployer
from edgefleet_local.journal import Journal
from edgefleet_local.settings import LocalSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


class LocalMock(MockCloud):
    """A fleet's folder whose devices run as long as the mock does."""

    name: ClassVar[str] = "local"
    roles: ClassVar[frozenset[Role]] = frozenset(Role)

    def __init__(self, state: Path) -> None:
        super().__init__(state)
        self._settings = LocalSettings(root=state.absolute())
        self._home = self._settings.home(state.absolute())
        self._deployer = LocalDeployer(self._home)

    def start(self) -> None:
        """Run the devices of the folder, those of an earlier session too."""
        self._deployer.run_devices()

    def stop(self) -> None:
        """End every device's runtime and return when none is left."""
        self._deployer.close()

    @property
    def environment(self) -> dict[str, str]:
        """Nothing: the settings say where the folder is."""
        return {}

    @property
    def settings(self) -> dict[str, Any]:
        """The folder, and that only the mock runs its devices."""
        return {"root": str(self._settings.root), "supervise": False}

    def add_device(self, name: str, *, group: str, labels: Mapping[str, str] | None = None) -> None:
        """Enrol a device; its runtime starts at once."""
        self._deployer.enroll(name, group=group, labels=labels)

    def kill_device(self, name: str) -> None:
        """Cut a device's power: its runtime is killed, and stays down until `start_device`."""
        self._deployer.switch(name, on=False)

    def start_device(self, name: str) -> None:
        """Give a device its power back."""
        self._deployer.switch(name, on=True)

    def seen(self) -> Iterator[str]:
        """Every operation that changed the folder, whichever process did it."""
        yield from Journal(self._home).lines()
