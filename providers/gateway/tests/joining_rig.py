"""A fleet's state in a folder, its authority, and devices that ask to join, on one clock."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from edgefleet.protocol.documents import decode, encode
from edgefleet.protocol.gateway import Enrolment, Identity, Renewal
from edgefleet_gateway.authority import open_authority, rotate_authority
from edgefleet_gateway.joining import Joining
from edgefleet_gateway.records import DeviceRecord, Keys, TokenRecord
from edgefleet_gateway.roster import Roster
from edgefleet_gateway.settings import GatewaySettings
from edgefleet_local.state import DirectoryStateStore

FLEET = "6f1d6c70-55a4-4f21-9e0e-0a4f5f3c2b11"
START = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Given(NamedTuple):
    """What a certificate says that a device was given."""

    device: str
    serial: str
    ends: datetime


class Machine:
    """Something that makes a key and asks to be a device."""

    def __init__(self, *, called: str = "whatever") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.called = called

    def request(self) -> str:
        """A request for a certificate; its subject is what the machine calls itself."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.called)])
        built = x509.CertificateSigningRequestBuilder().subject_name(name)
        return built.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()

    def enrolment(self, token: str, **labels: str) -> Enrolment:
        """What it sends to join."""
        return Enrolment(token=token, request=self.request(), labels=labels)

    def renewal(self) -> Renewal:
        """What it sends to go on."""
        return Renewal(request=self.request())


class Rig:
    """One gateway's part in joining; the test moves the clock."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder, self.now = folder, START
        self.state = DirectoryStateStore(folder / "fleet")
        self.settings = GatewaySettings.model_validate(settings)
        self.keys = Keys(self.settings.prefix)
        self.roster = Roster(lambda: self.state, self.keys, clock=self.clock)
        self.authority = open_authority(
            folder / "authority", state=self.state, keys=self.keys, fleet=FLEET, clock=self.clock
        )
        self.joining = Joining(
            self.authority,
            roster=self.roster,
            state=self.state,
            keys=self.keys,
            settings=self.settings,
            clock=self.clock,
        )

    def clock(self) -> datetime:
        """The time, as every part of the gateway has it."""
        return self.now

    def rotate(self, *, keep: bool = True) -> None:
        """Have a new authority sign from now on, and tell gateways."""
        folder = self.folder / "authority"
        rotate_authority(
            folder, state=self.state, keys=self.keys, fleet=FLEET, clock=self.clock, keep=keep
        )
        self.roster.ring("authority")

    def invite(
        self,
        device: str,
        *,
        token: str = "",
        lasts: timedelta = timedelta(hours=1),
        group: str = "line",
    ) -> str:
        """Put an invitation into the state, as operators do; gives the token."""
        token = token or f"token-of-{device}-{'x' * 20}"
        digest = hashlib.sha256(token.encode()).hexdigest()
        self.roster.enroll(device, group, {})
        ticket = TokenRecord(device=device, ends=self.now + lasts)
        self.state.update(self.keys.token(digest), lambda _: encode(ticket))
        self.roster.change(
            device, lambda there: msgspec.structs.replace(there, token=digest, invited=True)
        )
        return token

    def join(self, device: str, machine: Machine | None = None) -> Given:
        """Enrol a machine; gives what its certificate says."""
        return self.said(self.joining.enroll((machine or Machine()).enrolment(self.invite(device))))

    def said(self, identity: Identity) -> Given:
        """What the certificate of an identity says."""
        certificate = x509.load_pem_x509_certificate(identity.certificate.encode())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (urn,) = names.get_values_for_type(x509.UniformResourceIdentifier)
        fleet, _, device = urn.removeprefix("urn:edgefleet:").partition(":device:")
        assert fleet == FLEET
        return Given(device, f"{certificate.serial_number:x}", certificate.not_valid_after_utc)

    def renew(self, device: Given, machine: Machine | None = None) -> Given:
        """Renew with what was given."""
        asked = (machine or Machine()).renewal()
        return self.said(self.joining.renew(device.device, device.serial, asked))

    def record(self, device: str) -> DeviceRecord:
        """The device's record."""
        stored = self.state.read(self.keys.device(device))
        assert stored is not None
        return decode(DeviceRecord, stored.data)

    def counts(self, device: Given) -> bool:
        """Whether a certificate speaks for its device."""
        return self.record(device.device).allows(device.serial)
