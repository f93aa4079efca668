"""What every service on AWS shares, beside what `AwsBackend` gives: proofs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.interfaces.abilities import CanProve
from edgefleet_aws.backend import AwsBackend
from edgefleet_aws.proofs import prove

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet.interfaces.abilities import Proof
    from edgefleet_aws.settings import AwsSettings


class AwsService(AwsBackend, CanProve):
    """Base of the services, before the role's own.

    Attributes:
        needs: parts in `edgefleet_aws.permissions.OPERATOR` that the service needs.
    """

    needs: tuple[str, ...]
    _settings: AwsSettings

    def _proofs(self) -> Iterator[Proof]:
        return prove(self._clients, self._settings, self.needs)
