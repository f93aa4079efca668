"""What the rest of the channel needs of a device's identity; `identity` keeps it on the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from edgefleet.errors import ConfigurationError
from edgefleet_runtime.channels.pull.identity import DeviceIdentity, IdentityFolder

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from edgefleet.protocol.gateway import Identity


class Credentials(Protocol):
    """A device's key and certificate, and whom it believes. Any thread may ask."""

    @property
    def identity(self) -> Identity:
        """What the operator's side said of this device, last."""

    def context(self) -> ssl.SSLContext:
        """TLS settings: shows the certificate and believes the fleet's authorities alone.

        The same object until the certificate is another.
        """

    def renewal_due(self, now_s: float) -> bool:
        """Whether the certificate should be renewed now; ``now_s`` is in seconds since 1970."""

    def renewal(self) -> bytes:
        """A `Renewal` to send; the same until it was answered."""

    def renewed(self, answer: bytes) -> None:
        """Use what a gateway answered, from now on and after a power cut.

        Raises:
            DocumentError, IntegrityError: it is no certificate for this device's key.
        """

    def sign(self, data: bytes) -> bytes:
        """A signature over it by the device's key: ECDSA with SHA-256, DER."""


def credentials_in(folder: Path, device: str) -> Credentials:
    """The identity in a folder.

    Raises:
        ConfigurationError: there is none, it can't be used, or it is another device's.
    """
    own = IdentityFolder(folder).held().device
    if device != own:
        raise ConfigurationError(
            f"the device is called {device!r}, and its identity says {own!r}",
            cure="start the runtime without --device",
        )
    return DeviceIdentity(folder)
