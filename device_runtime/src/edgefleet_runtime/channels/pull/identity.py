"""Who this device is: its key, its certificate, and whom it believes, in one folder.

Rules kept here:

- A key is made on the device and never leaves the folder; nobody but this user may read it.
- ``identity.json`` names the file with the key and certificate in use. It is replaced at last and
  in one step: after a power cut the device is who it was or who it has become, never nobody.
- A key that was asked a certificate for stays until an answer came, for one may be lost.
- Whoever else changes the folder, such as ``edgefleet-runtime enroll``, is noticed.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from edgefleet.errors import (
    ConfigurationError,
    EdgeFleetError,
    IntegrityError,
    MissingExtraError,
)
from edgefleet.protocol.documents import decode, encode
from edgefleet.protocol.files import read_small
from edgefleet.protocol.gateway import Identity, Renewal
from edgefleet.protocol.pointer import Timestamp
from edgefleet_runtime.store.durable import sync_folder, write_durably

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOLDER = "identity"
"""Below a runtime's root, where ``enroll`` puts it."""
_FILE = "identity.json"
_PENDING = "pending.key"
_MAX_BYTES = 256 << 10
_log = logging.getLogger(__name__)


class Kept(Identity, frozen=True, kw_only=True):
    """An identity as it lies in its folder, with what is needed of its certificate.

    Attributes:
        serial: the certificate's, in hexadecimal; its file is named by it.
        begins: when it begins.
        ends: when it ends.
        token: SHA-256 of the token that the device was enrolled by, in hexadecimal.
    """

    serial: str
    begins: Timestamp
    ends: Timestamp
    token: str = ""


class _Loaded(NamedTuple):
    kept: Kept
    mark: tuple[int, int, int]
    context: ssl.SSLContext


