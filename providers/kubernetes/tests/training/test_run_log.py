"""A run's output put together from lines that the API server gives again and again."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import httpx2
import pytest
from lightkube import ApiError

from edgefleet_kubernetes.run_log import KEPT, RunLog, RunLogs

if TYPE_CHECKING:
    from edgefleet_kubernetes.cluster import Cluster, Object

BEGUN = {"containerID": "containerd://1"}


def pod(phase: str, *, name: str = "run-1-0", **container: Any) -> Object:
    """The run's pod in a phase, and what its status has of its container."""
    return {
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "training"}]},
        "status": {
            "phase": phase,
            "containerStatuses": [
                {"name": "sidecar", **BEGUN},
                {"name": "training", "state": {}, "lastState": {}, **container},
            ],
        },
    }


POD = pod("Running", **BEGUN)


class Printing:
    """A cluster with one pod, which has printed some lines.

    Attributes:
        refusal: what the API server answers instead, with the reason of Kubernetes.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.refusal: tuple[int, str] | None = None

    def log(self, pod: str, *_: str, since_s: int | None = None) -> Iterator[str]:
        """All of them: less would be within the rules, too."""
        if self.refusal is not None and pod == POD["metadata"]["name"]:
            code, reason = self.refusal
            request = httpx2.Request("GET", "https://cluster/log")
            status = {"kind": "Status", "code": code, "reason": reason, "message": reason}
            answer = httpx2.Response(code, json=status, request=request)
            raise ApiError(request=request, response=answer)
        yield from self.lines

    def prints(self, second: float, text: str) -> None:
        self.lines.append(f"2026-11-21T10:00:{second:012.9f}Z {text}")


@pytest.fixture
def printing() -> Printing:
    return Printing()


@pytest.fixture
def log(printing: Printing) -> Iterator[RunLog]:
    with closing(RunLog(cast("Cluster", printing), "edgefleet", lambda: [POD])) as opened:
        yield opened


def read_all(log: RunLog) -> bytes:
    log.read(1 << 30)  # beyond what was read: asks
    return log.read(0)


def test_lines_that_come_again_are_read_once(printing: Printing, log: RunLog) -> None:
    printing.prints(1, "one")
    printing.prints(1, "one")
    assert read_all(log) == b"one\none\n"
    printing.prints(1, "one")
    printing.prints(2, "two")
    assert read_all(log) == b"one\none\none\ntwo\n"
    assert read_all(log) == b"one\none\none\ntwo\n"


@pytest.mark.parametrize("back", [1.5, 0.5])
def test_a_line_with_an_earlier_time_is_neither_lost_nor_doubled(
    printing: Printing, log: RunLog, back: float
) -> None:
    printing.prints(1, "one")
    printing.prints(2, "two")
    assert read_all(log) == b"one\ntwo\n"
    printing.prints(back, "of the other stream")
    assert read_all(log) == b"one\ntwo\nof the other stream\n"
    printing.prints(3, "three")
    assert read_all(log) == b"one\ntwo\nof the other stream\nthree\n"


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system lists no open files")
def test_no_file_stays_open_between_reads(printing: Printing) -> None:
    printing.prints(1, "one")
    before = len([*Path("/proc/self/fd").iterdir()])
    with closing(RunLog(cast("Cluster", printing), "edgefleet", lambda: [POD])) as log:
        assert read_all(log) == b"one\n"
        assert len([*Path("/proc/self/fd").iterdir()]) == before


def test_what_was_rotated_away_is_not_read_again(printing: Printing, log: RunLog) -> None:
    printing.prints(1, "one")
    printing.prints(2, "two")
    assert read_all(log) == b"one\ntwo\n"
    printing.lines.clear()
    printing.prints(3, "three")
    assert read_all(log) == b"one\ntwo\nthree\n"


def test_a_pod_taken_away_since_it_was_listed_leaves_what_was_read(
    printing: Printing, log: RunLog
) -> None:
    printing.prints(1, "one")
    assert read_all(log) == b"one\n"
    printing.refusal = (404, "NotFound")
    assert read_all(log) == b"one\n"


UNHEARD = (500, "InternalError")  # no route to the node


def test_what_was_read_stays_readable_while_the_node_does_not_answer(
    printing: Printing, log: RunLog, caplog: pytest.LogCaptureFixture
) -> None:
    printing.prints(1, "one")
    assert read_all(log) == b"one\n"
    printing.prints(2, "two")
    printing.refusal = UNHEARD
    assert read_all(log) == b"one\n"
    assert "lines of pod run-1-0 are missing" in caplog.text
    printing.refusal = None
    assert read_all(log) == b"one\ntwo\n"


def test_an_output_of_which_nothing_can_be_read_is_an_error(
    printing: Printing, log: RunLog
) -> None:
    printing.refusal = UNHEARD
    with pytest.raises(ApiError):
        read_all(log)


@pytest.mark.parametrize("phase", ["Running", "Failed"])
def test_an_output_goes_on_with_the_pod_that_followed_one_on_a_lost_node(
    printing: Printing, phase: str
) -> None:
    pods = [pod(phase, **BEGUN)]
    printing.refusal = UNHEARD
    with closing(RunLog(cast("Cluster", printing), "edgefleet", lambda: pods)) as log:
        pods.append(pod("Running", name="run-1-1", **BEGUN))
        printing.prints(1, "of the second")
        assert read_all(log) == b"of the second\n"
        printing.refusal = None
        assert read_all(log) == b"of the second\n"


def test_an_output_that_may_not_be_read_is_an_error(printing: Printing, log: RunLog) -> None:
    printing.refusal = (403, "Forbidden")
    with pytest.raises(ApiError):
        read_all(log)


@pytest.mark.parametrize("phase", ["Running", "Failed"])
def test_a_container_that_never_began_is_not_asked_for_lines(
    printing: Printing, phase: str
) -> None:
    waiting = pod(phase, state={"waiting": {"reason": "ContainerCreating"}})
    printing.refusal = (400, "BadRequest")
    with closing(RunLog(cast("Cluster", printing), "edgefleet", lambda: [waiting])) as log:
        assert read_all(log) == b""


def test_a_container_that_waits_to_begin_again_leaves_what_it_printed(printing: Printing) -> None:
    last = {"terminated": {"exitCode": 1, **BEGUN}}
    again = pod("Running", state={"waiting": {"reason": "CrashLoopBackOff"}}, lastState=last)
    printing.prints(1, "one")
    with closing(RunLog(cast("Cluster", printing), "edgefleet", lambda: [again])) as log:
        assert read_all(log) == b"one\n"


@pytest.fixture
def logs(
    printing: Printing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[RunLogs, Callable[[], RunLog]]]:
    """Outputs of runs in a folder of their own, and what makes one."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def make() -> RunLog:
        return RunLog(cast("Cluster", printing), "edgefleet", lambda: [POD])

    with closing(RunLogs()) as opened:
        yield opened, make


