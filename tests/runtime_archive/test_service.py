"""The archive, installed with no index reachable, started by its unit's command line, serving."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_runtime.tests.node.device import Device, publish
from device_runtime.tests.support import Repository
from edgefleet.protocol.gateway import Archive
from edgefleet.runtime_archive.builder import Built
from edgefleet.runtime_archive.script import install_script
from tests.runtime_archive.conftest import ROOT
from tests.runtime_archive.machine import Machine

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="devices have Linux"),
]


class Service(Device):
    """A device that is started as systemd would, but for its confinement."""

    def __init__(self, machine: Machine, repository: Repository) -> None:
        super().__init__(machine.root, repository)
        self.machine = machine

    def command(self) -> list[str]:
        return self.machine.command()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return Repository(tmp_path_factory.mktemp("fleet"))


@pytest.fixture(scope="module")
def machine(
    real: Built, repository: Repository, tmp_path_factory: pytest.TempPathFactory
) -> Machine:
    found = Machine(tmp_path_factory.mktemp("machine"), Path(sys.executable).resolve())
    script = install_script("0.1.0", {real.manifest.platform: Archive(digest=real.digest, size=1)})
    options = ["--channel", "file", "-o", f"pointer={repository.pointer_path}"]
    found.install(
        script,
        *("--archive", str(real.path), "--memory-max", "2G", "--http", "127.0.0.1:0"),
        *("--socket", "none", "--", "--device", "cam-07"),
        *options,
        *("-o", f"outbox={found.root / 'outbox'}"),
        network=False,
    )
    return found


@pytest.fixture
def service(machine: Machine, repository: Repository) -> Iterator[Service]:
    made = Service(machine, repository)
    yield made
    made.kill()


def test_it_is_started_by_its_units_command_line_and_serves(
    machine: Machine, service: Service, repository: Repository, tmp_path: Path
) -> None:
    systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    systemd.bind(str(tmp_path / "notify"))
    systemd.settimeout(90)
    release = repository.release({"digits": publish(repository, 3)})
    repository.point(release)
    service.environment = {**machine.environment(), "NOTIFY_SOCKET": str(tmp_path / "notify")}
    with systemd:
        report = service.start().active(release)
        assert systemd.recv(100) == b"READY=1"
        with service.client() as client:
            assert client.factor() == 3
        assert report.runtime == "0.1.0"
        served = Path(f"/proc/{report.health.pid}/exe").resolve()
        assert served == Path(sys.executable).resolve()
        running = Path(f"/proc/{report.health.pid}/cmdline").read_bytes().decode()
        assert str(machine.state / "runtime" / "current") in running
        service.signal(signal.SIGTERM)
        assert service.ended() == 0
        assert systemd.recv(100) == b"STOPPING=1"


def test_the_service_manager_has_nothing_to_say_of_the_unit(machine: Machine) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("there is no systemd here")
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(machine.unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if machine.unit.name in line]
    assert (done.returncode, said) == (0, [])


def test_the_unit_confines_it(machine: Machine) -> None:
    for key, value in {
        "Type": "notify",
        "Restart": "always",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "PrivateTmp": "yes",
        "CapabilityBoundingSet": "",
        "SystemCallFilter": "@system-service",
        "MemoryMax": "2G",
        "ReadWritePaths": str(machine.state),
        "RuntimeDirectory": "edgefleet",
    }.items():
        assert machine.settings(key) == [value]
    assert machine.settings("User") != [""]


def test_the_page_shows_the_unit_that_the_script_writes() -> None:
    folder = Path(str(sys.modules[install_script.__module__].__file__)).parent
    written = (folder / "device_install.sh").read_text("utf-8")
    written = written[written.index("[Unit]") : written.index("WantedBy=")].replace("}", "\n")
    page = (ROOT / "docs" / "how-to" / "systemd.md").read_text("utf-8")
    shown = page[page.index("[Unit]") : page.index("WantedBy=")].splitlines()
    keys = {
        line.partition("=")[0] for line in written.splitlines() if "=" in line and line[0] != "$"
    }
    assert {line.partition("=")[0] for line in shown if "=" in line} >= keys
    told = {"ExecStart", "User", "WorkingDirectory", "StateDirectory", "StateDirectoryMode"}
    for line in shown:
        if "=" in line and line[0].isupper() and line.partition("=")[0] not in told:
            assert f"\n{line}\n" in written
