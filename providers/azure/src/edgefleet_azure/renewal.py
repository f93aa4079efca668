"""The deployer of a fleet whose devices read and write with what its operators renew.

Calls grow with groups: a layer each, with the pointer that it has. Only what follows a revocation
of writing grows with devices, because each holds a value of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.interfaces.access import AccessKind, AccessTerm, CanRenewAccess
from edgefleet_azure.access import AccessGrants, content_of
from edgefleet_azure.deployer import IotEdgeDeployer
from edgefleet_azure.manifests import UPLOAD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgefleet.interfaces.state import StateStore
    from edgefleet_azure.clients import Clients
    from edgefleet_azure.settings import AzureSettings


class RenewingDeployer(CanRenewAccess, IotEdgeDeployer):
    """Devices with Azure IoT Edge, and the access that they are given.

    Args:
        clients: to reach Azure with; closed with the deployer.
        settings: hubs, storage account, prefix.
        name: of this deployer in the profile.
        state: gives the profile's state store.
        grants: what devices are given.
        base: folder that relative paths in settings start from.
    """

    def __init__(
        self,
        clients: Clients,
        settings: AzureSettings,
        *,
        name: str = "azure",
        state: Callable[[], StateStore],
        grants: AccessGrants,
        base: Path,
    ) -> None:
        super().__init__(clients, settings, name=name, state=state, grants=grants, base=base)
        self._given = grants

    def _access_terms(self) -> Iterator[AccessTerm]:
        newest = ((name, self.layers.newest(name)) for name in sorted(self._members.counts()))
        held = {name: content_of(layer) for name, layer in newest if layer is not None}
        yield from self._given.terms(held)

    def _renew_access(self, term: AccessTerm) -> AccessTerm:
        if term.group is None:
            return self._given.extend_writing()
        pointer = self.layers.read(term.group)
        if pointer is None:
            return term  # its last device was retired meanwhile
        self.layers.publish(term.group, pointer)
        given = self._given.read_term(term.group)
        return given._replace(renewed=given.ends != term.ends)  # else it was given today

    def _revoke_access(self, kind: AccessKind) -> None:
        self._given.revoke(kind)
        if kind is AccessKind.READ:
            return
        for hub, members in self._members.devices(None):
            for member in members:
                self.give(hub, member.device, {UPLOAD: self._given.upload(member.device)})
