"""A run's output as bytes by offset, over the API server, which knows lines and times only.

A run's pods, the first machine's alone and in the order in which they were made, are its output: a
pod that was taken away is followed by another. What was read is kept in a file, so that following a
log asks for new lines only; a pod's lines are gone when it is. While a pod's node doesn't answer,
its lines can't be had: what was read of it stays readable, and where another pod has followed it,
the output goes on with that one's. The file is open while it is read or written. Of a trainer that
lives for months, those of the runs that were read last are kept.
"""

from __future__ import annotations

import logging
import tempfile
import threading
from collections import OrderedDict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgefleet_kubernetes.errors import reason_of
from edgefleet_kubernetes.reading import at

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgefleet_kubernetes.cluster import Cluster, Object

MAX_CHUNK = 4 << 20  # bytes given at once
KEPT = 32  # runs whose output is kept in files
CLOCKS_APART_S = 60  # a node's clock and ours, for asking for little; more costs a longer answer
_UNHEARD = frozenset({"InternalError", "ServiceUnavailable", "Timeout"})
"""Why an API server says no that doesn't reach a node: ``dial tcp``, no tunnel, no answer."""

_log = logging.getLogger(__name__)


class _Mark(NamedTuple):
    """Up to where a pod was read.

    Attributes:
        pod: its name; empty for none yet.
        container: whose lines they are: a TrainJob's runtime names it.
        last: the last line that was read, its time in front.
        lines: equal to that one that were read, itself included.
    """

    pod: str = ""
    container: str = ""
    last: str = ""
    lines: int = 0


class RunLog:
    """The output of one run.

    Args:
        cluster: that it runs in.
        namespace: that its pods lie in.
        pods: gives the run's pods of the first machine, the oldest first.
    """

    def __init__(
        self, cluster: Cluster, namespace: str, pods: Callable[[], Sequence[Object]]
    ) -> None:
        self._cluster, self._namespace, self._pods = cluster, namespace, pods
        self._lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="edgefleet-log-")
        self._file = Path(self._folder.name) / "log"
        self._file.touch()
        self._size = 0
        self._done: set[str] = set()  # pods that were read to their end
        self._mark = _Mark()

    def close(self) -> None:
        """Let go of what was read."""
        with self._lock:
            self._folder.cleanup()

    def read(self, offset: int) -> bytes:
        """What was printed from an offset in bytes on; empty for nothing new."""
        with self._lock:
            if offset >= self._size:
                self._ask()
            with self._file.open("rb") as file:
                file.seek(offset)
                return file.read(MAX_CHUNK)

    def _ask(self) -> None:
        left = [pod for pod in self._pods() if pod["metadata"]["name"] not in self._done]
        for place, pod in enumerate(left, start=1):
            name = str(pod["metadata"]["name"])
            container = str(pod["spec"]["containers"][0]["name"])
            phase, last = at(pod, "status", "phase") or "Pending", place == len(left)
            ended = phase in {"Succeeded", "Failed"}
            if _has_begun(pod, container) and not self._heard(name, container, last=last):
                if last:
                    return  # its node may answer again
                ended = True
            if not ended:
                return  # what comes after it waits for its end
            self._done.add(name)

    def _heard(self, pod: str, container: str, *, last: bool) -> bool:
        """Read a pod's lines; False where its node doesn't answer, and there are lines without.

        Of a pod that was taken away since it was listed, nothing is left.
        """
        try:
            self._add(pod, container)
        except Exception as error:
            if reason_of(error) in _UNHEARD and (self._size or not last):
                _log.warning("lines of pod %s are missing: its node doesn't answer", pod)
                return False
            if reason_of(error) != "NotFound":
                raise
        return True

    def _add(self, pod: str, container: str) -> None:
        """Read a pod's lines from some while before the last on.

        Lines that were read come again, the last among them, which shows that none is missing
        between; where it doesn't, the clocks are further apart, and all lines are asked for. Times
        may go back from one line to the next: two streams write, and clocks are set.
        """
        mark = self._mark if self._mark.pod == pod else _Mark(pod, container)
        lines = self._lines(mark) if mark.last else None
        if lines is None:
            lines = [*self._cluster.log(pod, container, self._namespace)]
        fresh = _after(lines, mark)
        text = bytearray()
        for line in fresh:
            said = line.partition(" ")[2]
            text += said.encode() + (b"" if said.endswith("\n") else b"\n")
        if fresh:
            count = fresh.count(fresh[-1]) + (mark.lines if fresh[-1] == mark.last else 0)
            mark = _Mark(pod, container, fresh[-1], count)
        self._mark = mark
        with self._file.open("ab") as file:
            file.write(text)
        self._size += len(text)

    def _lines(self, mark: _Mark) -> list[str] | None:
        """Lines since some while before the mark; None where some may be missing."""
        age = datetime.now(UTC) - datetime.fromisoformat(_time(mark.last))
        since_s = max(1, round(age.total_seconds()) + CLOCKS_APART_S)
        lines = [*self._cluster.log(mark.pod, mark.container, self._namespace, since_s=since_s)]
        return lines if mark.last in lines else None


class RunLogs:
    """The outputs of a trainer's runs. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, RunLog] = OrderedDict()  # the one read last at the end

    def __len__(self) -> int:
        return len(self._kept)

    def read(self, run_id: str, offset: int, make: Callable[[], RunLog | None]) -> bytes:
        """As `RunLog.read`; empty where ``make``, called for a run that isn't known, gives none."""
        try:
            return self._read(run_id, offset, make)
        except FileNotFoundError:  # many others were read, or somebody tidies temporary files
            with self._lock:
                log = self._kept.pop(run_id, None)
            if log is not None:
                log.close()
            return self._read(run_id, offset, make)

    def _read(self, run_id: str, offset: int, make: Callable[[], RunLog | None]) -> bytes:
        log = self._kept.get(run_id) or make()
        if log is None:
            return b""
        over: list[RunLog] = []
        with self._lock:
            there = self._kept.setdefault(run_id, log)
            if there is not log:  # another thread made one, too
                over.append(log)
            self._kept.move_to_end(run_id)
            while len(self._kept) > KEPT:
                over.append(self._kept.popitem(last=False)[1])
        for each in over:
            each.close()
        return there.read(offset)

    def close(self) -> None:
        """Let go of all."""
        with self._lock:
            found = list(self._kept.values())
            self._kept.clear()
        for log in found:
            log.close()


def _has_begun(pod: Object, container: str) -> bool:
    """Whether a container has ever run: of one that hasn't, a kubelet refuses the lines.

    The pod's phase doesn't say so: it may fail before, over its time or by an init container, and
    it runs as soon as another of its containers does.
    """
    statuses = at(pod, "status", "containerStatuses") or ()
    status = next((each for each in statuses if each.get("name") == container), None)
    return bool(at(status, "containerID") or at(status, "lastState", "terminated", "containerID"))


def _after(lines: list[str], mark: _Mark) -> list[str]:
    """Lines behind the last that was read; where that is gone, those that are newer."""
    if not mark.last:
        return lines
    left = mark.lines
    for place, line in enumerate(lines):
        left -= line == mark.last
        if not left:
            return lines[place + 1 :]
    return [line for line in lines if _time(line) > _time(mark.last)]


def _time(line: str) -> str:
    return line.partition(" ")[0]
