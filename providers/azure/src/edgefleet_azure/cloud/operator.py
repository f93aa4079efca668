"""The mock's own operator: who enrols its devices, whatever the environment says."""

from __future__ import annotations

import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from azure.core.credentials import AccessToken

from edgefleet_azure.access import AccessGrants
from edgefleet_azure.bases import Bases
from edgefleet_azure.clients import Clients
from edgefleet_azure.cloud.identity import TOKEN_S
from edgefleet_azure.deployer import IotEdgeDeployer
from edgefleet_azure.state import BlobStateStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet_azure.cloud.identity import Identities
    from edgefleet_azure.cloud.stage import Stage
    from edgefleet_azure.settings import AzureSettings


class _Operator:
    """Tokens of the operator, without asking for them."""

    def __init__(self, identities: Identities) -> None:
        self._identities = identities

    def get_token(self, *scopes: str, **_: object) -> AccessToken:
        audience = scopes[0].removesuffix("/.default")
        token = self._identities.token(self._identities.operator, audience)
        return AccessToken(token, int(time.time()) + TOKEN_S)

    def close(self) -> None:
        """Nothing is open."""


@contextmanager
def operating(stage: Stage, settings: AzureSettings) -> Iterator[IotEdgeDeployer]:
    """A deployer on the mock, of a fleet whose base deployments are there, while the block runs.

    Args:
        stage: the cloud.
        settings: of the fleet.
    """
    clients = Clients(
        settings,
        credential=_Operator(stage.identities),
        authorities=str(stage.authority.bundle.absolute()),
    )
    store = BlobStateStore(clients, settings)
    deployer = IotEdgeDeployer(
        clients, settings, state=lambda: store, grants=AccessGrants(clients, settings)
    )
    with closing(deployer):
        Bases(clients, settings).apply()
        yield deployer
