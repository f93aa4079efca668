"""What devices wrote on a stick: by whose key it was signed, and whether that device still counts.

A certificate that ended doesn't matter here: a device that only a stick reaches can't renew. What
matters is that the fleet's authority issued it, and that the device's record still lists it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from edgefleet.errors import AccessDeniedError, NotFoundError, UnknownFeatureError
from edgefleet.interfaces.receipts import CanTakeReceipts
from edgefleet.protocol.documents import decode, encode
from edgefleet.protocol.report import read_report
from edgefleet.protocol.stick import MAX_RECEIPT_BYTES, Receipt, SignedReceipt, signed_bytes
from edgefleet_gateway.certificates import fleet_of, serial_of
from edgefleet_gateway.records import AuthorityRecord, ReportRecord

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from edgefleet.interfaces.state import StateStore
    from edgefleet.protocol.report import Report
    from edgefleet_gateway.records import Keys
    from edgefleet_gateway.roster import Roster

_CURE = "have the device write the stick again, with its identity; enrol it anew if it has none"


class TakesReceipts(CanTakeReceipts):
    """The part of the deployer that believes a stick as far as signatures go."""

    _keys: Keys
    _state: Callable[[], StateStore]
    _roster: Roster
    _clock: Callable[[], datetime]

    def _check_receipt(self, device: str, signed: bytes) -> Receipt:
        record = self._roster.find(device)
        if record is None:
            raise _no_device(device)
        read = decode(SignedReceipt, signed, max_bytes=MAX_RECEIPT_BYTES)
        receipt = decode(Receipt, read.receipt, max_bytes=MAX_RECEIPT_BYTES)
        if read.signature is None or read.certificate is None:
            raise AccessDeniedError("it isn't signed", cure=_CURE)
        try:
            leaf = x509.load_pem_x509_certificates(read.certificate.encode("ascii"))[0]
        except ValueError as error:
            raise AccessDeniedError("its certificate is malformed", cure=_CURE) from error
        fleet = self._fleet_that_issued(leaf)
        if _said(leaf) != [f"urn:edgefleet:{fleet}:device:{device}"] or (
            receipt.device,
            receipt.fleet,
        ) != (device, fleet):
            raise AccessDeniedError(f"it isn't {device!r} of this fleet that signed it", cure=_CURE)
        _check_signature(leaf, read.signature, signed_bytes(read.receipt))
        if not record.allows(serial_of(leaf)):
            why = (
                "was revoked" if record.revoked else "signed with a certificate that counts no more"
            )
            raise AccessDeniedError(f"{device!r} {why}", cure="invite the device again")
        return receipt

    def _take_report(self, device: str, report: bytes) -> bool:
        new, record = _read(report), self._roster.find(device)
        if record is None:
            raise _no_device(device)
        # When it came is when the device wrote it: nobody heard of it since.
        came = self._clock() if new is None else min(self._clock(), new.time)
        kept = False

        def change(data: bytes | None) -> bytes:
            nonlocal kept
            there = record.own(None if data is None else decode(ReportRecord, data))
            kept = there is None or _newer(report, new, there)
            if kept or data is None:
                return encode(ReportRecord(report=report, came=came, machine=record.machine))
            return data

        self._state().update(self._keys.report(device), change)
        return kept

    def _fleet_that_issued(self, leaf: x509.Certificate) -> str:
        stored = self._state().read(self._keys.authority)
        if stored is None:
            raise AccessDeniedError(
                "this fleet has no authority yet", cure="start a gateway once: it makes one"
            )
        record = decode(AuthorityRecord, stored.data)
        for authority in x509.load_pem_x509_certificates(record.certificates.encode()):
            with suppress(ValueError, TypeError, InvalidSignature):
                leaf.verify_directly_issued_by(authority)
                fleet = fleet_of(authority)
                if fleet is not None:
                    return fleet
        raise AccessDeniedError("its certificate isn't of this fleet's authority", cure=_CURE)


def _no_device(device: str) -> NotFoundError:
    return NotFoundError(f"no device {device!r}", cure="list the devices with: edgefleet devices")


def _said(leaf: x509.Certificate) -> list[str]:
    """The names in a certificate that is for a client."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uses = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return []
    if ExtendedKeyUsageOID.CLIENT_AUTH not in uses:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _check_signature(leaf: x509.Certificate, signature: bytes, content: bytes) -> None:
    key = leaf.public_key()
    try:
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise AccessDeniedError("its key signs in a way that receipts don't", cure=_CURE)
        key.verify(signature, content, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise AccessDeniedError("its signature is wrong", cure=_CURE) from error


def _read(report: bytes) -> Report | None:
    with suppress(UnknownFeatureError):  # of a newer runtime, for an operator who knows it
        return read_report(report)
    return None


def _newer(report: bytes, new: Report | None, there: ReportRecord) -> bool:
    held = _read(there.report)
    if held is None or new is None:
        return report != there.report
    return new.sequence > held.sequence
