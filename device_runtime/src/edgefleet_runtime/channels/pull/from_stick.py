"""A device that is reached by a stick which somebody carries: it comes, and goes at any moment.

The layout is that of `edgefleet.protocol.stick`. Rules kept here:

- A pointer is taken by the devices that the stick names beside it. Who was never enrolled goes by
  the pointer alone.
- Nothing is written where no ``edgefleet/`` is: an empty mount point is the device's own disk.
- Nor is anything where another fleet's pointer lies: what is on a stick counts as sent, and who
  carries that one brings it to operators who can't take it.
- A file is whole before its name is there, and its receipt comes last: an older one goes before.
- A stick is anybody's: links on it are not followed, and only plain files are read.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
import uuid
from contextlib import contextmanager, suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Self

from edgefleet.errors import (
    AccessDeniedError,
    ConfigurationError,
    EdgeFleetError,
    IntegrityError,
    InvalidInputError,
    UnavailableError,
)
from edgefleet.protocol.digest import blob_path
from edgefleet.protocol.documents import decode, encode
from edgefleet.protocol.files import open_plain, translate_full
from edgefleet.protocol.names import check_name, check_path
from edgefleet.protocol.pointer import MAX_BYTES, read_pointer
from edgefleet.protocol.report import AccessReport
from edgefleet.protocol.stick import (
    FILES,
    FOLDER,
    HOT,
    MAX_MEMBERS_BYTES,
    MEMBERS,
    POINTER,
    RECEIPT_SUFFIX,
    RECEIPTS,
    REPORT,
    Members,
    Receipt,
    SignedReceipt,
    members_path,
    signed_bytes,
)
from edgefleet_runtime.channels.base import Channel
from edgefleet_runtime.channels.pull.credentials import credentials_in
from edgefleet_runtime.channels.pull.hot import batch_of
from edgefleet_runtime.channels.pull.settings import read_settings
from edgefleet_runtime.channels.watched import WatchedFiles
from edgefleet_runtime.store.folder import FolderSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from edgefleet.protocol.event import Event
    from edgefleet_runtime.channels.pull.credentials import Credentials
    from edgefleet_runtime.store.sources import BlobStream, Source

INTERVAL_S = 1.0  # between two looks whether a stick came
CHUNK_BYTES = 256 << 10
_log = logging.getLogger(__name__)


class StickChannel(Channel):
    """One device's dealings with sticks.

    Args:
        device: its name.
        mount: folder that sticks are mounted at; it may be missing.
        credentials: whose key signs receipts; None leaves them unsigned, and takes any release.
        interval_s: seconds between two looks.
        now_ns: nanoseconds since 1970.
    """

    def __init__(
        self,
        device: str,
        mount: Path,
        credentials: Credentials | None = None,
        *,
        interval_s: float = INTERVAL_S,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._device = check_name("device", device)
        self._mount, self._root = mount, mount / FOLDER
        self._own = self._root / RECEIPTS / device
        self._credentials = credentials
        self._now_ns = now_ns
        self._watched = (self._root, self._root / POINTER, self._root / MEMBERS)
        self._files = WatchedFiles(*self._watched, interval_s=interval_s)
        self._foreign: str | None = None

    @classmethod
    def from_options(cls, options: Mapping[str, str], *, device: str) -> Self:
        settings = read_settings(options)
        if settings.media is None:
            raise ConfigurationError("no mount point is named", cure="give -o media=DIR")
        credentials = None
        if settings.identity is not None:
            credentials = credentials_in(settings.identity, device)
        return cls(device, settings.media, credentials)

    # ------------------------------------------------------------------------------------- coming

    def pointer(self) -> bytes | None:
        for path in self._watched:
            self._files.mark(path)
        before, self._foreign = self._foreign, None
        data = self._read(POINTER, MAX_BYTES)
        if data is None or self._credentials is None:
            return data
        self._foreign = self._why_foreign(data)
        if self._foreign not in (None, before):
            _log.warning("the stick at %s is not taken: %s", self._mount, self._foreign)
        return data if self._foreign is None else None

    def _why_foreign(self, pointer: bytes) -> str | None:
        """Why a pointer isn't for this device; None where it is."""
        other = self._other_fleet(pointer)
        if other is not None:
            return f"the stick is for another fleet, {other}"
        try:
            data = self._read(members_path(pointer), MAX_MEMBERS_BYTES)
            if data is None:
                return "the stick doesn't say whose its release is"
            members = decode(Members, data, max_bytes=MAX_MEMBERS_BYTES)
        except EdgeFleetError as error:
            return error.message
        if self._device in members.devices:
            return None
        return f"the stick is for the group {members.group}, which {self._device} is not in"

    def _other_fleet(self, pointer: bytes) -> str | None:
        """Whose fleet's pointer it is; None where the device's own, or nobody can tell."""
        if self._credentials is None:
            return None
        try:
            fleet = read_pointer(pointer).fleet
        except EdgeFleetError:
            return None  # who takes it says what is wrong with it
        return None if fleet == self._credentials.identity.fleet else fleet

    def _read(self, name: str, max_bytes: int) -> bytes | None:
        """A plain file's bytes, cut one above ``max_bytes``; None where there is none."""
        try:
            with open_plain(self._root / name) as stream:
                return stream.read(max_bytes + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, InvalidInputError) as error:
            said = error.message if isinstance(error, EdgeFleetError) else error.strerror
            raise UnavailableError(
                f"{name} on the stick can't be read: {said}", cure="export the group to it again"
            ) from error

    def access(self) -> AccessReport:
        self._files.mark(self._root)
        try:
            self._check_there()
        except UnavailableError as error:
            return AccessReport(state="unknown", detail=error.message)
        if self._foreign is not None:
            return AccessReport(
                state="denied",
                detail=f"{self._foreign}; put in another, or export the device's group to it again",
            )
        if not os.access(self._root, os.W_OK | os.X_OK):
            return AccessReport(
                state="ok", detail="the stick can't be written: what the device has to say waits"
            )
        return AccessReport(state="ok")

    def wait(self, timeout_s: float) -> bool:
        return self._files.wait(timeout_s)

    def wake(self) -> None:
        self._files.wake()

    def addresses(self) -> tuple[str, ...]:
        return (self._root.as_uri(),)

    def source(self, address: str) -> Source | None:
        return _StickSource(self._root) if address == self._root.as_uri() else None

    # -------------------------------------------------------------------------------------- going

    def send_report(self, report: bytes) -> None:
        self._keep(REPORT, [report])

    def send_hot(self, events: Sequence[Event]) -> None:
        name = f"{HOT}/{self._now_ns():020d}-{uuid.uuid4().hex[:8]}.json"
        self._keep(name, [batch_of([encode(event) for event in events])])

    def upload(self, name: str, path: Path) -> None:
        below = check_path(name, what="segment name")
        with self.opened(path) as stream:
            self._keep(f"{FILES}/{below}", iter(lambda: stream.read(CHUNK_BYTES), b""))

    def close(self) -> None:
        self.wake()

    def _keep(self, path: str, content: Iterable[bytes]) -> None:
        """Write a file and its receipt."""
        with self._writing():
            self._check_there()
            self._check_fleet()
            target = self._own / path
            _make_folders(self._root, target.parent)
            seal = target.with_name(target.name + RECEIPT_SUFFIX)
            digest, size = _replace(target, content, outdated=seal)
            keys = self._credentials
            receipt = encode(
                Receipt(
                    device=self._device,
                    path=path,
                    digest=digest,
                    size=size,
                    fleet=None if keys is None else keys.identity.fleet,
                )
            )
            signed = encode(self._signed(receipt))
            _replace(seal, [signed])

    def _signed(self, receipt: bytes) -> SignedReceipt:
        if self._credentials is None:
            return SignedReceipt(receipt=receipt)
        return SignedReceipt(
            receipt=receipt,
            signature=self._credentials.sign(signed_bytes(receipt)),
            certificate=self._credentials.identity.certificate,
        )

    def _check_there(self) -> None:
        try:
            there = stat.S_ISDIR(self._root.lstat().st_mode)
        except OSError:
            there = False
        if not there:
            raise UnavailableError(
                f"there is no stick at {self._mount}", cure="put in one that a group is exported to"
            )

    def _check_fleet(self) -> None:
        pointer: bytes | None = None
        with suppress(UnavailableError):
            pointer = self._read(POINTER, MAX_BYTES)
        other = None if pointer is None else self._other_fleet(pointer)
        if other is not None:
            raise AccessDeniedError(
                f"the stick at {self._mount} is for another fleet, {other}",
                cure="put in one of this device's own: what it has to say waits",
            )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except EdgeFleetError:
            raise
        except OSError as error:
            self._check_there()  # it was pulled out, or ends
            raise UnavailableError(
                f"the stick at {self._mount} can't be written: {error.strerror or error}",
                cure="let the device write it: it may be locked, or mounted read-only",
            ) from error


