"""The mock as a user has it: a command that runs unchanged, power cuts, a folder that is kept."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from edgefleet.errors import ConfigurationError, NotFoundError, UnavailableError
from edgefleet.testing.kit import models
from edgefleet.testing.mock import mock
from edgefleet.testing.waiting import eventually
from edgefleet_gateway.cloud.machine import Machine, Told
from edgefleet_gateway.mock import GatewayMock

if TYPE_CHECKING:
    from edgefleet.protocol.report import Report
    from edgefleet.testing.mock import MockSession

SCRIPT = """
import sys
from pathlib import Path

import edgefleet as ef

with ef.connect() as fleet:
    model = fleet.push(Path(sys.argv[1]), "digits", progress=False)
    status = fleet.deploy(model, to="line-3").wait(timeout_s=120, progress=False)
    print(status.attested, sorted(device.name for device in fleet.devices()))
"""


def cloud_of(session: MockSession) -> GatewayMock:
    (found,) = (cloud for cloud in session.clouds if isinstance(cloud, GatewayMock))
    return found


def report_of(session: MockSession, name: str, *, starts: int) -> Report:
    """A device's report, once its runtime has been started so often."""

    def there() -> Report | None:
        with session.connect() as fleet:
            report = fleet.device(name).info.report
        return report if report is not None and report.health.starts >= starts else None

    return eventually(there, f"{starts} starts of {name}")


def test_a_script_runs_unchanged_with_real_devices(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    model = models.write_model(tmp_path / "model.onnx", 1)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("EDGEFLEET_")}
    command = [sys.executable, "-m", "edgefleet.cli", "mock", "gateway,local"]
    command += ["--devices", "3", "--group", "line-3", "--log"]
    done = subprocess.run(
        [*command, "--", sys.executable, str(script), str(model)],
        capture_output=True,
        text=True,
        env={**kept, "HOME": str(tmp_path)},
        cwd=tmp_path,
        check=True,
    )
    assert done.stdout.splitlines() == ["3 ['dev-01', 'dev-02', 'dev-03']"]
    audited = [line for line in done.stderr.splitlines() if line.startswith("gateway: {")]
    assert len([line for line in audited if "/v1/enroll" in line]) == 3
    assert any("/v1/blobs/" in line for line in audited)


def test_power_is_cut_and_comes_back(tmp_path: Path) -> None:
    with mock("gateway", "local", devices=1, group="line-3", state=tmp_path) as session:
        cloud = cloud_of(session)
        first = report_of(session, "dev-01", starts=1)
        assert cloud.machine("dev-01").pid == first.health.pid
        session.kill_device("dev-01")
        assert cloud.machine("dev-01").pid is None
        session.start_device("dev-01")
        again = report_of(session, "dev-01", starts=2)
        assert again.health.pid != first.health.pid
        with pytest.raises(NotFoundError):
            session.kill_device("nobody")


def test_a_runtime_that_ends_is_started_again(tmp_path: Path) -> None:
    with mock("gateway", "local", devices=1, group="line-3", state=tmp_path) as session:
        os.kill(report_of(session, "dev-01", starts=1).health.pid, 9)
        report_of(session, "dev-01", starts=2)


def test_a_mock_goes_on_with_its_devices_and_gateways(tmp_path: Path) -> None:
    with mock("gateway", "local", devices=2, group="line-3", state=tmp_path) as session:
        addresses = session.clouds[0].settings["addresses"]
        report_of(session, "dev-01", starts=1)
        report_of(session, "dev-02", starts=1)
        session.kill_device("dev-02")
    with mock("gateway", "local", state=tmp_path) as session:
        assert session.clouds[0].settings["addresses"] == addresses
        report_of(session, "dev-01", starts=2)
        assert cloud_of(session).machine("dev-02").pid is None
        lines = list(session.clouds[0].seen())
        assert len([line for line in lines if "/v1/enroll" in line]) == 2


def test_a_gateway_that_could_not_start_starts_later(tmp_path: Path) -> None:
    with mock("gateway", "local", state=tmp_path) as session:
        cloud = cloud_of(session)
        cloud.stop_gateway()
        port = urlsplit(cloud.settings["addresses"][0]).port
        with socket.create_server(("127.0.0.1", port or 0)), pytest.raises(ConfigurationError):
            cloud.start_gateway()
        cloud.start_gateway()
        cloud.join("dev-01", group="line-3")
        assert cloud.machine("dev-01").identity.is_dir()


def test_a_machine_that_is_not_let_in_says_so(tmp_path: Path) -> None:
    with mock("gateway", "local", state=tmp_path) as session:
        cloud = cloud_of(session)
        told = Told(cloud.settings["addresses"][0], f"sha256//{cloud.pins()[0]}", "x" * 40)
        with pytest.raises(UnavailableError, match="token"):
            Machine(tmp_path / "stranger", "stranger").join(told, {})


def test_a_mock_that_does_not_run_has_no_devices(tmp_path: Path) -> None:
    cloud = GatewayMock(tmp_path)
    with pytest.raises(ConfigurationError, match="isn't running"):
        cloud.add_device("a", group="line-3")
    cloud.stop()


def test_a_mock_on_its_own_says_what_it_stands_on() -> None:
    with pytest.raises(ConfigurationError, match="edgefleet mock gateway,local"), mock("gateway"):
        pytest.fail("it has no state store")
