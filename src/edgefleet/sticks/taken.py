"""Take what devices wrote on a stick: report, hot events, segments and samples.

Rules kept here:

- A file counts by its receipt, which the device's key signed, and by the digest in it. What is
  checked is a copy: a stick may give other bytes when it is read again.
- Whose a file is, is said by the signature; by the folder alone it is nobody's.
- What is refused is put below ``refused/`` on the stick, and told: nothing is passed over.
- A file goes from the stick when what it holds is kept. The same again changes nothing.
- A stick that was written for another fleet is left as it is: its own operators take it.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from edgefleet.errors import (
    AccessDeniedError,
    DocumentError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    UnknownFeatureError,
)
from edgefleet.protocol.digest import CHUNK_BYTES
from edgefleet.protocol.event import Event, attributed, read_event
from edgefleet.protocol.files import open_plain, read_small, translate_full
from edgefleet.protocol.gateway import MAX_FILE_BYTES
from edgefleet.protocol.names import DEVICE_PATTERN, check_path
from edgefleet.protocol.report import MAX_BYTES as MAX_REPORT_BYTES
from edgefleet.protocol.report import read_report
from edgefleet.protocol.stick import (
    FILES,
    HOT,
    MAX_RECEIPT_BYTES,
    RECEIPT_SUFFIX,
    RECEIPTS,
    REPORT,
)
from edgefleet.sticks.folder import fleet_of, is_folder, make_folders, on_stick, root_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from edgefleet.interfaces.receipts import CanTakeReceipts
    from edgefleet.interfaces.receiving import CanReceive
    from edgefleet.protocol.stick import Receipt

REFUSED = "refused"
KINDS = ("segments", "samples")  # what devices keep below their own prefix
MAX_HOT_BYTES = 32 << 20
MAX_DEPTH = 12  # folders below a device's own
_WRONG = (
    AccessDeniedError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
)
_BATCH = msgspec.json.Decoder(list[msgspec.Raw])


class Taken(NamedTuple):
    """What came by a stick.

    Attributes:
        devices: those of which anything was taken.
        reports: reports that are newer than those known.
        events: hot events.
        files: segments and samples.
        unfinished: files that were never finished, because the stick was pulled out; they stay.
        refused: why a file was refused, by its path below ``receipts/``.
    """

    devices: tuple[str, ...]
    reports: int
    events: int
    files: int
    unfinished: int
    refused: dict[str, str]

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        return self._asdict()


class _Checked(NamedTuple):
    """What is to be kept, and what of it is wrong."""

    keep: Callable[[], None]
    wrong: str | None = None


class Taking:
    """Takes from one stick.

    Args:
        mount: where it is mounted.
        fleet: UUID of the fleet that takes.
        home_of: gives the backend of a device.
        telemetry: keeps what devices recorded.
        scratch: a folder here for what is being checked.
    """

    def __init__(
        self,
        mount: Path,
        *,
        fleet: str,
        home_of: Callable[[str], CanTakeReceipts],
        telemetry: CanReceive,
        scratch: Path,
    ) -> None:
        self._root, self._fleet = root_of(mount), fleet
        self._receipts = self._root / RECEIPTS
        self._home_of, self._telemetry = home_of, telemetry
        self._copied = scratch / "file"
        self._devices: dict[str, None] = {}
        self._reports = self._events = self._files = self._unfinished = 0
        self._refused: dict[str, str] = {}

    def take(self) -> Taken:
        """Take all there is.

        Raises:
            InvalidInputError: it was written for another fleet; nothing was taken or moved.
            UnavailableError: the stick was pulled out; what was taken is kept.
        """
        with on_stick(self._root):
            self._check_fleet()
            if is_folder(self._receipts):
                for entry in _sorted(self._receipts):
                    self._of_device(entry)
            elif os.path.lexists(self._receipts):
                raise InvalidInputError(
                    f"{self._receipts} is a link or a file", cure="remove it from the stick"
                )
        return Taken(
            devices=tuple(self._devices),
            reports=self._reports,
            events=self._events,
            files=self._files,
            unfinished=self._unfinished,
            refused=self._refused,
        )

    def _check_fleet(self) -> None:
        """That nobody of this fleet refuses what another's devices wrote for their own."""
        fleet = fleet_of(self._root)  # None says nothing of that; signatures do
        if fleet not in (None, self._fleet):
            raise InvalidInputError(
                f"the stick was written for another fleet, {fleet}: nothing was taken or moved",
                cure="name that fleet's profile with --profile; should it be a stick of this one "
                "all the same, export a group of it there again",
            )

    def _of_device(self, entry: os.DirEntry[str]) -> None:
        folder = Path(entry.path)
        if not entry.is_dir(follow_symlinks=False) or not re.match(DEVICE_PATTERN, entry.name):
            self._set_aside(folder, "it is no folder of a device")
            return
        try:
            home = self._home_of(entry.name)
        except NotFoundError as error:
            self._set_aside(folder, error.message)
            return
        for path in self._plain(folder, 0):
            self._one(home, entry.name, folder, path)

    def _plain(self, folder: Path, depth: int) -> Iterator[Path]:
        """Plain files below a folder; all else is set aside."""
        for entry in _sorted(folder):
            path = Path(entry.path)
            if entry.is_file(follow_symlinks=False):
                yield path
            elif not entry.is_dir(follow_symlinks=False):
                self._set_aside(path, "it is a link or no plain file")
            elif depth == MAX_DEPTH:
                self._set_aside(path, "it lies too deep")
            else:
                yield from self._plain(path, depth + 1)

    def _one(self, home: CanTakeReceipts, device: str, folder: Path, path: Path) -> None:
        if path.name.endswith(RECEIPT_SUFFIX):
            whose = path.with_name(path.name.removesuffix(RECEIPT_SUFFIX))
            if os.path.lexists(path) and not os.path.lexists(whose):
                self._unfinished += 1  # a take that was interrupted: what it was of is kept
                path.unlink()
            return
        seal = path.with_name(path.name + RECEIPT_SUFFIX)
        if not os.path.lexists(seal):
            self._unfinished += 1
            return
        name = path.relative_to(folder).as_posix()
        try:
            receipt = home.check_receipt(device, read_small(seal, MAX_RECEIPT_BYTES))
            if (receipt.device, receipt.path) != (device, name):
                raise AccessDeniedError(
                    f"its receipt is for {receipt.path!r} of {receipt.device!r}",
                    cure="a stick's files belong where the device wrote them",
                )
            checked = self._checked(home, device, path, receipt)
        except _WRONG as error:
            self._set_aside(path, error.message)
            self._set_aside(seal, None)
            return
        checked.keep()
        self._devices[device] = None
        if checked.wrong is not None:
            self._set_aside(path, checked.wrong)
            self._set_aside(seal, None)
            return
        path.unlink()
        seal.unlink()

    def _checked(
        self, home: CanTakeReceipts, device: str, path: Path, receipt: Receipt
    ) -> _Checked:
        kind, _, below = receipt.path.partition("/")
        if receipt.path == REPORT:
            report = _small(path, receipt, MAX_REPORT_BYTES)
            with suppress(UnknownFeatureError):  # of a newer runtime, for who knows it
                read_report(report)
            return _Checked(lambda: self._keep_report(home, device, report))
        if kind == HOT and below:
            events, wrong = _events(_small(path, receipt, MAX_HOT_BYTES), device)
            return _Checked(lambda: self._keep_hot(device, events), wrong)
        if kind == FILES and below.partition("/")[0] in KINDS and "/" in below:
            check_path(below, what="path of a device's file")
            self._copy(path, receipt)
            return _Checked(lambda: self._keep_file(device, below))
        raise InvalidInputError(
            f"devices keep no {receipt.path!r}", cure=f"they keep {' and '.join(KINDS)}"
        )

    def _keep_report(self, home: CanTakeReceipts, device: str, report: bytes) -> None:
        self._reports += home.take_report(device, report)

    def _keep_hot(self, device: str, events: Sequence[Event]) -> None:
        self._telemetry.receive_hot(device, events)
        self._events += len(events)

    def _keep_file(self, device: str, below: str) -> None:
        self._telemetry.receive_file(device, below, self._copied)
        self._files += 1

    def _copy(self, path: Path, receipt: Receipt) -> None:
        if receipt.size > MAX_FILE_BYTES:
            raise InvalidInputError(f"it is over the limit of {MAX_FILE_BYTES} bytes")
        hasher, size = sha256(), 0
        with (
            open_plain(path) as stream,
            translate_full(self._copied),
            self._copied.open("wb") as copy,
        ):
            while size <= receipt.size and (data := stream.read(CHUNK_BYTES)):
                copy.write(data)
                hasher.update(data)
                size += len(data)
        _check(receipt, hasher.hexdigest(), size)

    def _set_aside(self, path: Path, why: str | None) -> None:
        """Move something where no later call meets it; where that fails, it stays and is told."""
        below = path.relative_to(self._receipts)
        if why is not None:
            self._refused[_shown(below.as_posix())] = why
        target = self._root / REFUSED / below
        with suppress(OSError, InvalidInputError):
            make_folders(self._root, target.parent)
            path.rename(_free(target))


