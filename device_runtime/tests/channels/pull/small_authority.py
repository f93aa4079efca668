"""An authority of a test's own, which gives devices what they ask for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from edgefleet.protocol.documents import decode
from edgefleet.protocol.gateway import Identity, Renewal

FLEET = "6f1d6c70-55a4-4f21-9e0e-0a4f5f3c2b11"
BEGINS = datetime(2026, 11, 22, tzinfo=UTC)
NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a small authority")])


class SmallAuthority:
    """Signs whatever it is asked to."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = (
            self._begun(NAME, self.key.public_key(), BEGINS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    @property
    def pem(self) -> str:
        """Its certificate."""
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def grant(
        self,
        request: str,
        device: str = "cam-07",
        *,
        begins: datetime = BEGINS,
        named: str | None = None,
        fleet: str = FLEET,
    ) -> Identity:
        """Make a device of whoever asks; ``named`` is what the certificate says instead."""
        asked = x509.load_pem_x509_csr(request.encode())
        assert asked.is_signature_valid
        urn = x509.UniformResourceIdentifier(f"urn:edgefleet:{fleet}:device:{named or device}")
        certificate = (
            self._begun(x509.Name([]), asked.public_key(), begins)
            .add_extension(x509.SubjectAlternativeName([urn]), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        return Identity(
            device=device,
            group="line",
            fleet=fleet,
            certificate=certificate.public_bytes(Encoding.PEM).decode(),
            authorities=self.pem,
            gateways=("https://gw.example:8443",),
        )

    def renew(self, renewal: bytes, *, begins: datetime) -> Identity:
        """Answer a renewal."""
        return self.grant(decode(Renewal, renewal).request, begins=begins)

    def _begun(self, subject: x509.Name, key: object, begins: datetime) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(NAME)
            .public_key(key)  # type: ignore[arg-type]
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(begins + timedelta(days=90))
        )
