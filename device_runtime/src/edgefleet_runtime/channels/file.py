"""The file channel: a pointer in a file, and a folder of the device's own for what it sends.

For a device process beside its operator, for a mounted share, and for agents that hand over files.
The outbox holds ``report.json``, ``hot/<date>.ndjson`` and ``segments/…``; all but the second
appear whole, by a rename. Operators' requests come and are answered there, too: `file_requests`.
Beside the pointer may lie ``access.json``, an `AccessReport`: while it says ``expired``, the device
fetches nothing and says so.

An outbox that was there and is away lies on a share that isn't mounted: it isn't made again. What
is sent would lie on the device's own disk, and count as sent.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from edgefleet.errors import (
    AccessDeniedError,
    ConfigurationError,
    EdgeFleetError,
    UnavailableError,
)
from edgefleet.protocol.documents import encode, parse
from edgefleet.protocol.files import append_lines, translate_full
from edgefleet.protocol.names import check_path
from edgefleet.protocol.pointer import MAX_BYTES as MAX_POINTER_BYTES
from edgefleet.protocol.report import AccessReport
from edgefleet_runtime.channels.base import Channel
from edgefleet_runtime.channels.file_requests import FileRequests
from edgefleet_runtime.channels.watched import WatchedFiles
from edgefleet_runtime.store.durable import sync_folder, write_durably

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from edgefleet.protocol.event import Event
    from edgefleet_runtime.channels.requests import Reply, Request

INTERVAL_S = 0.05  # between two looks at the files; one look is two stat calls
ACCESS_FILE = "access.json"
MAX_ACCESS_BYTES = 64 << 10
_REFUSALS = (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)


class FileChannel(Channel):
    """Pointer from a file that is watched, reports and events into a folder.

    Args:
        pointer: the file; it may be missing, a link, and be replaced at any time.
        outbox: the device's own folder; made when something is sent first.
        interval_s: seconds between two looks.
    """

    options = {  # noqa: RUF012 - a ClassVar in the base
        "pointer": "file to watch for the pointer",
        "outbox": "folder of this device for its report, events and segments",
    }

    def __init__(self, pointer: Path, outbox: Path, *, interval_s: float = INTERVAL_S) -> None:
        self._pointer = pointer
        self._access = pointer.with_name(ACCESS_FILE)
        self._outbox, self._was_there = outbox, False
        self._interval_s = interval_s
        self._files = WatchedFiles(self._pointer, self._access, interval_s=interval_s)
        self._requests: FileRequests | None = None

    @classmethod
    def from_options(cls, options: Mapping[str, str], *, device: str) -> Self:
        del device  # the operator's side knows whose outbox it is
        missing = sorted(cls.options.keys() - options.keys())
        unknown = sorted(options.keys() - cls.options.keys())
        if missing or unknown:
            found = (("it lacks", missing), ("it doesn't know", unknown))
            said = "; ".join(f"{what} {', '.join(names)}" for what, names in found if names)
            raise ConfigurationError(
                f"the options of channel file are wrong: {said}",
                cure="give it -o pointer=FILE -o outbox=FOLDER and nothing else",
            )
        return cls(Path(options["pointer"]).absolute(), Path(options["outbox"]).absolute())

    # ------------------------------------------------------------------------------------- coming

    def pointer(self) -> bytes | None:
        return self._files.read(self._pointer, MAX_POINTER_BYTES)

    def access(self) -> AccessReport:
        """What ``access.json`` says, or else whether the outbox takes files."""
        try:
            data = self._files.read(self._access, MAX_ACCESS_BYTES)
            if data is not None:
                return parse(AccessReport, data, ACCESS_FILE)
            self._folder()
        except EdgeFleetError as error:
            return AccessReport(state="unknown", detail=error.message)
        except OSError as error:
            return AccessReport(state="denied", detail=f"outbox: {error.strerror}")
        if not os.access(self._outbox, os.W_OK | os.X_OK):
            return AccessReport(state="denied", detail="outbox: not writable")
        return AccessReport(state="ok")

    def wait(self, timeout_s: float) -> bool:
        return self._files.wait(timeout_s)

    def wake(self) -> None:
        self._files.wake()

    def serve(self, ask: Callable[[Request], Reply]) -> None:
        self._requests = FileRequests(self._outbox, ask, interval_s=self._interval_s)

    # -------------------------------------------------------------------------------------- going

    def send_report(self, report: bytes) -> None:
        with self._writing():
            write_durably(self._folder() / "report.json", report)

    def send_hot(self, events: Sequence[Event]) -> None:
        """Append to today's file."""
        lines = b"".join(encode(event) + b"\n" for event in events)
        name = f"{time.strftime('%Y-%m-%d', time.gmtime())}.ndjson"
        with self._writing(), translate_full(self._outbox):
            append_lines(self._folder("hot") / name, lines)

    def upload(self, name: str, path: Path) -> None:
        target = self._outbox / check_path(name, what="segment name")
        partial = target.with_name(f".{target.name}.partial")
        with self._writing(), translate_full(target):
            self._folder(*target.parent.relative_to(self._outbox).parts)
            try:
                with self.opened(path) as source, partial.open("wb") as stream:
                    shutil.copyfileobj(source, stream)
                    stream.flush()
                    os.fsync(stream.fileno())
                partial.replace(target)
            except (OSError, EdgeFleetError):
                partial.unlink(missing_ok=True)
                raise
            sync_folder(target.parent)

    def _folder(self, *names: str) -> Path:
        """The outbox or a folder below it, made where it is missing.

        Raises:
            UnavailableError: the outbox was there, and is away.
        """
        if not self._was_there:
            self._outbox.mkdir(parents=True, exist_ok=True)
            self._was_there = True
        elif not self._outbox.exists():
            raise UnavailableError(
                f"outbox {self._outbox} was there, and is away",
                cure="mount the share that it lies on, or make the folder again",
            )
        at = self._outbox
        for name in names:  # one by one: nothing makes the outbox itself again
            at /= name
            at.mkdir(exist_ok=True)
        return at

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except EdgeFleetError:
            raise
        except _REFUSALS as error:
            raise AccessDeniedError(
                f"outbox {self._outbox}: {error.strerror}", cure="let the device write its folder"
            ) from error
        except OSError as error:
            raise UnavailableError(f"outbox {self._outbox}: {error}") from error

    def close(self) -> None:
        self.wake()
        if self._requests is not None:
            self._requests.close()
