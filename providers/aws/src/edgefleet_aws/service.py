"""What every service on AWS shares: clients that it closes, what errors mean, proofs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.interfaces.abilities import CanProve
from edgefleet_aws.errors import translate
from edgefleet_aws.proofs import prove

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet.errors import EdgeFleetError
    from edgefleet.interfaces.abilities import Proof
    from edgefleet_aws.clients import Clients
    from edgefleet_aws.settings import AwsSettings


class AwsService(CanProve):
    """Base of the services, beside the role's own.

    Attributes:
        needs: parts in `edgefleet_aws.permissions.OPERATOR` that the service needs.
    """

    provider = "aws"
    needs: tuple[str, ...]
    _clients: Clients
    _settings: AwsSettings

    def close(self) -> None:
        self._clients.close()

    def _translate(self, error: Exception) -> EdgeFleetError | None:
        return translate(error)

    def _proofs(self) -> Iterator[Proof]:
        return prove(self._clients, self._settings, self.needs)
