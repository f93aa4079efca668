"""A run's output as bytes by offset: the log that Azure ML writes to a blob while the run goes on.

The run history gives an address with a SAS for each log of a run; it is asked for again when it has
expired. A run of several processes has a log a process; the first one's is the run's output.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from edgefleet_azure.errors import status_of

if TYPE_CHECKING:
    from edgefleet_azure.workspace import Workspace

FOLDER = "user_logs/"
MAX_CHUNK = 4 << 20  # bytes of one read
_REFUSED = (401, 403)
_PAST_END = 416
_GONE = 404


class RunLog:
    """The output of one run.

    Args:
        workspace: that knows the run.
        run_id: of the run.
    """

    def __init__(self, workspace: Workspace, run_id: str) -> None:
        self._workspace, self._run = workspace, run_id
        self._lock = threading.Lock()
        self._address: str | None = None

    def read(self, offset: int) -> bytes:
        """What was printed from an offset in bytes on, `MAX_CHUNK` at most; empty for nothing."""
        with self._lock:
            for again in (True, False):
                self._address = self._address or self._find()
                if self._address is None:
                    return b""
                try:
                    return _part(self._address, offset)
                except Exception as error:
                    if status_of(error) in {_PAST_END, _GONE}:
                        return b""
                    self._address = None
                    if status_of(error) not in _REFUSED or not again:
                        raise
        return b""

    def _find(self) -> str | None:
        details = self._workspace.run(self._run, "details") or {}
        logs = details.get("logFiles") or {}
        names = sorted(
            (name for name in logs if name.startswith(f"{FOLDER}std_log")),
            key=lambda name: (len(name), name),  # process 10 comes after process 9
        )
        return str(logs[names[0]]) if names else None


def _part(address: str, offset: int) -> bytes:
    from azure.storage.blob import BlobClient  # noqa: PLC0415 - reading a log needs it, naming none

    with BlobClient.from_blob_url(address, max_single_get_size=MAX_CHUNK) as blob:
        return blob.download_blob(offset=offset, length=MAX_CHUNK).readall()
