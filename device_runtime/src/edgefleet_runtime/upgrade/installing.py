"""Fetch the archive of a runtime, and install it beside the one that runs."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgefleet.errors import (
    CancelledError,
    IntegrityError,
    StorageFullError,
    UnavailableError,
)
from edgefleet_runtime.faults import point
from edgefleet_runtime.store.blobs import BlobStore
from edgefleet_runtime.store.fetch import Fetcher, Want
from edgefleet_runtime.upgrade.unpacking import unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from edgefleet_runtime.channels.base import Channel
    from edgefleet_runtime.store.bandwidth import Bandwidth
    from edgefleet_runtime.upgrade.offers import Wanted
    from edgefleet_runtime.upgrade.places import Places

ARCHIVES_BYTES = 8 << 30
# Room, in times the archive: wheels hold files at a third of their size, and those are compiled.
FETCHED, INSTALLED = 2, 5
INSTALL_S = 1800.0  # a small board on a slow card takes minutes
ANSWER_S = 120.0
SLICE_S = 0.5
_log = logging.getLogger(__name__)


class Installer:
    """Installs what is wanted. Killed anywhere, the next call goes on or begins again.

    Args:
        places: the folder of the runtimes.
        channel: leads to the archive.
        stopped: waits for so many seconds; True when the process ends.
        bandwidth: the limit of the link; None for none.
    """

    def __init__(
        self,
        places: Places,
        channel: Channel,
        *,
        stopped: Callable[[float], bool],
        bandwidth: Bandwidth | None = None,
    ) -> None:
        self._places, self._channel, self._stopped = places, channel, stopped
        self._bandwidth = bandwidth

    def install(self, wanted: Wanted) -> None:
        """Have it in its place, whole, and able to say its version.

        Raises:
            IntegrityError: it isn't what was offered, or can't be installed here.
            StorageFullError: no room.
            CancelledError: the process ends.
            EdgeFleetError: the archive can't be fetched now.
        """
        with self._alone() as lock:
            try:
                self._installed(wanted, lock)
            except IntegrityError:
                self._places.remove(wanted.name)
                raise
            except StorageFullError:
                self._places.clear_fetched()
                raise

    def _installed(self, wanted: Wanted, lock: int) -> None:
        target = self._places.version(wanted.name)
        if not self._places.installed(wanted.name):
            self._places.clear_begun(wanted.name)
            store = self._archives(wanted)
            self._check_room(wanted, FETCHED + INSTALLED, here=_bytes_here(store, wanted))
            unpacked = self._places.unpacked
            unpack(self._fetched(wanted, store), unpacked)
            point("upgrade.unpacked")
            try:
                command = ("sh", str(unpacked / "install.sh"), str(target))
                self._run(command, INSTALL_S, unpacked, lock)
            except IntegrityError:
                self._check_room(wanted, INSTALLED)  # it may have run out of it
                raise
            point("upgrade.installed")
            self._places.clear_fetched()
            if not self._places.installed(wanted.name):
                raise IntegrityError("its install script left no runtime")
        program = target / "bin" / "edgefleet-runtime"
        said = self._run((str(program), "--version"), ANSWER_S, self._places.home, lock)
        if wanted.runtime not in said.split():
            raise IntegrityError(f"it is {said.strip()[:80]!r}, and not {wanted.runtime!r}")

    @contextmanager
    def _alone(self) -> Iterator[int]:
        """Hold a lock that commands inherit: one that outlives its killed parent still holds it."""
        handle = os.open(self._places.home / "install.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if self._stopped(SLICE_S):
                        raise CancelledError("the runtime ends", retryable=True) from None
            yield handle
        finally:
            os.close(handle)

    def _check_room(self, wanted: Wanted, times: int, *, here: int = 0) -> None:
        due = wanted.archive.size * times - here
        free = shutil.disk_usage(self._places.home).free
        if free < due:
            raise StorageFullError(
                f"the runtime {wanted.runtime} needs {due >> 20} MiB, {free >> 20} MiB are free",
                cure="make room on the device",
            )

    def _archives(self, wanted: Wanted) -> BlobStore:
        """What is here of its archive, and of no other."""
        store = BlobStore(self._places.archives, ARCHIVES_BYTES)
        store.clear({wanted.archive.digest})
        return store

    def _fetched(self, wanted: Wanted, store: BlobStore) -> Path:
        digest = wanted.archive.digest
        fetcher = Fetcher(store, pause=self._stopped, check=self._check, bandwidth=self._bandwidth)
        found = (self._channel.source(address) for address in self._channel.addresses())
        want = Want(digest=digest, name="the runtime's archive", max_bytes=wanted.archive.size)
        try:
            fetcher.fetch([want], [source for source in found if source is not None])
        except IntegrityError as error:  # of who gave it, not of the runtime
            raise UnavailableError(error.message, cure="order the runtime again") from error
        return store.path_of(digest)

    def _check(self) -> None:
        if self._stopped(0):
            raise CancelledError("the runtime ends", retryable=True)

    def _run(self, command: Sequence[str], limit_s: float, scratch: Path, lock: int) -> str:
        """What a command of the archive prints; it and its children end with this process' work."""
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": str(scratch),
            "LANG": "C.UTF-8",
            "TMPDIR": str(scratch),
            # A service's PATH needn't lead to the Python that it was installed with.
            "EDGEFLEET_OWN_PYTHON": f"{sys.base_prefix}/bin/python3.{sys.version_info.minor}",
        }
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=True,
            pass_fds=(lock,),
        ) as process:
            out, err = self._outcome(process, limit_s)
        if process.returncode:
            lines = err.strip().splitlines() or out.strip().splitlines() or ["it says nothing"]
            _log.warning("%s: %s", command, err.strip())
            raise IntegrityError(f"it can't be installed: {lines[-1][:200]}")
        return out

    def _outcome(self, process: subprocess.Popen[str], limit_s: float) -> tuple[str, str]:
        waited = 0.0
        while True:
            try:
                return process.communicate(timeout=SLICE_S)
            except subprocess.TimeoutExpired:
                waited += SLICE_S
            ending = self._stopped(0)
            if ending or waited >= limit_s:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                if ending:
                    raise CancelledError("the runtime ends", retryable=True)
                raise IntegrityError(f"it took more than {limit_s:g} s")


def _bytes_here(store: BlobStore, wanted: Wanted) -> int:
    """How much of the archive takes its room already."""
    digest, size = wanted.archive.digest, wanted.archive.size
    return size if digest in store else min(size, store.partial_bytes(digest))
