"""The folder of a device's runtimes, which its start script reads at each start.

In it lie, as the start script has it too::

    versions/NAME   runtimes, each as its archive's ``install.sh`` makes it
    current         link to the one that serves
    trial           "NAME LEFT": one to be tried, and how many more starts it has
    reverted        what ``trial`` was, of one that used them up
    upgrade.json    what this runtime and the one before remember, `Kept`
    archives/       what is being fetched
    unpacked/       what is being installed from

Each step is one rename, so that a cut anywhere leaves the old runtime or the new one.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.errors import DocumentError
from edgefleet.protocol.documents import Document, decode, encode
from edgefleet.protocol.report import RevertedRuntime
from edgefleet_runtime.faults import point
from edgefleet_runtime.store.durable import sync_folder, write_durably

if TYPE_CHECKING:
    from collections.abc import Mapping

STARTS = 3  # that a runtime on trial has, before the one before it is started again
TRIAL_VARIABLE = "EDGEFLEET_TRIAL"
_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+\-]{0,80}")


class Kept(Document, frozen=True, kw_only=True):
    """What is remembered of the last runtime that was offered.

    Attributes:
        order: salt and archive: the same again is not tried again.
        name: its folder below ``versions``.
        runtime: its version.
        served: whether a release answered requests before: then it must afterwards.
        failed: why it was taken back, or never started; empty while it may still be tried.
    """

    order: str
    name: str
    runtime: str
    served: bool = False
    failed: str = ""

    @property
    def reverted(self) -> RevertedRuntime | None:
        """As a report has it."""
        if not self.failed:
            return None
        return RevertedRuntime(runtime=self.runtime, reason=self.failed)


class Places:
    """The folder.

    Args:
        home: itself.
        own: name of the runtime that this process is.
        trial: name of the one on trial, as the start script says.
    """

    def __init__(self, home: Path, own: str, *, trial: str = "") -> None:
        self.home, self.own = home, own
        self.archives, self.unpacked = home / "archives", home / "unpacked"
        self.on_trial = trial == own
        self._file = home / "upgrade.json"

    @classmethod
    def here(cls, module: Path, environment: Mapping[str, str] = os.environ) -> Places | None:
        """The folder that this process was started from; None for one installed another way.

        Args:
            module: a file of this process' own code.
            environment: as the start script sets it.
        """
        for folder in module.absolute().parents:
            home = folder.parent.parent
            if folder.parent.name == "versions" and (home / "current").is_symlink():
                return cls(home, folder.name, trial=environment.get(TRIAL_VARIABLE, ""))
        return None

    def version(self, name: str) -> Path:
        """Where a runtime lies, or will."""
        return self.home / "versions" / name

    def installed(self, name: str) -> bool:
        """Whether one is there whole."""
        return (self.version(name) / "manifest.json").is_file()

    # ------------------------------------------------------------------------------- the memory

    def load(self) -> Kept | None:
        """What was remembered; None for nothing, or where it can't be read."""
        try:
            return decode(Kept, self._file.read_bytes())
        except (OSError, DocumentError):
            return None

    def save(self, kept: Kept) -> None:
        """Remember it over a power cut."""
        write_durably(self._file, encode(kept))

    # ---------------------------------------------------------------------------------- trials

    def try_next(self, name: str) -> None:
        """Have the start script start that one next."""
        point("upgrade.trying")
        write_durably(self.home / "trial", f"{name} {STARTS}\n".encode())

    def keep_own(self) -> None:
        """Have the start script start this one from now on; older ones than the last go."""
        link, before = self.home / "current", ""
        with suppress(OSError):
            before = link.readlink().name
        new = self.home / "current.new"
        new.unlink(missing_ok=True)
        new.symlink_to(f"versions/{self.own}")
        point("upgrade.linked")
        new.replace(link)
        sync_folder(self.home)
        point("upgrade.kept")
        (self.home / "trial").unlink(missing_ok=True)
        sync_folder(self.home)
        self.clear({self.own, before})

    def give_up_trial(self) -> None:
        """Have the start script start the one before."""
        with suppress(FileNotFoundError):
            (self.home / "trial").replace(self.home / "reverted")
        sync_folder(self.home)

    def given_up(self) -> str:
        """Name of a runtime that used up its starts, or gave itself up; empty for none."""
        try:
            said = (self.home / "reverted").read_text("utf-8", errors="replace")
        except OSError:
            return ""
        name = said.split(" ", 1)[0].strip()
        return name if _NAME.fullmatch(name) else ""

    def forget_given_up(self) -> None:
        """It was taken note of."""
        (self.home / "reverted").unlink(missing_ok=True)

    def clear(self, kept: set[str]) -> None:
        """Remove other runtimes, and what was fetched and unpacked."""
        for folder in (self.home / "versions").iterdir():
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)
        self.clear_fetched()

    def clear_fetched(self) -> None:
        """Remove what was fetched and unpacked."""
        for folder in (self.archives, self.unpacked):
            shutil.rmtree(folder, ignore_errors=True)

    def clear_begun(self, name: str) -> None:
        """Remove what a killed installation of one left; what was fetched of it stays."""
        for folder in (self.version(name), self.unpacked):
            shutil.rmtree(folder, ignore_errors=True)

    def remove(self, name: str) -> None:
        """Remove one that is not for this device, and what it was installed from."""
        shutil.rmtree(self.version(name), ignore_errors=True)
        self.clear_fetched()
