"""`optimize` measures on a real device of a fleet: a runtime of its own, reached as any other."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgefleet as ef
from edgefleet.errors import ConflictError, UnavailableError, UnsupportedError
from edgefleet.protocol.hardware_target import architecture
from edgefleet.protocol.policy import TelemetryPolicy
from edgefleet.protocol.release import (
    Budget,
    Release,
    ReleaseModel,
    RuntimeSettings,
)
from edgefleet.testing.mock import mock
from edgefleet.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from edgefleet.fleet import Fleet
    from edgefleet.testing.mock import MockSession

TIMEOUT_S = 120.0
WIDE = 256
TARGET = {"x86_64": "x86-cpu", "aarch64": "raspberry-pi-5"}[architecture(platform.machine())]


@pytest.fixture
def session() -> Iterator[MockSession]:
    with mock("local") as session:
        session.add_device("cam-07", group="line-3", labels={"target": TARGET})
        yield session


@pytest.fixture
def fleet(session: MockSession) -> Iterator[Fleet]:
    with session.connect() as fleet:
        yield fleet


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A network of two layers, ``float32[n, 64] -> float32[n, 10]``."""
    chance = np.random.default_rng(0)
    arrays = {
        "w1": chance.standard_normal((64, WIDE)) / 8,
        "w2": chance.standard_normal((WIDE, 10)) / 16,
    }
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w1"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "w2"], ["scores"]),
        ],
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(a.astype(np.float32), name) for name, a in arrays.items()],
    )
    path = tmp_path / "network.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    return path


def points(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal((count, 64)).astype(np.float32)


def agreement(model: Path) -> Callable[[Callable[[Any], Any]], float]:
    """Share of points that a candidate tells as the model as given does."""
    import onnxruntime

    x = points(500)
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    due = session.run(None, {"x": x})[0].argmax(axis=1)
    return lambda predict: float((predict(x).argmax(axis=1) == due).mean())


def deployed(fleet: Fleet, model: Path, *, trial_s: float = 0.1) -> None:
    """Let the device serve the model, in a release that counts as good after ``trial_s``."""
    version = fleet.push(model, "network", progress=False)
    release = Release(
        models=(ReleaseModel(name="network", version=version.version, bundle=version.digest),),
        settings=RuntimeSettings(budget=Budget(trial_s=trial_s)),
        telemetry=TelemetryPolicy(heartbeat_s=0.5),
    )
    fleet.deploy(release, to="line-3").wait(timeout_s=TIMEOUT_S, progress=False)


def test_a_real_device_tells_its_figures_and_goes_on_serving(
    fleet: Fleet, model: Path, tmp_path: Path
) -> None:
    deployed(fleet, model)
    device = fleet.device("cam-07")
    before = device.status(timeout_s=TIMEOUT_S).health.store_bytes
    bundle = ef.optimize(
        model,
        targets=[TARGET],
        calibration=points(100),
        evaluate=agreement(model),
        max_accuracy_drop=0.1,
        candidates=["int8", "fp16"],
        name="network",
        device=device,
        output=tmp_path / "bundle",
        progress=False,
    )
    (target,) = bundle.report.targets
    assert target.measured_on == "cam-07"
    assert target.p50_ms is not None
    assert target.p99_ms is not None
    assert 0 < target.p50_ms <= target.p99_ms
    rows = {row.variant: row for row in bundle.report.on_device}
    assert rows["fp32"].outcome == rows["int8"].outcome == "measured"
    assert rows["int8"].providers == ("CPUExecutionProvider",)
    assert rows["int8"].memory_bytes is not None
    assert rows["int8"].max_error is not None
    assert fleet.registry.list() == ("network",)
    assert len(fleet.registry.versions("network")) == 1
    told = device.status(timeout_s=TIMEOUT_S).sequence

    def cleared() -> bool:
        report = device.status(timeout_s=TIMEOUT_S)
        return report.sequence > told and report.health.store_bytes == before

    eventually(cleared, ignoring=UnavailableError, apart_s=0.1)
    report = device.status(timeout_s=TIMEOUT_S)
    assert (report.state, report.health.starts) == ("active", 1)
    assert fleet.device("cam-07").infer("network", points(1))["scores"].shape == (1, 10)


def test_a_device_whose_power_is_cut_says_that_the_trial_was_interrupted(
    session: MockSession, fleet: Fleet, model: Path
) -> None:
    deployed(fleet, model, trial_s=3600.0)  # so long the trial waits
    device = fleet.device("cam-07")
    bundle = fleet.registry.pull("network", model.parent / "pulled")
    cuts: list[str] = []

    def cut(said: str) -> None:
        if not cuts:
            session.kill_device("cam-07")
            session.start_device("cam-07")
        cuts.append(said)

    with pytest.raises(UnavailableError, match="was interrupted"):
        device.trial(bundle, say=cut, timeout_s=TIMEOUT_S)
    assert "waiting" in cuts[0]
    eventually(
        lambda: device.status(timeout_s=TIMEOUT_S).state == "active",
        ignoring=UnavailableError,
        apart_s=0.1,
    )
    assert device.infer("network", points(1))["scores"].shape == (1, 10)


def test_a_device_without_a_release_takes_no_trial(fleet: Fleet, model: Path) -> None:
    fleet.push(model, "network", progress=False)
    bundle = fleet.registry.pull("network", model.parent / "pulled")
    with pytest.raises(ConflictError, match="no pointer has come") as caught:
        eventually(
            lambda: fleet.device("cam-07").trial(bundle, progress=False),
            "the device answers",
            ignoring=(UnavailableError, UnsupportedError),
        )
    assert "deploy" in str(caught.value.cure)
