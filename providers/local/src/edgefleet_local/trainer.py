"""The trainer: each run a child process with a folder of its own; see `runs` for what lies in it.

The script runs where it lies, with its folder as current folder and with this Python: what it
imports must be installed here. A run outlives the process that submitted it. Outputs appear only
when the script has ended well.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from edgefleet.errors import (
    EdgeFleetError,
    InvalidInputError,
    NotFoundError,
    UnsupportedError,
)
from edgefleet.interfaces.job_parts import params_text
from edgefleet.interfaces.trainer import Trainer
from edgefleet.interfaces.training import RunState, RunStatus
from edgefleet_local import runs
from edgefleet_local.errors import translate
from edgefleet_local.files import make_folder, new_lock, replace_file, try_lock
from edgefleet_local.journal import Journal
from edgefleet_local.processes import lives, signal_group, told
from edgefleet_local.requirements import refuse_what_is_missing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet.interfaces.training import TrainingJob

MAX_PARAMS_BYTES = 100_000  # as JSON; Linux takes 128 KiB in one environment variable (execve(2))
LOG_CHUNK = 1 << 20  # bytes
_POLL_S = 0.02


class LocalTrainer(Trainer):
    """Runs scripts on this machine.

    Args:
        home: the fleet's folder.
        grace_s: between asking a script to end and ending it by force, in seconds.
    """

    provider = "local"

    def __init__(self, home: Path, *, grace_s: float = 5.0) -> None:
        self._grace_s = grace_s
        self._root = home.absolute() / "training"
        self._journal = Journal(home)

    def _translate(self, error: Exception) -> EdgeFleetError | None:
        return translate(error)

    def _submit(self, job: TrainingJob) -> str:
        data = _data_of(job)
        params = params_text(job.params, max_bytes=MAX_PARAMS_BYTES)
        refuse_what_is_missing(job)
        now = datetime.now(UTC)
        run_id = f"{job.name[:40]}-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        make_folder(self._root)
        # The folder appears whole: a submitter killed before leaves a hidden one that nobody lists.
        staging = self._root / f".{run_id}"
        staging.mkdir()
        try:
            order = {
                "script": str(job.script),
                "data": data,
                "params": params,
                "max_runtime_s": job.resources.max_runtime_s,
                "grace_s": self._grace_s,
            }
            replace_file(staging / runs.JOB, json.dumps(order).encode())
            runs.write_status(staging, state="pending", submitted=now.isoformat())
            lock = new_lock(staging / runs.LOCK)
            try:
                folder = staging.rename(self._root / run_id)
                self._spawn(folder, lock)
            finally:
                os.close(lock)  # the child has it too, and holds it as long as it lives
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            shutil.rmtree(self._root / run_id, ignore_errors=True)
            raise
        self._journal.write("trainer.submit", run_id)
        return run_id

    @staticmethod
    def _spawn(folder: Path, lock: int) -> None:
        with (folder / runs.LOG).open("ab") as log:
            child = subprocess.Popen(
                [
                    sys.executable,
                    "-P",  # no module of the current folder may stand in for a real one
                    "-m",
                    "edgefleet_local.training_child",
                    str(folder),
                    str(lock),
                ],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C here is for us to pass on, by cancelling
                pass_fds=(lock,),
            )
        # Collects the child when it ends, so that no zombie stays.
        threading.Thread(target=child.wait, name="edgefleet-run", daemon=True).start()

    def _folder(self, run_id: str) -> Path | None:
        if run_id.startswith(".") or "/" in run_id or not run_id:
            return None
        folder = self._root / run_id
        return folder if (folder / runs.STATUS).is_file() else None

    def _status(self, run_id: str) -> RunStatus | None:
        folder = self._folder(run_id)
        return None if folder is None else _status_of(folder)

    def _list(self) -> Iterator[RunStatus]:
        found = [
            _status_of(path)
            for path in self._root.glob("*")
            if not path.name.startswith(".") and (path / runs.STATUS).is_file()
        ]
        yield from sorted(found, key=lambda run: (str(run.submitted), run.id), reverse=True)

    def _log(self, run_id: str, offset: int) -> bytes:
        folder = self._folder(run_id)
        if folder is None:
            raise NotFoundError(f"no training run {run_id!r}")
        try:
            with (folder / runs.LOG).open("rb") as stream:
                stream.seek(offset)
                return stream.read(LOG_CHUNK)
        except FileNotFoundError:
            return b""

    def _cancel(self, run_id: str) -> None:
        folder = self._folder(run_id)
        if folder is None:
            raise NotFoundError(f"no training run {run_id!r}")
        if _status_of(folder).state.ended:
            return
        (folder / runs.CANCEL).touch()
        self._journal.write("trainer.cancel", run_id)
        asked, patience = False, time.monotonic() + 2 * self._grace_s + 1
        while not _status_of(folder).state.ended:
            pid = (runs.read_json(folder / runs.STATUS) or {}).get("pid")
            late = time.monotonic() > patience
            if pid is not None and (late or not asked):
                asked = True
                try:  # the lock is held, so the number is still the child's
                    os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
                except ProcessLookupError:
                    continue
            time.sleep(_POLL_S)

    def _outputs(self, run_id: str) -> Path:
        return self._root / run_id / runs.OUTPUTS


def _status_of(folder: Path) -> RunStatus:
    status = _settled(folder)
    order = runs.read_json(folder / runs.JOB) or {}
    return RunStatus(
        id=folder.name,
        state=RunState(status["state"]),
        submitted=status.get("submitted"),
        started=status.get("started"),
        ended=status.get("ended"),
        reason=status.get("reason"),
        params=json.loads(order.get("params", "{}")),
        evidence={
            key: str(value)
            for key, value in {"pid": status.get("pid"), "folder": folder}.items()
            if value is not None
        },
    )


def _settled(folder: Path) -> dict[str, Any]:
    """A run's status; of a child that was killed, after ending what it left and noting its end."""
    status = runs.read_json(folder / runs.STATUS) or {}
    if RunState(status["state"]).ended:
        return status
    lock = try_lock(folder / runs.LOCK)
    if lock is None:
        return status
    try:
        status = runs.read_json(folder / runs.STATUS) or {}
        if RunState(status["state"]).ended:
            return status
        _end_orphans(folder, status.get("group"), status.get("born"))
        cancelled = (folder / runs.CANCEL).exists()
        return runs.write_status(
            folder,
            state="cancelled" if cancelled else "failed",
            reason=None if cancelled else "the run's process was killed; submit it again",
            ended=datetime.now(UTC).isoformat(),
        )
    finally:
        os.close(lock)


def _end_orphans(folder: Path, group: int | None, born: str | None) -> None:
    """Kill what a script left running after the process that would have done so was killed."""
    if group is not None and born is not None and lives(group, born):
        signal_group(group, signal.SIGKILL)
    for pid in told("EDGEFLEET_OUTPUT_DIR", str(folder / runs.UNFINISHED)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _data_of(job: TrainingJob) -> str | None:
    if job.data is None:
        return None
    if isinstance(job.data, str) and "://" in job.data:
        address = urlsplit(job.data)
        if address.scheme != "file" or address.netloc not in ("", "localhost"):
            raise UnsupportedError(
                f"the local trainer reads no {address.scheme}:// data",
                cure="download them and give the folder",
            )
        path = Path(unquote(address.path))
    else:
        path = Path(job.data)
    if not path.exists():
        raise InvalidInputError(
            f"no training data at {path}", cure="give a file or folder that exists"
        )
    return str(path.absolute())
