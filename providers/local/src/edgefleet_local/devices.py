"""The operator's records and each device's own folders.

===============================  ===================================================================
``enrolled/<device>.json``       group and labels: the operator's
``groups/<group>/pointer.json``  the group's pointer: the operator's
``channels/<device>/``           what a device watches: a link to that, and maybe ``access.json``
``devices/<device>/``            the device's own prefix: ``report.json``, ``hot/``, ``segments/``,
                                 and ``requests/`` to it with its ``replies/``
``machines/<device>/``           what would be the device: ``disk/``, ``off``, ``runtime.log``
===============================  ===================================================================
"""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from edgefleet.errors import ConflictError, InvalidInputError, NotFoundError
from edgefleet.protocol.labels import check_reported
from edgefleet.protocol.pointer import MAX_BYTES as MAX_POINTER_BYTES
from edgefleet.protocol.pointer import Pointer, read_pointer
from edgefleet.protocol.report import MAX_BYTES as MAX_REPORT_BYTES
from edgefleet.protocol.report import Report, read_report
from edgefleet.protocol.typed import decoder
from edgefleet_local.files import locked, make_folder, read_small, replace_file
from edgefleet_local.processes import lives

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_MAX_RECORD_BYTES = 1 << 20
_RECORD = ".json"
_POINTER = "pointer.json"
_REPORT = "report.json"


class Enrolment(msgspec.Struct, frozen=True):
    """What the operator decided of a device."""

    group: str
    labels: dict[str, str] = {}


class Running(msgspec.Struct, frozen=True):
    """What the supervisor knows of a device's runtime.

    Attributes:
        pid: of the newest process; None before the first.
        born: tells that process from a later one of the same number.
        starts: how often it was started.
        last_exit: how the one before ended.
    """

    pid: int | None = None
    born: str | None = None
    starts: int = 0
    last_exit: str | None = None

    @property
    def now(self) -> bool:
        """Whether that process still runs."""
        return self.pid is not None and self.born is not None and lives(self.pid, self.born)


