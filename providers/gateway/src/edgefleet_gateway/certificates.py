"""Certificates of a fleet: how they are made, and what a request for one must prove.

Rules kept here, where nothing is read or written:

- A device's certificate is for clients alone, a gateway's for servers alone, so that neither passes
  for the other.
- What a request for a certificate says of itself is ignored, but for the key, which it must prove
  to hold.
- Certificates begin an hour before they are made: clocks differ.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from datetime import timedelta
from typing import TYPE_CHECKING, TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgefleet.errors import ConfigurationError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

BACKDATED = timedelta(hours=1)
AUTHORITY_LASTS = timedelta(days=7305)  # twenty years: longer than most machines at the edge
MAX_COMMON_NAME = 64  # characters, RFC 5280, ub-common-name
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_RSA_BITS = range(2048, 4097)

DeviceKey: TypeAlias = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey


def authority_certificate(
    fleet: str, key: ec.EllipticCurvePrivateKey, now: datetime
) -> x509.Certificate:
    """The certificate of a fleet's own authority, which signs no other authorities."""
    mark = fingerprint(key.public_key())[:8]
    name = _name(f"EdgeFleet {fleet} {mark}")
    usage = _usage(signs_certificates=True)
    return (
        _begun(
            name,
            key.public_key(),
            now,
            now + AUTHORITY_LASTS,
            issuer=name,
            signs=key.public_key(),
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(_alternatives(x509.UniformResourceIdentifier(_urn(fleet))), critical=False)
        .sign(key, hashes.SHA256())
    )


def device_certificate(
    fleet: str,
    device: str,
    key: DeviceKey,
    *,
    issuer: x509.Certificate,
    signer: ec.EllipticCurvePrivateKey,
    begins: datetime,
    ends: datetime,
) -> x509.Certificate:
    """A certificate by which a device is known to its gateway."""
    urn = x509.UniformResourceIdentifier(f"{_urn(fleet)}:device:{device}")
    subject = _name(device if len(device) <= MAX_COMMON_NAME else None)
    built = _begun(subject, key, begins, ends, issuer=issuer.subject, signs=signer.public_key())
    # A subject that says nothing leaves the name to this extension: RFC 5280, 4.2.1.6.
    built = built.add_extension(_alternatives(urn), critical=not list(subject))
    return _signed_leaf(built, signer, ExtendedKeyUsageOID.CLIENT_AUTH)


def server_certificate(
    hosts: Sequence[str],
    key: ec.EllipticCurvePublicKey,
    *,
    issuer: x509.Certificate,
    signer: ec.EllipticCurvePrivateKey,
    begins: datetime,
    ends: datetime,
) -> x509.Certificate:
    """A certificate by which a gateway is known to its devices.

    Args:
        hosts: names and IP addresses, at least one.
        key: the gateway's.
        issuer: certificate of the authority.
        signer: the authority's key.
        begins: when it begins; backdated here.
        ends: when it ends.

    Raises:
        ConfigurationError: a host is no name.
    """
    subject = _name(hosts[0] if len(hosts[0]) <= MAX_COMMON_NAME else None)
    built = _begun(subject, key, begins, ends, issuer=issuer.subject, signs=signer.public_key())
    names = _alternatives(*(_host(host) for host in dict.fromkeys(hosts)))
    built = built.add_extension(names, critical=not list(subject))
    return _signed_leaf(built, signer, ExtendedKeyUsageOID.SERVER_AUTH)


def key_asked_for(request: str) -> DeviceKey:
    """The public key of a request for a certificate, which whoever asks has proved to hold.

    Args:
        request: PKCS #10, PEM.

    Raises:
        InvalidInputError: it is malformed, unsigned, or its key or digest is too weak.
    """
    cure = "make it with: edgefleet-runtime enroll; or ECDSA P-256 and SHA-256 by any other tool"
    try:
        parsed = x509.load_pem_x509_csr(request.encode("ascii"))
        key = parsed.public_key()
        digest = parsed.signature_hash_algorithm
        signed = parsed.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise InvalidInputError("the request for a certificate is malformed", cure=cure) from error
    if not signed:
        raise InvalidInputError("the request for a certificate isn't signed by its key", cure=cure)
    if not isinstance(key, ed25519.Ed25519PublicKey) and not isinstance(
        digest, hashes.SHA256 | hashes.SHA384 | hashes.SHA512
    ):
        raise InvalidInputError("the request's signature is by a weak digest", cure=cure)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return key
    if isinstance(key, rsa.RSAPublicKey) and key.key_size in _RSA_BITS:
        return key
    raise InvalidInputError("the request's key is too weak or of an unknown kind", cure=cure)


def serial_of(certificate: x509.Certificate) -> str:
    """Its serial number, as records hold it."""
    return f"{certificate.serial_number:x}"


def pem_of(*certificates: x509.Certificate) -> str:
    """Certificates one after the other."""
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in certificates)


def gathered(newer: str, older: str, *, most: int) -> str:
    """Certificates of two texts in PEM, each once, the newer ones first; at most so many."""
    both = newer + older
    found = x509.load_pem_x509_certificates(both.encode()) if both else []
    return pem_of(*list(dict.fromkeys(found))[:most])


def fingerprint(key: DeviceKey) -> str:
    """SHA-256 of a public key, in hexadecimal; of its SubjectPublicKeyInfo, as in a `pin`."""
    return hashlib.sha256(_spki(key)).hexdigest()


def pin(key: DeviceKey) -> str:
    """What ``curl --pinnedpubkey`` takes after ``sha256//``."""
    return base64.b64encode(hashlib.sha256(_spki(key)).digest()).decode()


def fleet_of(authority: x509.Certificate) -> str | None:
    """UUID of the fleet that an authority is of."""
    try:
        names = authority.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return uris[0].removeprefix("urn:edgefleet:") if uris else None


def _spki(key: DeviceKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _urn(fleet: str) -> str:
    return f"urn:edgefleet:{fleet}"


def _name(common: str | None) -> x509.Name:
    return x509.Name([] if common is None else [x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _alternatives(*names: x509.GeneralName) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(names)


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host.encode("idna").decode())
    except UnicodeError as error:
        raise ConfigurationError(
            f"{host!r} is no host's name", cure="mend the setting `addresses` of the profile"
        ) from error


def _begun(
    subject: x509.Name,
    key: DeviceKey,
    begins: datetime,
    ends: datetime,
    *,
    issuer: x509.Name,
    signs: ec.EllipticCurvePublicKey,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins - BACKDATED)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signs), critical=False)
    )


def _signed_leaf(
    built: x509.CertificateBuilder, signer: ec.EllipticCurvePrivateKey, use: x509.ObjectIdentifier
) -> x509.Certificate:
    return (
        built.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([use]), critical=True)
        .sign(signer, hashes.SHA256())
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