def _events(batch: bytes, device: str) -> tuple[list[Event], str | None]:
    """The events of a batch, and what is wrong with those that are none."""
    try:
        raw = _BATCH.decode(batch)
    except (msgspec.DecodeError, RecursionError) as error:
        raise DocumentError("it is no batch of events") from error
    events: list[Event] = []
    wrong: list[str] = []
    for number, one in enumerate(raw, 1):
        try:
            events.append(attributed(read_event(memoryview(one)), device))
        except DocumentError as error:
            wrong.append(f"event {number}: {error.message}")
    if not wrong:
        return events, None
    return events, f"{wrong[0]}; {len(events)} of {len(raw)} events were taken"


def _small(path: Path, receipt: Receipt, max_bytes: int) -> bytes:
    data = read_small(path, max_bytes)
    _check(receipt, sha256(data).hexdigest(), len(data))
    return data


def _check(receipt: Receipt, digest: str, size: int) -> None:
    if (f"sha256:{digest}", size) != (receipt.digest, receipt.size):
        raise IntegrityError("it holds other bytes than its receipt says")


def _shown(name: str) -> str:
    """A name for people: whoever wrote the stick chose it, controls of a terminal and all."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in name)


def _free(target: Path) -> Path:
    """A name that nothing has: what was refused before is kept as evidence."""
    number, free = 1, target
    while os.path.lexists(free):
        number, free = number + 1, target.with_name(f"{target.name}.{number}")
    return free


def _sorted(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)