def test_outputs_of_runs_that_were_read_long_ago_are_let_go(
    printing: Printing, logs: tuple[RunLogs, Callable[[], RunLog]], tmp_path: Path
) -> None:
    opened, make = logs
    printing.prints(1, "up")
    for number in range(2 * KEPT):
        assert opened.read(f"run-{number}", 0, make) == b"up\n"
        assert opened.read("run-0", 0, lambda: None) == b"up\n"
    assert len(opened) == len(list(tmp_path.iterdir())) == KEPT
    assert opened.read("run-1", 0, make) == b"up\n"
    opened.close()
    assert not list(tmp_path.iterdir())


def test_an_output_whose_file_was_tidied_away_is_read_again(
    printing: Printing, logs: tuple[RunLogs, Callable[[], RunLog]], tmp_path: Path
) -> None:
    opened, make = logs
    printing.prints(1, "up")
    assert opened.read("run-1", 0, make) == b"up\n"
    for folder in tmp_path.iterdir():
        shutil.rmtree(folder)
    printing.prints(2, "on")
    assert opened.read("run-1", 3, make) == b"on\n"


def test_a_run_that_is_unknown_has_no_output(
    logs: tuple[RunLogs, Callable[[], RunLog]],
) -> None:
    opened, _ = logs
    assert opened.read("run-1", 0, lambda: None) == b""
    assert not len(opened)