class _StickSource(FolderSource):
    """Blobs of a stick: plain files alone."""

    def __init__(self, root: Path) -> None:
        super().__init__(root.as_uri())
        self._folder = root

    def open(self, digest: str, offset: int) -> BlobStream:
        path = self._folder / blob_path(digest)
        with suppress(OSError):
            if not stat.S_ISREG(path.lstat().st_mode):
                raise IntegrityError(f"{path} is no plain file")
        return super().open(digest, offset)


def _make_folders(root: Path, folder: Path) -> None:
    """Make folders below a root, through no link."""
    at = root
    for part in folder.relative_to(root).parts:
        at /= part
        with suppress(FileExistsError):
            at.mkdir()
        if not stat.S_ISDIR(at.lstat().st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "a link or file is where a folder belongs", at)


def _replace(
    target: Path, content: Iterable[bytes], *, outdated: Path | None = None
) -> tuple[str, int]:
    """Write a file whole, by a rename; returns its digest and size in bytes.

    Args:
        target: the file.
        content: its bytes, in parts.
        outdated: removed just before the file is there.
    """
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)  # what somebody left there may be a link
    hasher, size = sha256(), 0
    with translate_full(target):
        try:
            with partial.open("xb") as stream:
                for data in content:
                    stream.write(data)
                    hasher.update(data)
                    size += len(data)
                stream.flush()
                os.fsync(stream.fileno())
            if outdated is not None:
                outdated.unlink(missing_ok=True)
            partial.replace(target)
        except (OSError, EdgeFleetError):
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
    with suppress(OSError):  # file systems in user space can't flush a folder
        handle = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    return f"sha256:{hasher.hexdigest()}", size
