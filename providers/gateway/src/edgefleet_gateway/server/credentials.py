"""What a gateway serves with: a certificate of the fleet's own authority, or one given to it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from edgefleet.errors import ConfigurationError
from edgefleet_gateway.certificates import pem_of, pin
from edgefleet_gateway.server.tls import Material

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edgefleet_gateway.authority import Authority


class OwnCertificate:
    """Issued by the fleet's authority, and anew before it ends or when the authority changed.

    Args:
        authority: of the fleet.
        hosts: names and addresses by which devices reach this gateway.
        now: tells the time.
    """

    def __init__(
        self,
        authority: Authority,
        hosts: Sequence[str],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._authority = authority
        self._hosts = hosts
        self._now = now
        self._files = authority.serve(hosts)

    def __call__(self) -> Material:
        """What to serve with now."""
        if self._authority.reload() or self._now() >= self._files.renew:
            self._files = self._authority.serve(self._hosts)
        return Material(self._files.certificate, self._files.key, self._authority.believed)


class GivenCertificate:
    """Of somebody else's making, such as a public authority's.

    Args:
        authority: of the fleet, which signs devices' certificates.
        certificate: and those that lead to its authority, PEM.
        key: its key, PEM.
    """

    def __init__(self, authority: Authority, certificate: Path, key: Path) -> None:
        self._authority = authority
        self._certificate = certificate
        self._key = key
        self._told: tuple[tuple[int, int], str] | None = None  # stamp and pin of what was published

    def __call__(self) -> Material:
        """What to serve with now; published anew where it was renewed, or the authority was.

        Raises:
            ConfigurationError: it can't be read.
        """
        self._authority.reload()
        stamp = self._stamp()
        if (
            self._told is None
            or self._told[0] != stamp
            or self._told[1] not in self._authority.pins
        ):
            self.publish()
        return Material(self._certificate, self._key, self._authority.believed, stamp)

    def publish(self) -> None:
        """Tell devices what to verify it against, and strangers which key to expect.

        Raises:
            ConfigurationError: it can't be read.
        """
        stamp = self._stamp()
        try:
            chain = x509.load_pem_x509_certificates(self._certificate.read_bytes())
            key = chain[0].public_key()
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"{self._certificate} is no certificate: {error}", cure="give one in PEM"
            ) from error
        if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            raise ConfigurationError(
                f"{self._certificate} is of an unusual key", cure="make one with ECDSA or RSA"
            )
        self._authority.publish(pins=(pin(key),), others=pem_of(chain[-1]))
        self._told = stamp, pin(key)

    def _stamp(self) -> tuple[int, int]:
        try:
            return (self._certificate.stat().st_mtime_ns, self._key.stat().st_mtime_ns)
        except OSError as error:
            raise ConfigurationError(
                f"the certificate or its key can't be read: {error}", cure="put it back"
            ) from error
