"""What systemd hears of a runtime, over a real datagram socket."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_runtime.tests.node.device import Device, publish
from device_runtime.tests.onnx_models import plus
from device_runtime.tests.support import Repository
from edgefleet_runtime.notify import Pulse, ServiceManager, keep_alive

DEADLINE_S = 90.0


class Listener:
    """The service manager's end."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address.replace("@", "\0", 1))
        self.socket.settimeout(DEADLINE_S)

    def hear(self) -> str:
        return self.socket.recv(4096).decode()

    def silent(self) -> bool:
        self.socket.setblocking(False)
        try:
            self.socket.recv(4096)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(DEADLINE_S)
        return False


@pytest.fixture(params=["path", "abstract"] if sys.platform == "linux" else ["path"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listener]:
    path = str(tmp_path / "n")
    listener = Listener(
        path if request.param == "path" else f"@edgefleet-{tmp_path.name}-{id(path)}"
    )
    yield listener
    listener.socket.close()


def test_it_hears_of_readiness_life_and_the_end(systemd: Listener) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": systemd.address})
    manager.ready()
    manager.alive()
    manager.stopping()
    assert [systemd.hear() for _ in range(3)] == ["READY=1", "WATCHDOG=1", "STOPPING=1"]


def test_without_a_socket_nothing_is_sent_and_nothing_fails() -> None:
    manager = ServiceManager({"WATCHDOG_USEC": "1000000"})
    manager.ready()
    assert manager.every_s is None


def test_a_socket_that_is_gone_harms_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()
    assert "can't be told READY=1" in caplog.text


@pytest.mark.parametrize(
    "environment, every_s",
    [
        ({"WATCHDOG_USEC": "60000000"}, 30),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "7"}, 30),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_signs_of_life_come_twice_as_often_as_asked_and_for_this_process_only(
    environment: dict[str, str], every_s: float | None
) -> None:
    assert ServiceManager({"NOTIFY_SOCKET": "/n", **environment}, pid=7).every_s == every_s


def test_a_promise_that_is_kept_is_never_late() -> None:
    now = [100.0]
    pulse = Pulse(lambda: now[0])
    now[0] += 1e9
    assert not pulse.late()  # nothing was promised yet
    pulse.beat(60)
    now[0] += 60
    assert not pulse.late()
    now[0] += 0.1
    assert pulse.late()
    pulse.beat(1)
    assert not pulse.late()


def test_what_makes_no_progress_is_not_called_alive(systemd: Listener) -> None:
    healthy = [True]

    async def live() -> None:
        manager = ServiceManager({"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "2000"})
        asked = asyncio.Event()

        def ask() -> bool:
            if not healthy[0]:
                asked.set()
            return healthy[0]

        task = asyncio.ensure_future(keep_alive(manager, ask))
        assert await asyncio.to_thread(systemd.hear) == "WATCHDOG=1"
        healthy[0] = False
        await asked.wait()
        while not systemd.silent():  # what was said before
            pass
        asked.clear()
        await asked.wait()
        assert systemd.silent()
        healthy[0] = True
        assert await asyncio.to_thread(systemd.hear) == "WATCHDOG=1"
        task.cancel()

    asyncio.run(asyncio.wait_for(live(), DEADLINE_S))


def test_a_runtime_tells_when_it_serves_that_it_lives_and_that_it_stops(tmp_path: Path) -> None:
    listener = Listener(str(tmp_path / "n"))
    repository = Repository(tmp_path / "fleet")
    repository.point(repository.release({"digits": publish(repository, 2)}))
    device = Device(tmp_path / "cam-07", repository)
    device.environment = {"NOTIFY_SOCKET": listener.address, "WATCHDOG_USEC": "200000"}
    try:
        device.start()
        assert [listener.hear(), listener.hear()] == ["READY=1", "WATCHDOG=1"]
        device.signal(signal.SIGTERM)
        heard = listener.hear()
        while heard == "WATCHDOG=1":
            heard = listener.hear()
        assert heard == "STOPPING=1"
        assert device.ended() == 0
    finally:
        device.kill()
        listener.socket.close()


def test_a_server_without_a_fleet_tells_the_same(tmp_path: Path) -> None:
    """If this fails, systemd ends it after TimeoutStartSec, again and again."""
    listener = Listener(str(tmp_path / "n"))
    file = plus(tmp_path / "one.onnx", 1)
    told = {"NOTIFY_SOCKET": listener.address, "WATCHDOG_USEC": "200000"}
    command = [sys.executable, "-m", "edgefleet_runtime", "serve", "--model", f"one={file}"]
    with subprocess.Popen(
        [*command, "--http", "127.0.0.1:0"], stdout=subprocess.PIPE, env={**os.environ, **told}
    ) as process:
        try:
            assert [listener.hear(), listener.hear()] == ["READY=1", "WATCHDOG=1"]
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"serving on ")
            process.send_signal(signal.SIGTERM)
            heard = listener.hear()
            while heard == "WATCHDOG=1":
                heard = listener.hear()
            assert heard == "STOPPING=1"
            assert process.wait(DEADLINE_S) == 0
        finally:
            process.kill()
            listener.socket.close()
