"""A device's key: made here, proved here, and never sent anywhere. Needs the extra ``pull``."""

from __future__ import annotations

import base64
import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from edgefleet.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

    from edgefleet.protocol.gateway import Identity


class Granted(NamedTuple):
    """A certificate that fits a key of this device.

    Attributes:
        key: the key, PEM.
        serial: of the certificate, in hexadecimal.
        begins: when it begins.
        ends: when it ends.
    """

    key: bytes
    serial: str
    begins: datetime
    ends: datetime

    def __repr__(self) -> str:
        return f"Granted(serial={self.serial!r}, ends={self.ends!r})"


def new_key() -> bytes:
    """A new ECDSA key on P-256, PEM."""
    return _written(ec.generate_private_key(ec.SECP256R1()))


def request_for(key: bytes) -> str:
    """A request for a certificate of a key, PKCS #10, PEM. It names nobody.

    Raises:
        IntegrityError: the key is damaged.
    """
    built = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return built.sign(_key(key), hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def signature(key: bytes, data: bytes) -> bytes:
    """ECDSA with SHA-256 over ``data``, DER."""
    return _key(key).sign(data, ec.ECDSA(hashes.SHA256()))


def pin_of(certificate: bytes) -> str:
    """Base64 of the SHA-256 of a certificate's public key, as ``curl --pinnedpubkey`` has it."""
    spki = _spki(x509.load_der_x509_certificate(certificate).public_key())
    return base64.b64encode(hashlib.sha256(spki).digest()).decode()


def granted(identity: Identity, keys: Sequence[bytes]) -> Granted:
    """What a gateway gave, checked.

    Args:
        identity: its answer.
        keys: PEM; those that it may be for.

    Raises:
        IntegrityError: the certificate is for none of these keys or another device, or none of the
            authorities that came with it has signed it.
    """
    again = "ask the gateway again; if it stays so, somebody else answers in its place"
    try:
        certificate = x509.load_pem_x509_certificates(identity.certificate.encode())[0]
        authorities = x509.load_pem_x509_certificates(identity.authorities.encode())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise IntegrityError("the gateway gave no certificate of a device", cure=again) from error
    if uris != [f"urn:edgefleet:{identity.fleet}:device:{identity.device}"]:
        raise IntegrityError(f"the certificate isn't that of {identity.device}", cure=again)
    if not any(_signed(certificate, authority) for authority in authorities):
        raise IntegrityError("none of the fleet's authorities signed the certificate", cure=again)
    wanted = _spki(certificate.public_key())
    for pem in keys:
        with suppress(IntegrityError):  # the disk spoiled it: it may be for another
            key = _key(pem)
            if _spki(key.public_key()) == wanted:
                return Granted(
                    key=_written(key),
                    serial=f"{certificate.serial_number:x}",
                    begins=certificate.not_valid_before_utc,
                    ends=certificate.not_valid_after_utc,
                )
    raise IntegrityError("the certificate is for a key that this device doesn't have", cure=again)


def _signed(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _spki(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _written(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """The key in a PEM, which may hold certificates too.

    Raises:
        IntegrityError: it is damaged, or of another kind.
    """
    cure = "enrol the device again"
    try:
        found = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise IntegrityError("the device's key is damaged", cure=cure) from error
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        raise IntegrityError("the device's key is of another kind", cure=cure)
    return found
