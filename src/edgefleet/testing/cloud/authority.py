"""A certificate authority of a mock cloud's own, thrown away with the mock's folder.

Nobody trusts it but those who are given its bundle.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import certifi
import trustme

from edgefleet.protocol.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = ("localhost", "127.0.0.1")


class Authority:
    """Makes certificates; the same authority again where its folder is there already.

    Args:
        folder: for its files; no one else on this machine may read them.
        vendor: whose cloud it certifies, as people name it.

    Attributes:
        certificate: file with the authority's certificate.
        bundle: file with it, those of other clouds that it was told to trust, and every authority
            that machines trust, for the variables that vendors' libraries read.
    """

    def __init__(self, folder: Path, *, vendor: str) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.certificate, self.bundle = folder / "ca.pem", folder / "bundle.pem"
        self._key, self._others = folder / "ca-key.pem", folder / "others.pem"
        if self._key.exists() and self.certificate.exists():
            self._ca = trustme.CA.from_pem(self.certificate.read_bytes(), self._key.read_bytes())
        else:
            self._ca = trustme.CA(organization_name=f"EdgeFleet mock of {vendor}")
            self._key.touch(mode=0o600)
            self._ca.private_key_pem.write_to_path(self._key)
            self._ca.cert_pem.write_to_path(self.certificate)
        self._others.touch()
        self._write_bundle()

    def trust(self, other: Authority) -> None:
        """Have the bundle hold another cloud's authority, now and when the folder is used again."""
        told = other.certificate.read_bytes()
        others = self._others.read_bytes()
        if told not in others:
            self._others.write_bytes(others + told)
            self._write_bundle()

    def alone(self, environment: Mapping[str, str]) -> dict[str, str]:
        """An environment whose variables that name the bundle name this authority alone.

        For tests of one cloud: each connection reads all authorities that there are, for 14 ms of
        CPU and more.
        """
        alone = {str(self.bundle.absolute()): str(self.certificate.absolute())}
        return {key: alone.get(value, value) for key, value in environment.items()}

    def _write_bundle(self) -> None:
        known = Path(certifi.where()).read_bytes()
        own = self._ca.cert_pem.bytes()
        write_whole(self.bundle, b"\n".join((known, own, self._others.read_bytes())))

    def context(self, *names: str) -> ssl.SSLContext:
        """What a server of ours speaks TLS with.

        Args:
            names: hosts and addresses beside `NAMES`.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._ca.issue_cert(*NAMES, *names).configure_cert(context)
        return context
