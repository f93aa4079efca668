"""Who runs the devices, and what is left when it ends. Every runtime and operator is a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from edgefleet.testing.waiting import eventually
from edgefleet_local import machine
from edgefleet_local.deployer import LocalDeployer
from edgefleet_local.devices import Devices
from edgefleet_local.machine import MAX_DELAY_S, Machine
from providers.local.tests.support import alive

Holder = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def deployer(home: Path) -> Iterator[LocalDeployer]:
    deployer = LocalDeployer(home)
    yield deployer
    deployer.close()


@pytest.fixture
def holder(home: Path) -> Iterator[Holder]:
    """Starts another process that runs the devices."""
    started: list[subprocess.Popen[bytes]] = []

    def start(how: str, *names: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("holder.py")), str(home), how, *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def _pid(home: Path, device: str, *, other_than: int | None = None) -> int:
    """The device's process, once it runs; the next one after ``other_than``."""
    devices = Devices(home)

    def running() -> int | None:
        found = devices.running(device)
        return found.pid if found.now and found.pid != other_than else None

    return eventually(running)


def _reported(home: Path, device: str) -> int:
    """The process that the device's report names, once it is the one that runs."""
    devices = Devices(home)

    def same() -> int | None:
        report, _, _ = devices.report(device)
        running = devices.running(device)
        if report is not None and running.now and report.health.pid == running.pid:
            return running.pid
        return None

    return eventually(same)


def test_an_enrolled_device_runs_and_reports(home: Path, deployer: LocalDeployer) -> None:
    given = {"target": "jetson-orin", "line": "a = b", "-dash": "x" * 63}
    deployer.enroll("cam-1", group="line-3", labels=given)
    pid = _reported(home, "cam-1")
    device = deployer.device("cam-1")
    assert device.connected is True
    assert device.evidence["process"] == str(pid)
    assert device.report is not None
    assert given.items() <= device.report.labels.items()


def test_looking_starts_nothing(home: Path) -> None:
    LocalDeployer(home, supervise=False).enroll("cam-1", group="line-3")
    looking = LocalDeployer(home)
    assert looking.device("cam-1").connected is False
    assert [group.devices for group in looking.groups()] == [1]
    assert looking.pointer("line-3") is None
    assert not looking._supervisor.runs_devices
    assert looking._supervisor._thread is None
    assert not (home / "machines").exists()


def test_closing_leaves_no_process(home: Path, deployer: LocalDeployer) -> None:
    for name in ("cam-1", "cam-2"):
        deployer.enroll(name, group="line-3")
    pids = [_pid(home, name) for name in ("cam-1", "cam-2")]
    deployer.close()
    assert not any(map(alive, pids))
    assert [device.connected for device in deployer.devices()] == [False, False]
    deployer.run_devices()
    assert alive(_pid(home, "cam-1", other_than=pids[0]))


def test_a_device_that_dies_is_started_again(home: Path, deployer: LocalDeployer) -> None:
    deployer.enroll("cam-1", group="line-3")
    pid = _pid(home, "cam-1")
    os.kill(pid, signal.SIGKILL)
    assert alive(_pid(home, "cam-1", other_than=pid))
    evidence = deployer.device("cam-1").evidence
    assert evidence["starts"] == "2"
    assert evidence["the process before ended with"] == "killed by SIGKILL"


def test_without_power_a_device_stays_down(home: Path, deployer: LocalDeployer) -> None:
    deployer.enroll("cam-1", group="line-3")
    pid = _pid(home, "cam-1")
    deployer.switch("cam-1", on=False)
    assert not alive(pid)
    assert deployer.device("cam-1").evidence["power"] == "off"
    deployer.close()
    deployer.enroll("cam-2", group="line-3")
    _pid(home, "cam-2")
    assert deployer.device("cam-1").connected is False
    deployer.switch("cam-1", on=True)
    assert alive(_pid(home, "cam-1", other_than=pid))


def test_a_retired_device_ends_and_leaves_what_it_recorded(
    home: Path, deployer: LocalDeployer
) -> None:
    deployer.enroll("cam-1", group="line-3")
    pid = _reported(home, "cam-1")
    kept = home / "devices" / "cam-1" / "segments" / "a"
    kept.parent.mkdir()
    kept.write_text("recorded")
    deployer.retire("cam-1")
    assert not alive(pid)
    assert not (home / "machines" / "cam-1").exists()
    assert kept.exists()
    assert deployer.enroll("cam-1", group="line-4").report is None
    _pid(home, "cam-1", other_than=pid)


