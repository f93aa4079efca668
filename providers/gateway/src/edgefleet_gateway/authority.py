"""The fleet's own certificate authority: whose signature devices and gateways believe.

Rules kept here:

- A key never leaves its folder. What it has signed with is known from the profile's state store,
  where everybody finds the certificates to believe, the one that signs now first.
- Whoever publishes first makes the fleet's authority; a folder that holds another is refused.
- A key is on the disk for good before anything tells of it.
- A gateway shows a certificate of the oldest authority that is believed and that it has the key of:
  devices learn of a new one when they renew theirs, and some are away for months.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from edgefleet.errors import ConfigurationError, NotFoundError, UnavailableError
from edgefleet.protocol.documents import decode, encode
from edgefleet.protocol.files import replacing, translate_full
from edgefleet_gateway import certificates as made
from edgefleet_gateway.records import AuthorityRecord, Certificate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from edgefleet.interfaces.state import StateStore
    from edgefleet_gateway.records import Keys

SERVER_LASTS = timedelta(days=90)
KEPT_PINS = 4  # of gateways that serve with keys of their own
KEPT_AUTHORITIES = 4
KEPT_OTHERS = 4  # other authorities, of gateways that serve with certificates of theirs
KEPT_SERVERS = 8  # certificates of gateways with the same names
_SERVER_KEY = "server.key"


class Issued(NamedTuple):
    """A device's new certificate.

    Attributes:
        certificate: as records hold it.
        pem: itself.
    """

    certificate: Certificate
    pem: str


class ServerFiles(NamedTuple):
    """What a gateway serves with.

    Attributes:
        certificate: PEM.
        key: PEM, only for this user's eyes.
        ends: when the certificate ends.
        renew: from then on it should be made anew.
    """

    certificate: Path
    key: Path
    ends: datetime
    renew: datetime


class _Pair(NamedTuple):
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


class _Standing(NamedTuple):
    """What the state store and the folder say at one time."""

    record: AuthorityRecord
    believed: tuple[x509.Certificate, ...]
    held: dict[str, _Pair]  # by the key's fingerprint


class Authority:
    """Signs for a fleet; see `open_authority`. Threads may share it.

    Args:
        folder: with its keys.
        state: the profile's state store.
        keys: where the fleet's documents lie.
        fleet: its UUID.
        clock: tells the time.
    """

    def __init__(
        self,
        folder: Path,
        *,
        state: StateStore,
        keys: Keys,
        fleet: str,
        clock: Callable[[], datetime],
    ) -> None:
        self.fleet = fleet
        self._folder, self._state, self._keys, self._clock = folder, state, keys, clock
        self._standing = self._read()

    @property
    def believed(self) -> str:
        """Certificates of the authorities that devices' own are verified against, PEM."""
        return self._standing.record.certificates

    @property
    def gateways_by(self) -> str:
        """Certificates that devices verify gateways against, PEM; published ones among them."""
        return self._standing.record.certificates + self._standing.record.others

    @property
    def pins(self) -> tuple[str, ...]:
        """Base64 of the SHA-256 of the public keys that gateways serve with."""
        return self._standing.record.pins

    def reload(self) -> bool:
        """Take over what was rotated or published since; tells whether anything was.

        Raises:
            ConfigurationError: this folder lacks the key that signs now; the old one goes on here.
        """
        before, self._standing = self._standing, self._read()
        return before.record != self._standing.record

    def issue(self, device: str, key: made.DeviceKey, *, lasts: timedelta) -> Issued:
        """A new certificate for a device. It counts when the device's record names it.

        Raises:
            UnavailableError: this machine's clock is before the authority's beginning.
            ConfigurationError: the authority has ended.
        """
        signer, now = self._signer(), self._now()
        certificate = made.device_certificate(
            self.fleet,
            device,
            key,
            issuer=signer.certificate,
            signer=signer.key,
            begins=now,
            ends=min(now + lasts, signer.certificate.not_valid_after_utc),
        )
        entry = Certificate(
            serial=made.serial_of(certificate), ends=certificate.not_valid_after_utc
        )
        return Issued(certificate=entry, pem=made.pem_of(certificate))

    def serve(self, hosts: Sequence[str]) -> ServerFiles:
        """A new certificate for a gateway of this fleet, and the key, which stays the same.

        Args:
            hosts: names and addresses by which devices reach it.
        """
        now = self._now()
        key_file = self._folder / _SERVER_KEY
        standing = self._standing
        usable = [
            pair
            for one in standing.believed
            if (pair := standing.held.get(made.fingerprint(_public(one)))) is not None
            and one.not_valid_after_utc > now
        ]
        signer = usable[-1] if usable else self._signer()
        ends = min(now + SERVER_LASTS, signer.certificate.not_valid_after_utc)
        certificate = made.server_certificate(
            hosts,
            _read_key(key_file).public_key(),
            issuer=signer.certificate,
            signer=signer.key,
            begins=now,
            ends=ends,
        )
        mark = hashlib.sha256(" ".join(hosts).encode()).hexdigest()[:16]
        path = self._folder / f"server-{mark}-{made.serial_of(certificate)[:16]}.pem"
        _write_private(path, made.pem_of(certificate).encode())
        # Other gateways of these names may be about to read theirs.
        there = sorted(self._folder.glob(f"server-{mark}-*.pem"), key=_written)
        for older in there[:-KEPT_SERVERS]:
            older.unlink(missing_ok=True)
        return ServerFiles(path, key_file, ends, renew=now + (ends - now) * 2 / 3)

    def publish(self, *, pins: Sequence[str] = (), others: str = "") -> None:
        """Tell devices of a gateway that serves with a certificate that isn't of this authority.

        Args:
            pins: of its key, see `edgefleet_gateway.certificates.pin`; at first contact a device
                is led by them.
            others: certificates that it is verified against, PEM. None of them makes a device. The
                last few that were published count, for other gateways may serve with others.
        """

        def change(data: bytes | None) -> bytes:
            there = self._standing.record if data is None else decode(AuthorityRecord, data)
            return encode(
                msgspec.structs.replace(
                    there,
                    pins=tuple(dict.fromkeys((*pins, *there.pins)))[:KEPT_PINS],
                    others=made.gathered(others, there.others, most=KEPT_OTHERS),
                )
            )

        self._state.update(self._keys.authority, change)
        self.reload()

    def _signer(self) -> _Pair:
        first = self._standing.believed[0]
        now = self._clock()
        if now < first.not_valid_before_utc:
            raise UnavailableError(
                f"this machine's clock says {now:%Y-%m-%d}, before the fleet's authority was made",
                cure="set the clock of this gateway",
            )
        if now >= first.not_valid_after_utc:
            raise ConfigurationError(
                f"the fleet's authority ended on {first.not_valid_after_utc:%Y-%m-%d}",
                cure="set the clock if it is wrong, else: edgefleet gateway rotate-authority",
            )
        return self._standing.held[made.fingerprint(_public(first))]

    def _now(self) -> datetime:
        return self._clock().astimezone(UTC).replace(microsecond=0)

    def _read(self) -> _Standing:
        stored = self._state.read(self._keys.authority)
        if stored is None:
            raise ConfigurationError(
                "the document of the fleet's authority is gone from the state store",
                cure="restart this gateway: it publishes it again from its folder",
            )
        record, held = decode(AuthorityRecord, stored.data), _held(self._folder)
        believed = tuple(x509.load_pem_x509_certificates(record.certificates.encode()))
        _check_fit(self._folder, self.fleet, record, believed, held)
        return _Standing(record, believed, held)


