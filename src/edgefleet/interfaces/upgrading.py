"""Upgrades of the runtime itself, by cohorts, where the channel brings them to the devices."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple, final

from edgefleet.errors import InvalidInputError
from edgefleet.interfaces.service import Service
from edgefleet.protocol.names import check_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgefleet.protocol.gateway import RuntimeOffer


class UpgradeStatus(NamedTuple):
    """How far a group is with the runtime that was ordered.

    Attributes:
        group: its name.
        offer: what was ordered; None where nothing was.
        devices: the version that each device reports; None for one that never reported.
        reverted: devices that tried it and went back, with the reason they give.
    """

    group: str
    offer: RuntimeOffer | None
    devices: dict[str, str | None]
    reverted: dict[str, str]

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "group": self.group,
            "version": None if self.offer is None else self.offer.runtime,
            "permille": None if self.offer is None else self.offer.permille,
            "devices": self.devices,
            "reverted": self.reverted,
        }


class CanUpgradeRuntime(Service):
    """The operator can bring another version of the runtime to a group's devices."""

    @final
    def upgrade_runtime(
        self,
        group: str,
        archives: Sequence[Path] = (),
        *,
        version: str | None = None,
        permille: int = 1000,
    ) -> UpgradeStatus:
        """Order a runtime for a group. The same again changes nothing.

        A device takes it when it is in the cohort, starts it beside its old one, and goes back by
        itself when the new one doesn't come up.

        Args:
            group: its bare name.
            archives: of one version, one a platform, as ``edgefleet runtime build`` makes them;
                none to change the cohort of what was ordered, or with ``version``.
            version: in place of archives, a version that was ordered for some group before.
            permille: how many of a thousand devices take it; the same devices are in every larger
                cohort, and 0 keeps the rest from taking it.

        Raises:
            InvalidInputError: the archives aren't of one version, or two are of one platform.
            IntegrityError: one is no archive of the runtime.
            NotFoundError: there are no archives, and nothing was ordered, or not that version; or
                there is no such group.
        """
        check_name("group", group)
        if archives and version is not None:
            raise InvalidInputError("archives say which version they are", cure="give one of them")
        if not 0 <= permille <= 1000:
            raise InvalidInputError(f"no cohort has {permille} of a thousand devices")
        with self._boundary("upgrade_runtime"):
            return self._upgrade_runtime(group, archives, version, permille)

    @final
    def runtime_status(self, group: str) -> UpgradeStatus:
        """What was ordered, and what each device of the group runs.

        Raises:
            NotFoundError: there is no such group.
        """
        check_name("group", group)
        with self._boundary("runtime_status"):
            return self._runtime_status(group)

    @abstractmethod
    def _upgrade_runtime(
        self, group: str, archives: Sequence[Path], version: str | None, permille: int
    ) -> UpgradeStatus: ...

    @abstractmethod
    def _runtime_status(self, group: str) -> UpgradeStatus: ...