class IdentityFolder:
    """The files of an identity, there or not yet.

    Args:
        folder: made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def kept(self) -> Kept | None:
        """The identity; None before there is one.

        Raises:
            ConfigurationError: it can't be read.
        """
        try:
            return decode(Kept, read_small(self.folder / _FILE, _MAX_BYTES))
        except FileNotFoundError:
            return None
        except (OSError, EdgeFleetError) as error:
            raise ConfigurationError(
                f"the identity in {self.folder} can't be read: {error}",
                cure="let this user read it, or enrol the device again",
            ) from error

    def held(self) -> Kept:
        """The identity.

        Raises:
            ConfigurationError: there is none, or it can't be read.
        """
        kept = self.kept()
        if kept is None:
            raise ConfigurationError(
                f"there is no identity in {self.folder}",
                cure="enrol the device: paste what `edgefleet device enroll NAME` prints",
            )
        return kept

    def readable(self) -> Kept | None:
        """The identity; None before there is one, and for one that is broken."""
        try:
            return self.kept()
        except ConfigurationError as error:
            _log.warning("%s", error.message)
            return None

    def mark(self) -> tuple[int, int, int]:
        """Tells one content of the folder from another.

        Raises:
            OSError: there is none.
        """
        found = (self.folder / _FILE).stat()
        return (found.st_ino, found.st_mtime_ns, found.st_size)

    def key_file(self, kept: Kept) -> Path:
        """Key and certificates, PEM."""
        return self.folder / f"{kept.serial}.pem"

    def context(self, kept: Kept) -> ssl.SSLContext:
        """TLS settings of an identity: shows its certificate, believes its authorities alone.

        Raises:
            OSError: a file can't be read, or holds what TLS doesn't take.
            ValueError: the authorities are none.
        """
        if not kept.authorities.isascii():  # which ssl answers with a TypeError
            msg = "the authorities are no PEM"
            raise ValueError(msg)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # The fleet says whom to believe; that may be one that another authority has signed.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=kept.authorities)
        context.load_cert_chain(self.key_file(kept))
        return context

    def request(self) -> str:
        """A request for a certificate of a new key, which is the same until an answer came; PEM.

        Raises:
            ConfigurationError: the folder can't be written.
            StorageFullError: there is no room for a key.
        """
        with pull_extra():
            from edgefleet_runtime.channels.pull import keys  # noqa: PLC0415
        with self._locked():
            path = self.folder / _PENDING
            if path.exists():
                try:
                    return keys.request_for(path.read_bytes())
                except IntegrityError as error:  # with it, what was asked for by it is lost
                    _log.warning("%s: %s; another is made", path, error.message)
            key = keys.new_key()
            write_durably(path, key, private=True)
            return keys.request_for(key)

    def take(self, identity: Identity, *, token: str = "", of: Identity | None = None) -> Kept:
        """Be what a gateway answered, from now on and after a power cut.

        Args:
            identity: the answer.
            token: for an enrolment: SHA-256 of its token.
            of: for a renewal: who asked.

        Raises:
            IntegrityError: it isn't for a key of this device, can't be used, or renews another one
                than the folder is of.
            ConfigurationError: the folder can't be used.
            StorageFullError: there is no room; who the device was, it still is.
        """
        with pull_extra():
            from edgefleet_runtime.channels.pull import keys  # noqa: PLC0415
        with self._locked():
            before = self.readable()
            if of is not None:
                _check_same(identity, of)
                _check_same(identity, before or of)
            candidates = [self.folder / _PENDING]
            if before is not None:
                candidates.append(self.key_file(before))
            found = [path.read_bytes() for path in candidates if path.exists()]
            granted = keys.granted(identity, found)
            kept = Kept(
                **{name: getattr(identity, name) for name in Identity.__struct_fields__},
                serial=granted.serial,
                begins=granted.begins,
                ends=granted.ends,
                token=token or (before.token if before is not None else ""),
            )
            pair, place = granted.key + identity.certificate.encode(), self.key_file(kept)
            there = place.read_bytes() if place.exists() else None
            write_durably(place, pair, private=True)
            try:
                self.context(kept)
            except (OSError, ValueError) as error:
                if there is None:
                    place.unlink()
                else:  # it may be what this device shows now
                    write_durably(place, there, private=True)
                raise IntegrityError(
                    f"what the gateway answered can't be used: {error}",
                    cure="have the gateway's authority looked at; this device is who it was",
                ) from error
            write_durably(self.folder / _FILE, encode(kept), private=True)
            pending = self.folder / _PENDING
            if pending.exists() and pending.read_bytes() == granted.key:
                pending.unlink()
            stays = {self.key_file(one) for one in (kept, before) if one is not None}
            for path in self.folder.glob("*.pem"):
                if path not in stays:
                    path.unlink(missing_ok=True)
            sync_folder(self.folder)
        return kept

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the folder, made if need be; processes and threads take turns."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield
            finally:
                os.close(handle)
        except EdgeFleetError:  # of which some are the system's errors, too
            raise
        except OSError as error:
            raise ConfigurationError(
                f"the folder {self.folder} can't be used: {error.strerror}",
                cure="run this as the user that the runtime runs as, or name another --root",
            ) from error


class DeviceIdentity:
    """A device's identity in use. Any thread may ask.

    Args:
        folder: as ``edgefleet-runtime enroll`` made it.

    Raises:
        ConfigurationError: there is none, or it can't be read.
    """

    def __init__(self, folder: Path) -> None:
        self._files = IdentityFolder(folder)
        self._loaded = self._load()

    @property
    def identity(self) -> Identity:
        """What the fleet said of this device, last."""
        return self._now().kept

    def context(self) -> ssl.SSLContext:
        """TLS settings: shows the certificate and believes the fleet's authorities alone.

        The same object until the certificate is another.
        """
        return self._now().context

    def renewal_due(self, now_s: float) -> bool:
        """Whether less than a third of the certificate's time is left.

        Args:
            now_s: seconds since 1970; by the gateway's clock, where this device's is wrong.
        """
        kept = self._now().kept
        begins, ends = kept.begins.timestamp(), kept.ends.timestamp()
        return now_s >= ends - (ends - begins) / 3

    def renewal(self) -> bytes:
        """A `Renewal` for a new key, which is the same until it was answered."""
        return encode(Renewal(request=self._files.request()))

    def renewed(self, answer: bytes) -> None:
        """Use what a gateway answered, from now on and after a power cut.

        Raises:
            DocumentError: it is no identity.
            IntegrityError: it is another device's, or for a key that isn't this one's.
        """
        self._files.take(decode(Identity, answer), of=self._now().kept)
        self._loaded = self._load()

    def sign(self, data: bytes) -> bytes:
        """A signature over it by the device's key: ECDSA with SHA-256, DER."""
        with pull_extra():
            from edgefleet_runtime.channels.pull import keys  # noqa: PLC0415
        return keys.signature(self._files.key_file(self._now().kept).read_bytes(), data)

    def _now(self) -> _Loaded:
        """What the folder holds; where it can't be read any more, what it held."""
        loaded = self._loaded
        try:
            if self._files.mark() != loaded.mark:
                found = self._load()
                if found.kept.device != loaded.kept.device:
                    _log.warning("the identity became %s: restart the runtime", found.kept.device)
                    found = _Loaded(loaded.kept, found.mark, loaded.context)
                self._loaded = loaded = found
        except (OSError, EdgeFleetError) as error:
            _log.debug("the identity can't be read again: %s", error)
        return loaded

    def _load(self) -> _Loaded:
        kept = self._files.held()
        try:
            context = self._files.context(kept)
            mark = self._files.mark()
        except (OSError, ValueError) as error:  # of which ssl's errors are
            if self._files.kept() != kept:
                return self._load()  # somebody replaced it meanwhile
            raise ConfigurationError(
                f"the identity in {self._files.folder} can't be used: {error}",
                cure="let this user read it, or enrol the device again",
            ) from error
        return _Loaded(kept, mark, context) if self._files.kept() == kept else self._load()


def _check_same(found: Identity, held: Identity) -> None:
    if (found.device, found.fleet) != (held.device, held.fleet):
        raise IntegrityError(
            f"the gateway answered as to {found.device} of the fleet {found.fleet}, and this is "
            f"{held.device}",
            cure="enrol the device again, if it should be that one; restart the runtime, if it "
            "was enrolled as another",
        )


def token_mark(token: str) -> str:
    """What is kept of a token: enough to know it again, nothing to use it by."""
    return hashlib.sha256(token.encode()).hexdigest()


@contextmanager
def pull_extra() -> Iterator[None]:
    """For imports of what comes with the extra ``pull``.

    Raises:
        MissingExtraError: cryptography is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(
            f"a device's key needs what isn't installed here: {error}",
            cure="pip install 'edgefleet-runtime[pull]'",
        ) from error