def test_what_another_process_enrols_is_run_by_the_one_that_runs(
    home: Path, deployer: LocalDeployer, holder: Holder
) -> None:
    other = holder("wait", "cam-1")
    _pid(home, "cam-1")  # by now it runs them
    deployer.enroll("cam-2", group="line-3")
    pid = _pid(home, "cam-2")
    assert not deployer._supervisor.runs_devices
    deployer.close()
    assert alive(pid)
    other.send_signal(signal.SIGINT)
    other.wait(90)
    assert not alive(pid)


def test_another_takes_over_when_the_one_that_runs_is_killed(
    home: Path, deployer: LocalDeployer, holder: Holder
) -> None:
    other = holder("wait", "cam-1")
    pid = _pid(home, "cam-1")
    deployer.run_devices()
    other.kill()
    other.wait()
    taken_over = _pid(home, "cam-1", other_than=pid)
    assert not alive(pid)
    assert deployer._supervisor.runs_devices
    assert _reported(home, "cam-1") == taken_over


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_device_outlives_who_runs_it(home: Path, holder: Holder, ending: signal.Signals) -> None:
    other = holder("wait", "cam-1", "cam-2")
    pids = [_reported(home, name) for name in ("cam-1", "cam-2")]
    other.send_signal(ending)
    other.wait(90)
    eventually(lambda: not any(map(alive, pids)))


def test_no_device_outlives_a_process_that_just_ends(home: Path, holder: Holder) -> None:
    other = holder("leave", "cam-1")
    other.wait(90)
    assert Devices(home).running("cam-1").now is False


def test_a_forked_child_does_not_keep_devices_alive(home: Path, holder: Holder) -> None:
    other = holder("fork", "cam-1")
    pid = _reported(home, "cam-1")
    other.kill()
    other.wait()
    eventually(lambda: not alive(pid))


def test_ctrl_c_does_not_reach_devices(home: Path, deployer: LocalDeployer) -> None:
    deployer.enroll("cam-1", group="line-3")
    assert os.getpgid(_pid(home, "cam-1")) != os.getpgid(0)


def test_serving_devices_ends_with_the_event(home: Path) -> None:
    deployer, stop = LocalDeployer(home), threading.Event()
    LocalDeployer(home, supervise=False).enroll("cam-1", group="line-3")
    serving = threading.Thread(target=deployer.serve_devices, args=(stop,))
    serving.start()
    try:
        pid = _pid(home, "cam-1")
    finally:
        stop.set()
        serving.join()
    assert not alive(pid)


def test_a_runtime_that_dies_young_is_started_ever_later(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = Devices(home)
    devices.enroll("cam-1", "line-3", {})
    monkeypatch.setattr(
        machine, "command", lambda *_: [sys.executable, "-c", "raise SystemExit(3)"]
    )
    one, now, delays = Machine(devices, "cam-1", os.environ), 0.0, []
    for starts in range(1, 13):
        one.step(now)
        assert devices.running("cam-1").starts == starts
        eventually(partial(_died, one, now))
        delays.append(one._not_before - now)
        one.step(one._not_before - 0.001)
        assert devices.running("cam-1").starts == starts, "started too early"
        now = one._not_before
    assert delays == sorted(delays)
    assert (delays[0] < 1, delays[-1]) == (True, MAX_DELAY_S)
    assert devices.running("cam-1").last_exit == "exit status 3"


def _died(one: Machine, now: float) -> bool:
    one.step(now)
    return one._process is None


def test_a_long_log_is_begun_anew(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = Devices(home)
    devices.enroll("cam-1", "line-3", {})
    talk = "print('x' * 5000, flush=True); input(); print('and on', flush=True); input()"
    monkeypatch.setattr(machine, "command", lambda *_: [sys.executable, "-c", talk])
    monkeypatch.setattr(machine, "MAX_LOG_BYTES", 4000)
    one = Machine(devices, "cam-1", os.environ)
    one.step(0.0)
    log = devices.log("cam-1")
    try:
        eventually(lambda: log.stat().st_size > 4000)
        one.step(1.0)
        assert log.read_bytes() == b""
        assert len(log.with_name("runtime.1.log").read_bytes()) == 5001
        assert one._process is not None
        assert one._process.stdin is not None
        one._process.stdin.write(b"\n")
        one._process.stdin.flush()
        assert eventually(log.read_bytes) == b"and on\n"
    finally:
        one.ask_to_end(2.0)
        one.end_by(0.0)
