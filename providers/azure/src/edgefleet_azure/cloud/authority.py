"""A certificate authority of the mock's own, thrown away with the mock's folder.

Nobody trusts it but those who are given its bundle.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import certifi
import trustme

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("localhost", "127.0.0.1")


class Authority:
    """Makes certificates; the same authority again where its folder is there already.

    Args:
        folder: for its files; no one else on this machine may read them.

    Attributes:
        certificate: file with the authority's certificate.
        bundle: file with it and every authority that machines trust, for the variables that
            Azure's libraries read.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.certificate, self.bundle = folder / "ca.pem", folder / "bundle.pem"
        self._key = folder / "ca-key.pem"
        if self._key.exists() and self.certificate.exists():
            self._ca = trustme.CA.from_pem(self.certificate.read_bytes(), self._key.read_bytes())
        else:
            self._ca = trustme.CA(organization_name="EdgeFleet mock of Azure")
            self._key.touch(mode=0o600)
            self._ca.private_key_pem.write_to_path(self._key)
            self._ca.cert_pem.write_to_path(self.certificate)
        with open(certifi.where(), "rb") as known:  # noqa: PTH123 - it gives a string
            self.bundle.write_bytes(known.read() + b"\n" + self._ca.cert_pem.bytes())

    def context(self, *names: str) -> ssl.SSLContext:
        """What a server of ours speaks TLS with.

        Args:
            names: hosts and addresses beside `NAMES`.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._ca.issue_cert(*NAMES, *names).configure_cert(context)
        return context
