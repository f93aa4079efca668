from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgefleet.errors import InvalidInputError
from edgefleet.testing.mock import MockSession, mock
from edgefleet.testing.waiting import eventually
from edgefleet_local.devices import Devices
from providers.local.tests.support import alive

X = np.array([[1, 2, 3, 4]], dtype=np.float32)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[MockSession]:
    with mock("local", devices=2, group="line-3", state=tmp_path / "state") as session:
        yield session


def _model(folder: Path, factor: float) -> Path:
    """y = factor * x."""
    path = folder / f"times-{factor:g}.onnx"
    scale = numpy_helper.from_array(np.array(factor, dtype=np.float32), "factor")
    io = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 4]) for n in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])], "graph", io[:1], io[1:], [scale]
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


def _devices(session: MockSession) -> Devices:
    return Devices(session.config.parent / "local" / "fleet")


def _pid(session: MockSession, name: str) -> int:
    def running() -> int | None:
        found = _devices(session).running(name)
        return found.pid if found.now else None

    return eventually(running)


def test_a_model_reaches_the_devices_and_events_come_back(
    session: MockSession, tmp_path: Path
) -> None:
    with session.connect() as fleet:
        model = fleet.push(_model(tmp_path, 2), "double", progress=False)
        status = fleet.deploy(model, to="line-3").wait(timeout_s=60, progress=False)
        assert (status.attested, status.failed) == (2, 0)
        for name in ("dev-01", "dev-02"):
            answer = fleet.device(name).infer("double", X)
            np.testing.assert_allclose(answer["y"], 2 * X)

        def told() -> set[str]:
            return {event.device for event in fleet.events(kind="prediction", model="double")}

        eventually(lambda: told() == {"dev-01", "dev-02"})


def test_a_shadow_is_compared_on_the_devices_until_it_takes_the_place(
    session: MockSession, tmp_path: Path
) -> None:
    with session.connect() as fleet:
        first = fleet.push(_model(tmp_path, 2), "scale", progress=False)
        second = fleet.push(_model(tmp_path, -2), "scale", progress=False)
        with pytest.raises(InvalidInputError, match="no active model 'scale'"):
            fleet.deploy(second, to="line-3", role="shadow")
        fleet.deploy(first, to="line-3")
        plan = fleet.plan(second, to="line-3", role="shadow")
        assert "add scale (shadow) 2" in str(plan)
        status = fleet.deploy(second, to="line-3", role="shadow").wait(timeout_s=60, progress=False)
        assert status.attested == 2
        answer = fleet.device("dev-01").infer("scale", X)
        np.testing.assert_allclose(answer["y"], 2 * X)
        eventually(lambda: "shadow: 1 compared, 0.0% agree" in str(fleet.status("line-3").facts()))
        fleet.deploy(second, to="line-3").wait(timeout_s=60, progress=False)
        answer = fleet.device("dev-01").infer("scale", X)
        np.testing.assert_allclose(answer["y"], -2 * X)
        assert "shadow" not in str(fleet.status("line-3").facts())


def test_a_device_whose_power_was_cut_converges_when_it_is_back(
    session: MockSession, tmp_path: Path
) -> None:
    with session.connect() as fleet:
        first = fleet.push(_model(tmp_path, 2), "scale", progress=False)
        fleet.deploy(first, to="line-3").wait(timeout_s=60, progress=False)
        pid = _pid(session, "dev-02")
        session.kill_device("dev-02")
        assert not alive(pid)
        second = fleet.push(_model(tmp_path, 3), "scale", progress=False)
        deployment = fleet.deploy(second, to="line-3")
        status = deployment.wait(min_attested=0.5, timeout_s=60, progress=False)
        offline = {d.device: d.why for d in status.devices if d.device == "dev-02"}
        assert "offline since" in offline["dev-02"]
        session.start_device("dev-02")
        deployment.wait(timeout_s=60, progress=False)
        np.testing.assert_allclose(fleet.device("dev-02").infer("scale", X)["y"], 3 * X)


def test_only_the_mock_runs_devices(session: MockSession) -> None:
    pid = _pid(session, "dev-01")
    with session.connect() as fleet:
        fleet.enroll("dev-03", group="line-3")
        _pid(session, "dev-03")
    assert alive(pid)


def test_a_script_runs_unchanged_against_it(session: MockSession, tmp_path: Path) -> None:
    script = (
        "import edgefleet; fleet = edgefleet.connect(); "
        "print(*sorted(device.name for device in fleet.devices()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **session.environment},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shlex.split(done.stdout) == ["dev-01", "dev-02"]


def test_it_tells_what_it_saw(session: MockSession) -> None:
    session.kill_device("dev-01")
    seen = [line.split(" ", 1)[1] for line in session.clouds[0].seen()]
    assert seen == [
        "deployer.enroll dev-01 line-3",
        "deployer.enroll dev-02 line-3",
        "deployer.switch dev-01 off",
    ]


def test_stopping_leaves_no_process_and_starting_again_goes_on(tmp_path: Path) -> None:
    pids = []
    for devices in (1, 0):
        with mock("local", devices=devices, state=tmp_path / "state") as session:
            pids.append(_pid(session, "dev-01"))
        assert not alive(pids[-1])
    assert pids[0] != pids[1]
