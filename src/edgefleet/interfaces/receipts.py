"""What devices wrote on a stick comes back signed, and the backend knows by whom."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, final

from edgefleet.interfaces.service import Service
from edgefleet.protocol.names import check_name

if TYPE_CHECKING:
    from edgefleet.protocol.stick import Receipt


class CanTakeReceipts(Service):
    """The operator can take what a device sent by a stick instead of a network."""

    @final
    def check_receipt(self, device: str, signed: bytes) -> Receipt:
        """What a device vouches for.

        Args:
            device: whose folder it was found in.
            signed: a `SignedReceipt`, as it was found.

        Raises:
            AccessDeniedError: the device's key didn't sign it, or the device was revoked.
            DocumentError: it is malformed.
            LimitExceededError: it is longer than any receipt.
            NotFoundError: no such device.
        """
        check_name("device", device)
        with self._boundary("check_receipt"):
            return self._check_receipt(device, signed)

    @final
    def take_report(self, device: str, report: bytes) -> bool:
        """Keep a device's report, whose receipt was checked, unless there is a newer one.

        Returns:
            Whether it was kept.

        Raises:
            DocumentError: it is none.
            LimitExceededError: it is longer than any report.
        """
        check_name("device", device)
        with self._boundary("take_report"):
            return self._take_report(device, report)

    @abstractmethod
    def _check_receipt(self, device: str, signed: bytes) -> Receipt: ...

    @abstractmethod
    def _take_report(self, device: str, report: bytes) -> bool: ...
