"""A certificate that a gateway was given: what devices are told of it, and when anew."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from edgefleet.errors import ConfigurationError
from edgefleet_gateway.certificates import pin
from edgefleet_gateway.server.credentials import GivenCertificate
from providers.gateway.tests.joining_rig import START, Rig


class Given:
    """Somebody else's certificate, in files."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key = folder / "cert.pem", folder / "key.pem"
        self.made = 0
        self.pin, self.pem = self.make()

    def make(self) -> tuple[str, str]:
        """Make it, or make it anew with another key; gives what devices have to know of it."""
        self.made += 1
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gw.example")])
        built = x509.CertificateBuilder().subject_name(name).issuer_name(name)
        built = built.public_key(key.public_key()).serial_number(self.made)
        built = built.not_valid_before(START).not_valid_after(START + timedelta(days=1))
        pem = built.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
        self.certificate.write_bytes(pem)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.key.write_bytes(private)
        for path in (self.certificate, self.key):
            os.utime(path, ns=(self.made, self.made))
        return pin(key.public_key()), pem.decode()


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


@pytest.fixture
def given(tmp_path: Path) -> Given:
    return Given(tmp_path)


@pytest.fixture
def material(rig: Rig, given: Given) -> GivenCertificate:
    made = GivenCertificate(rig.authority, given.certificate, given.key)
    made.publish()
    return made


def test_what_is_published_stays_as_it_is(rig: Rig, material: GivenCertificate) -> None:
    before = rig.state.read(rig.keys.authority)
    assert material() == material()
    assert rig.state.read(rig.keys.authority) == before


def test_a_certificate_that_was_renewed_is_published(
    rig: Rig, given: Given, material: GivenCertificate
) -> None:
    """Tools that renew certificates make a new key each time."""
    shown = material()
    fresh, pem = given.make()
    assert material() != shown
    assert rig.authority.pins[0] == fresh
    assert pem in rig.authority.gateways_by


def test_it_is_published_again_after_all_was_forgotten(
    rig: Rig, given: Given, material: GivenCertificate
) -> None:
    rig.rotate(keep=False)
    material()
    assert given.pin in rig.authority.pins
    assert given.pem in rig.authority.gateways_by


def test_one_that_is_gone_is_said(given: Given, material: GivenCertificate) -> None:
    given.certificate.unlink()
    with pytest.raises(ConfigurationError, match="can't be read"):
        material()
