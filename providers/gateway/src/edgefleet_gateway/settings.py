"""Settings of the gateway provider. Imports no server: naming a provider must cost nothing."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from edgefleet.plugins.provider import ProviderSettings
from edgefleet_gateway.sinks.settings import AnySettings


class GatewaySettings(ProviderSettings):
    """What ``[profiles.<name>.gateway]`` may hold.

    Operators and gateways of one fleet use the same profile: pointers, devices and requests lie in
    its state store, blobs in its registry, what devices recorded in its telemetry.

    Attributes:
        prefix: below this in the state store, everything of this deployer lies.
        addresses: where devices reach gateways of this fleet, the preferred first, such as
            ``https://gateway.example:8443``. Devices learn of new ones when they renew their
            certificates.
        authority: folder with the key of the fleet's own certificate authority; relative to the
            profile's file. Only gateways need the key; back it up, and let nobody read it.
        device_days: days that a device's certificate lasts. It is renewed when a third is left.
        renew_days: days after its end during which a device may still renew its certificate, so
            that one that was off for months comes back by itself. Revoke a lost device.
        look_s: seconds between two looks of a gateway at the state store, so the longest that a
            pointer, a revocation or a request takes to reach it. Each look is one small read.
        longest_wait_s: longest that a gateway lets devices wait for news on an open connection; 0
            answers at once.
        poll_s: seconds between two polls of a device that may not wait.
        redirects: addresses below which blobs lie that devices are sent to instead, such as a CDN;
            a blob is only asked for by its digest and checked, so they need no secret.
        sinks: where gateways forward the events that they receive, beside telemetry.
    """

    addresses: tuple[str, ...] = ("https://localhost:8443",)
    authority: Path = Path(".edgefleet/authority")
    device_days: int = Field(default=90, ge=1, le=3650)
    renew_days: int = Field(default=365, ge=0, le=3650)
    look_s: float = Field(default=1.0, ge=0.02, le=60)
    longest_wait_s: float = Field(default=50.0, ge=0, le=55)
    poll_s: float = Field(default=60.0, ge=0.05, le=86_400)
    redirects: tuple[str, ...] = ()
    sinks: tuple[AnySettings, ...] = ()

    @field_validator("addresses")
    @classmethod
    def _are_gateways(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        for address in addresses:
            parts = urlsplit(address)
            plain = not (parts.path.strip("/") or parts.query or parts.fragment)
            if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc or not plain:
                raise ValueError(f"{address!r} is no gateway: write https://HOST:PORT")
        if not 1 <= len(addresses) <= 8:
            raise ValueError("there are between one and eight addresses")
        return tuple(address.rstrip("/") for address in addresses)

    @field_validator("sinks")
    @classmethod
    def _have_names(cls, sinks: tuple[AnySettings, ...]) -> tuple[AnySettings, ...]:
        if len({sink.name for sink in sinks}) < len(sinks):
            raise ValueError("two sinks have the same name: it is that of their outbox")
        return sinks

    @field_validator("redirects")
    @classmethod
    def _are_addresses(cls, redirects: tuple[str, ...]) -> tuple[str, ...]:
        for address in redirects:
            parts = urlsplit(address)
            if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc or parts.query:
                raise ValueError(f"{address!r} is no place of blobs: write https://HOST/PATH")
        return tuple(address.rstrip("/") for address in redirects)

    def authority_in(self, base: Path) -> Path:
        """The authority's folder; ``base`` is where a relative one starts."""
        return (base / self.authority.expanduser()).absolute()

    @property
    def device_lasts(self) -> timedelta:
        """How long a device's certificate lasts."""
        return timedelta(days=self.device_days)
