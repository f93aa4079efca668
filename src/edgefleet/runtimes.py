"""Which runtime the devices of a group are, and bringing them another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.capabilities import require
from edgefleet.errors import InvalidInputError
from edgefleet.interfaces.upgrading import CanUpgradeRuntime

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

    from edgefleet.interfaces.upgrading import UpgradeStatus
    from edgefleet.services import Services


class Runtimes:
    """The runtimes of a fleet's devices."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def upgrade(
        self,
        group: str,
        runtime: str | Iterable[PathLike[str] | str] | None = None,
        *,
        permille: int = 1000,
    ) -> UpgradeStatus:
        """Order a runtime for a group's devices; see `CanUpgradeRuntime`. Returns at once.

        A device in the cohort fetches it, installs it beside its own, starts it, and goes back by
        itself where the new one doesn't come up or doesn't reach its gateway.

        Args:
            group: ``group`` or ``deployer/group``.
            runtime: archives of one version, one a platform, as ``edgefleet runtime build`` makes
                them; or a version that was ordered for some group before. None changes the cohort
                of what was ordered.
            permille: how many of a thousand devices take it; the same devices are in every larger
                cohort. 0 keeps those that haven't taken it from taking it.

        Raises:
            InvalidInputError: the archives aren't of one version, or two are of one platform, or
                there is none in what was given.
            IntegrityError: one is no archive of the runtime.
            NotFoundError: no such group, or version.
            UnsupportedError: the group's channel brings devices no runtimes.
        """
        deployer, name = self._services.find_group(group)
        able = require(deployer, CanUpgradeRuntime)
        if isinstance(runtime, str):
            return able.upgrade_runtime(name, version=runtime, permille=permille)
        paths = [] if runtime is None else [Path(path) for path in runtime]
        if runtime is not None and not paths:
            raise InvalidInputError(
                "there are no archives", cure="give some; leave them out to change the cohort alone"
            )
        return able.upgrade_runtime(name, paths, permille=permille)

    def status(self, group: str) -> UpgradeStatus:
        """What was ordered for a group, and what each of its devices reports.

        Raises:
            NotFoundError: no such group.
            UnsupportedError: the group's channel brings devices no runtimes.
        """
        deployer, name = self._services.find_group(group)
        return require(deployer, CanUpgradeRuntime).runtime_status(name)


class Upgrading:
    """The part of a fleet that knows its devices' runtimes."""

    _services: Services

    @property
    def runtime(self) -> Runtimes:
        """The runtimes of the fleet's devices."""
        return Runtimes(self._services)