def open_authority(
    folder: Path,
    *,
    state: StateStore,
    keys: Keys,
    fleet: str,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Authority:
    """The fleet's authority, made by whoever comes first.

    Args:
        folder: for its keys; made with access for this user alone.
        state: the profile's state store.
        keys: where the fleet's documents lie.
        fleet: its UUID.
        clock: tells the time.

    Raises:
        ConfigurationError: the folder lacks the key of the fleet's authority, or holds that of
            another fleet, or others may read it.
    """
    with _locked(folder):
        _ensure_server_key(folder)
        if state.read(keys.authority) is None:
            _found(folder, state, keys, fleet, clock())
        authority = Authority(folder, state=state, keys=keys, fleet=fleet, clock=clock)
        own = made.pin(_read_key(folder / _SERVER_KEY).public_key())
        if own not in authority.pins:
            authority.publish(pins=(own,))
        return authority


def rotate_authority(
    folder: Path,
    *,
    state: StateStore,
    keys: Keys,
    fleet: str,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    keep: bool = True,
) -> Authority:
    """Have a new authority sign from now on.

    Ring the bell for ``authority`` afterwards, and copy the folder to the other gateways.

    Args:
        folder: as for `open_authority`. It may lack the key of the one before.
        state: likewise.
        keys: likewise.
        fleet: likewise.
        clock: likewise.
        keep: go on believing the ones before, so that nothing changes for devices. Without it
            every device has to be enrolled anew: for a key that somebody else may have.
    """
    with _locked(folder):
        if not keep:
            (folder / _SERVER_KEY).unlink(missing_ok=True)
        _ensure_server_key(folder)
        fresh = _made_pair(folder, fleet, clock())

        def change(data: bytes | None) -> bytes:
            text = made.pem_of(fresh.certificate)
            if data is None or not keep:
                return encode(AuthorityRecord(certificates=text, home=_home(folder)))
            there = decode(AuthorityRecord, data)
            older = x509.load_pem_x509_certificates(there.certificates.encode())
            text += made.pem_of(*older[: KEPT_AUTHORITIES - 1])
            return encode(msgspec.structs.replace(there, certificates=text, home=_home(folder)))

        state.update(keys.authority, change)
    return open_authority(folder, state=state, keys=keys, fleet=fleet, clock=clock)


def fleet_in(state: StateStore, keys: Keys) -> str:
    """UUID of the fleet whose authority the state store has.

    Raises:
        NotFoundError: it has none.
    """
    stored = state.read(keys.authority)
    fleet = None
    if stored is not None:
        certificates = decode(AuthorityRecord, stored.data).certificates
        fleet = made.fleet_of(x509.load_pem_x509_certificate(certificates.encode()))
    if fleet is None:
        raise NotFoundError(
            "this fleet has no authority yet",
            cure="start its gateway, which makes one: edgefleet gateway serve",
        )
    return fleet


def _found(folder: Path, state: StateStore, keys: Keys, fleet: str, now: datetime) -> None:
    """Publish the folder's authority, or a new one, unless somebody else is first."""
    there = sorted(
        (pair.certificate for pair in _held(folder).values()),
        key=lambda one: one.not_valid_before_utc,
        reverse=True,
    )
    for one in there:
        if made.fleet_of(one) != fleet:
            raise _of_another_fleet(folder, made.fleet_of(one), fleet)
    certificates = there or [_made_pair(folder, fleet, now).certificate]
    record = AuthorityRecord(certificates=made.pem_of(*certificates), home=_home(folder))
    published = state.update(keys.authority, lambda data: encode(record) if data is None else data)
    if not there and decode(AuthorityRecord, published) != record:
        for path in _files(folder, certificates[0]):
            path.unlink(missing_ok=True)  # it has signed nothing, and nobody knows of it


def _check_fit(
    folder: Path,
    fleet: str,
    record: AuthorityRecord,
    believed: Sequence[x509.Certificate],
    held: dict[str, _Pair],
) -> None:
    if not believed or made.fleet_of(believed[0]) != fleet:
        whose = made.fleet_of(believed[0]) if believed else None
        raise _of_another_fleet(folder, whose, fleet)
    if made.fingerprint(_public(believed[0])) not in held:
        raise ConfigurationError(
            f"the folder {folder} lacks the key of this fleet's authority",
            cure=f"copy the files of {record.home or 'the first gateway'} here, readable by this "
            "user alone; if they are lost: edgefleet gateway rotate-authority",
        )


def _of_another_fleet(folder: Path, whose: str | None, fleet: str) -> ConfigurationError:
    return ConfigurationError(
        f"the authority in {folder} is of the fleet {whose}, the profile's state is of {fleet}",
        cure="set `authority` in the profile to a folder of this fleet's own",
    )


def _made_pair(folder: Path, fleet: str, now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = made.authority_certificate(fleet, key, now.astimezone(UTC).replace(microsecond=0))
    certificate_file, key_file = _files(folder, certificate)
    _write_private(key_file, _key_bytes(key))
    _write_private(certificate_file, made.pem_of(certificate).encode())
    return _Pair(certificate, key)


def _held(folder: Path) -> dict[str, _Pair]:
    """The authorities whose keys lie in a folder, by fingerprint."""
    found = {}
    for path in sorted(folder.glob("authority-*.pem")):
        key_file = path.with_suffix(".key")
        if key_file.exists():
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
            pair = _Pair(certificate, _read_key(key_file))
            found[made.fingerprint(pair.key.public_key())] = pair
    return found


def _files(folder: Path, certificate: x509.Certificate) -> tuple[Path, Path]:
    """Files of an authority: its certificate, its key."""
    mark = made.fingerprint(_public(certificate))[:16]
    return folder / f"authority-{mark}.pem", folder / f"authority-{mark}.key"


def _public(authority: x509.Certificate) -> ec.EllipticCurvePublicKey:
    key = authority.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)  # noqa: S101 - only such are made
    return key


def _ensure_server_key(folder: Path) -> None:
    if not (folder / _SERVER_KEY).exists():
        _write_private(folder / _SERVER_KEY, _key_bytes(ec.generate_private_key(ec.SECP256R1())))


def _key_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    with path.open("rb") as stream:
        mode = os.fstat(stream.fileno()).st_mode & 0o777
        data = stream.read()
    if mode & 0o027:  # a group may read it, as a mounted secret has it, and nobody else
        raise ConfigurationError(
            f"others may read the key {path}, or change it",
            cure=f"chmod 600 '{path}', and rotate the authority if somebody else was there",
        )
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"{path} is no key", cure="restore the folder from its backup"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigurationError(
            f"{path} is a key of another kind", cure="restore the folder from its backup"
        )
    return key


def _write_private(path: Path, data: bytes) -> None:
    """Write a file for this user alone; on the disk for good when this returns."""
    with replacing(path) as partial:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    handle = os.open(path.parent, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder, made if need be; processes on this machine take turns."""
    try:
        with translate_full(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except PermissionError as error:
        raise ConfigurationError(
            f"the folder {folder} of the fleet's authority can't be written",
            cure="give it to the user that gateways run as, or set `authority` in the profile",
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _written(path: Path) -> int:
    """When a file was written, in ns; 0 for one that another gateway deleted meanwhile."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _home(folder: Path) -> str:
    """Where others find a folder."""
    return f"{socket.gethostname()}:{folder}"[:1000]