class Devices:
    """The devices below a fleet's folder.

    Args:
        home: the fleet's folder.
    """

    def __init__(self, home: Path) -> None:
        self.home = home = home.absolute()
        self._enrolled = home / "enrolled"
        self._groups = home / "groups"
        self._lock = home / "locks" / "devices"

    # Places

    def outbox(self, device: str) -> Path:
        """What the device itself writes."""
        return self.home / "devices" / device

    def machine(self, device: str) -> Path:
        """What would be the device itself: disk, power switch, log."""
        return self.home / "machines" / device

    def disk(self, device: str) -> Path:
        """The runtime's own folder."""
        return self.machine(device) / "disk"

    def log(self, device: str) -> Path:
        """The runtime's log."""
        return self.machine(device) / "runtime.log"

    def pointer_file(self, group: str) -> Path:
        """The group's pointer: one file, however many devices watch it."""
        return self._groups / group / _POINTER

    def channel(self, device: str) -> Path:
        """What the device watches: ``pointer.json``, maybe ``access.json``."""
        return self.home / "channels" / device

    def _switch(self, device: str) -> Path:
        return self.machine(device) / "off"

    # Enrolment

    def names(self) -> list[str]:
        """Names of all devices, in order."""
        try:
            found = os.listdir(self._enrolled)  # noqa: PTH208 - names, and often
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(
            name.removesuffix(_RECORD)
            for name in found
            if name.endswith(_RECORD) and not name.startswith(".")
        )

    def enrolment(self, device: str) -> Enrolment | None:
        """The operator's record of a device."""
        data = read_small(self._enrolled / f"{device}{_RECORD}", _MAX_RECORD_BYTES)
        return None if data is None else decoder(Enrolment).decode(data)

    def enroll(self, device: str, group: str, labels: Mapping[str, str]) -> None:
        """Record a device and make its group. Labels it has already stay, unless given again.

        Raises:
            ConflictError: somebody put it into another group first.
        """
        with locked(self._lock):
            there = self.enrolment(device)
            if there is not None and there.group != group:
                raise ConflictError(
                    f"device {device!r} is in group {there.group!r}",
                    cure=f"a device is in one group: retire it first to move it to {group!r}",
                    retryable=False,
                )
            known = {} if there is None else there.labels
            wanted = _with_labels(group, {**known, **labels})
            make_folder(self._groups / group)
            self._link(device, group)
            if wanted != there:
                self._record(device, wanted)

    def label(self, device: str, labels: Mapping[str, str | None]) -> None:
        """Set and remove labels."""
        with locked(self._lock):
            there = self.enrolment(device)
            if there is None:
                raise NotFoundError(f"device {device!r} was retired meanwhile")
            merged = {**there.labels, **labels}
            kept = {key: value for key, value in merged.items() if value is not None}
            self._record(device, _with_labels(there.group, kept))

    def _link(self, device: str, group: str) -> None:
        """Let the device watch its group's pointer."""
        link, target = self.channel(device) / _POINTER, f"../../groups/{group}/{_POINTER}"
        make_folder(link.parent)
        if not (link.is_symlink() and str(link.readlink()) == target):
            partial = link.with_name(f".{_POINTER}.partial")
            partial.unlink(missing_ok=True)
            partial.symlink_to(target)
            partial.replace(link)

    def _record(self, device: str, enrolment: Enrolment) -> None:
        data = msgspec.json.encode(enrolment, order="sorted")
        replace_file(self._enrolled / f"{device}{_RECORD}", data)

    def retire(self, device: str) -> bool:
        """Remove the operator's record; False when there was none."""
        with locked(self._lock):
            there = (self._enrolled / f"{device}{_RECORD}").exists()
            (self._enrolled / f"{device}{_RECORD}").unlink(missing_ok=True)
        return there

    def forget(self, device: str) -> None:
        """Remove a retired device's disk, channel and report; what it recorded stays."""
        shutil.rmtree(self.machine(device), ignore_errors=True)
        shutil.rmtree(self.channel(device), ignore_errors=True)
        (self.outbox(device) / _REPORT).unlink(missing_ok=True)

    # Groups

    def group_names(self) -> list[str]:
        """Names of all groups: those that ever had a device."""
        try:
            return sorted(path.name for path in self._groups.iterdir() if path.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def remove_group(self, group: str) -> tuple[str, ...]:
        """Remove a group without devices, with its pointer; the devices that keep it, else."""
        with locked(self._lock):
            found = ((name, self.enrolment(name)) for name in self.names())
            left = tuple(name for name, one in found if one is not None and one.group == group)
            if not left:
                shutil.rmtree(self._groups / group, ignore_errors=True)
        return left

    def pointer(self, group: str) -> Pointer | None:
        """The pointer in place."""
        data = read_small(self.pointer_file(group), MAX_POINTER_BYTES)
        return None if data is None else read_pointer(data)

    def publish(self, group: str, pointer: Pointer) -> None:
        """Put a pointer in place.

        Raises:
            ConflictError: a higher one, another of the same number, or another fleet's is in place.
        """
        with locked(self._lock):
            there = self.pointer(group)
            if there is not None and there.fleet != pointer.fleet:
                raise ConflictError(
                    f"{group} carries a pointer of another fleet: {there.fleet}",
                    cure="use another root or prefix for this fleet",
                    retryable=False,
                )
            if there is not None and there != pointer and there.pair >= pointer.pair:
                raise ConflictError(
                    f"{group} holds pointer {there.pair}, which is not below {pointer.pair}",
                    cure="read the group again and repeat",
                )
            replace_file(self.pointer_file(group), pointer.encoded())

    # What devices say, and what runs

    def report(self, device: str) -> tuple[Report | None, datetime | None, str | None]:
        """A device's report, when it came, and why it can't be read if it can't."""
        path = self.outbox(device) / _REPORT
        try:
            came = datetime.fromtimestamp(path.lstat().st_mtime, UTC)
            data = read_small(path, MAX_REPORT_BYTES)
        except FileNotFoundError:
            return None, None, None
        except OSError as error:
            return None, None, f"can't be read: {error.strerror}"
        if data is None:
            return None, None, None
        try:
            return read_report(data), came, None
        except InvalidInputError as error:
            return None, came, error.message

    def running(self, device: str) -> Running:
        """What the supervisor knows of its runtime."""
        data = read_small(self.machine(device) / "running.json", _MAX_RECORD_BYTES)
        return Running() if data is None else decoder(Running).decode(data)

    def record_running(self, device: str, running: Running) -> None:
        """Only the supervisor writes it."""
        replace_file(self.machine(device) / "running.json", msgspec.json.encode(running))

    def is_off(self, device: str) -> bool:
        """Whether the device's power is off: its runtime is not to be started."""
        return self._switch(device).exists()

    def switch(self, device: str, *, on: bool) -> None:
        """Turn a device's power on or off. The supervisor acts on it."""
        if on:
            self._switch(device).unlink(missing_ok=True)
        else:
            make_folder(self.machine(device))
            self._switch(device).touch()


def _with_labels(group: str, labels: Mapping[str, str]) -> Enrolment:
    """A record; its labels are the runtime's, which refuses to start by more than these."""
    check_reported(labels)
    return Enrolment(group=group, labels=dict(labels))
