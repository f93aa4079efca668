"""One command, pasted on a machine: it installs, joins and serves what the fleet delivers."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

import edgefleet as ef
from device_runtime.tests.node.device import times
from edgefleet.runtime_archive.builder import Built
from edgefleet.testing.cloud.ports import HeldPort
from tests.runtime_archive.machine import Machine

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="devices have Linux"),
]

TIMEOUT_S = 120.0


@contextmanager
def gateway(root: Path, archive: Path) -> Iterator[Path]:
    """A gateway that keeps a whole fleet in a folder; gives the fleet's configuration."""
    command = [sys.executable, "-m", "edgefleet.cli", "gateway", "serve", "--root", str(root)]
    with (
        closing(HeldPort()) as held,
        subprocess.Popen(
            [*command, "--port", str(held.number), "--runtime", str(archive)],
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if line.startswith("listening at "):
                    break
            else:
                pytest.fail("the gateway ended")
            yield root / "edgefleet.toml"
        finally:
            process.kill()


def test_one_command_makes_a_machine_a_device_that_serves(real: Built, tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine", Path(sys.executable).resolve())
    (tmp_path / "model.onnx").write_bytes(times(3))
    with gateway(tmp_path / "fleet", real.path) as config, ef.connect(config=config) as fleet:
        invited = fleet.invite("cam-07", group="line-3", lasts=timedelta(minutes=10))
        here = [*machine.places, "--http", "127.0.0.1:0", "--socket", "none"]
        machine.do(["sh", "-c", f"{invited.command} {shlex.join(here)}"])
        assert invited.token not in machine.unit.read_text()
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                machine.command(), env=machine.environment(), stdout=log, stderr=log
            )
        try:
            deployed = fleet.deploy(fleet.push(tmp_path / "model.onnx", "digits"), to="line-3")
            deployed.wait(timeout_s=TIMEOUT_S)
            (device,) = fleet.devices("line-3")
            assert device.name == "cam-07"
            assert device.report is not None
            assert device.report.health.pid == process.pid
            x = np.ones((1, 4), np.float32)
            answer = fleet.device("cam-07").infer("digits", x)
            assert float(np.asarray(answer["y"])[0, 0]) == 3
        except BaseException:
            sys.stderr.write((tmp_path / "log").read_text())
            raise
        finally:
            process.terminate()
            assert process.wait(30) == 0
