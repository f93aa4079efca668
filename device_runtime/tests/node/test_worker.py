from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from device_runtime.tests.reconciler.rig import Rig
from edgefleet.errors import UnavailableError
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.notify import Pulse
from edgefleet_runtime.spool.spool import Spool
from edgefleet_runtime.worker import WORK_S, Worker


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def worker(rig: Rig, pulse: Pulse | None = None) -> Worker:
    return Worker(
        driver=rig.driver,
        channel=rig.channel,
        store=rig.store,
        fetcher=rig.fetcher,
        spool=Spool(rig.root / "spool", rig.channel, device="cam-07", max_bytes=1 << 20),
        root=rig.root,
        labels={"target": "x86-cpu"},
        endpoint=lambda: "http://127.0.0.1:1",
        pid=7,
        pulse=pulse,
    )


def test_a_release_on_its_way_is_reported_before_it_is_fetched(rig: Rig) -> None:
    release = rig.repository.release({"digits": rig.repository.fake(2)})
    rig.channel.offer(rig.repository.pointer(release))
    working = worker(rig)
    working.start()
    eventually(lambda: rig.channel.reports and rig.channel.reports[-1].running == release)
    working.stop()
    assert working.join(90)
    first, *_, last = rig.channel.reports
    assert (first.state, first.health.bytes_fetched, first.wanted) == ("working", 0, release)
    assert (last.state, last.endpoint, last.labels) == ("active", None, {"target": "x86-cpu"})
    assert last.health.bytes_fetched > 0
    assert [report.sequence for report in rig.channel.reports] == sorted(
        {report.sequence for report in rig.channel.reports}
    )


@pytest.fixture
def stopped() -> Iterator[Callable[[Worker], Worker]]:
    """Starts workers, which are stopped at the end."""
    begun: list[Worker] = []

    def begin(working: Worker) -> Worker:
        working.start()
        begun.append(working)
        return working

    yield begin
    for one in begun:
        one.stop()
        assert one.join(90)


def test_a_device_that_never_asked_its_channel_hasnt_settled(rig: Rig) -> None:
    assert worker(rig).settled is False


def test_a_device_whose_channel_cant_tell_hasnt_settled(
    rig: Rig, stopped: Callable[[Worker], Worker]
) -> None:
    def pointer() -> bytes | None:
        raise UnavailableError("the channel is away", cure="wait")

    rig.channel.pointer = pointer  # type: ignore[method-assign]
    working = stopped(worker(rig))
    eventually(lambda: rig.channel.reports)
    assert working.settled is False


def test_a_device_that_cant_read_its_pointer_hasnt_settled(
    rig: Rig, stopped: Callable[[Worker], Worker]
) -> None:
    rig.channel.offer(b"{")
    working = stopped(worker(rig))
    eventually(lambda: rig.channel.reports and rig.channel.reports[-1].errors)
    assert working.settled is False


def test_a_turn_that_fails_for_no_known_reason_does_not_end_the_thread(rig: Rig) -> None:
    working = worker(rig)
    make, failures = rig.driver.models, [KeyError("a bug")]

    def models() -> object:
        if failures:
            raise failures.pop()
        return make()

    rig.driver.models = models  # type: ignore[assignment,method-assign]
    working.start()
    eventually(lambda: rig.channel.reports)
    working.stop()
    assert working.join(90)
    assert working.ready is False


def test_a_channel_that_fails_to_wait_does_not_end_the_thread(
    rig: Rig, stopped: Callable[[Worker], Worker]
) -> None:
    failed: list[float] = []

    def wait(timeout_s: float) -> bool:
        failed.append(timeout_s)
        raise KeyError(timeout_s)

    rig.channel.wait = wait  # type: ignore[method-assign]
    working = stopped(worker(rig))
    eventually(lambda: len(failed) > 3)  # in a turn, and after it; and so again
    assert working.healthy()


def test_a_report_that_fails_for_no_known_reason_holds_up_no_release(
    rig: Rig, stopped: Callable[[Worker], Worker]
) -> None:
    def send_report(report: bytes) -> None:
        raise KeyError(len(report))

    step, steps = rig.driver.step, list[bool]()

    def counted() -> bool:
        steps.append(step())
        return steps[-1]

    rig.driver.step = counted  # type: ignore[method-assign]
    rig.channel.send_report = send_report  # type: ignore[method-assign]
    stopped(worker(rig))
    eventually(lambda: steps)


def test_a_reconciler_that_hangs_makes_no_progress(
    rig: Rig, stopped: Callable[[Worker], Worker]
) -> None:
    now, hangs, go_on = [0.0], threading.Event(), threading.Event()
    working = worker(rig, Pulse(lambda: now[0]))
    assert not working.healthy()  # it hasn't begun
    stopped(working)
    eventually(lambda: working.healthy() and rig.channel.reports)
    look = rig.channel.pointer

    def pointer() -> bytes | None:
        hangs.set()
        assert go_on.wait(90)
        return look()

    rig.channel.pointer = pointer  # type: ignore[method-assign]
    rig.channel.wake()
    assert hangs.wait(90)
    assert working.healthy()  # it may take a while
    now[0] += WORK_S + 1
    assert not working.healthy()
    go_on.set()
    eventually(working.healthy)
