"""The external engine against servers of others: MLServer, KServe and PyTriton from PyPI.

Runs where the variable EDGEFLEET_PEERS names a folder in which ``python -m benchmarks.serving.peers
install --into FOLDER`` put them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from benchmarks.serving import peers
from benchmarks.serving.models import Subject
from device_runtime.tests.node.device import Device, publish, times
from device_runtime.tests.support import Repository, X
from edgefleet.errors import EdgeFleetError, InvalidInputError
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.external import UNTOLD, ExternalEngine

FOLDER = Path(os.environ.get("EDGEFLEET_PEERS", "/nonexistent"))
SAYS = {"mlserver": "mlserver", "kserve": "kserve", "pytriton": "triton"}


class Theirs(NamedTuple):
    """A server of somebody else with a model ``digits`` that multiplies by two."""

    url: str
    says: str
    model: Path


@pytest.fixture(scope="module", params=list(peers.PEERS))
def theirs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Theirs]:
    if request.param not in peers.installed(FOLDER):
        pytest.skip(f"EDGEFLEET_PEERS names no folder with {request.param}")
    work = tmp_path_factory.mktemp("peer")
    path = work / "times.onnx"
    path.write_bytes(times(2.0))
    with peers.serving(request.param, FOLDER, Subject("digits", path, {"x": X}), work) as server:
        yield Theirs(f"http://127.0.0.1:{server.rest.port}", SAYS[request.param], path)


def test_their_model_is_looked_at_and_run(theirs: Theirs) -> None:
    model = ExternalEngine(theirs.url, model="digits").load(theirs.model, EngineOptions())
    try:
        assert model.engine.startswith(f"{theirs.says} ")
        assert model.providers == (UNTOLD,)
        assert [(t.name, t.datatype, t.shape) for t in model.interface.inputs] == [
            ("x", "FP32", (-1, 4))
        ]
        for rows in (1, 3):
            x = np.arange(4 * rows, dtype=np.float32).reshape(rows, 4)
            assert model.infer({"x": x}, ["y"])["y"].tolist() == (2 * x).tolist()
    finally:
        model.close()


def test_what_it_does_not_have_or_take_is_refused_with_a_reason(theirs: Theirs) -> None:
    with pytest.raises(EdgeFleetError, match="'absent' is not ready"):
        ExternalEngine(theirs.url, model="absent").load(theirs.model, EngineOptions())
    model = ExternalEngine(theirs.url, model="digits").load(theirs.model, EngineOptions())
    try:
        with pytest.raises(InvalidInputError):
            model.infer({"x": X.astype(np.float64)})
    finally:
        model.close()


def test_a_fleet_delivers_serves_and_keeps_what_worked(theirs: Theirs, tmp_path: Path) -> None:
    fleet = Repository(tmp_path / "fleet")
    first, wrong, last = (
        fleet.release({"digits": publish(fleet, factor)}, version=version)
        for factor, version in ((2.0, "1"), (3.0, "2"), (2.0, "3"))
    )
    device = Device(
        tmp_path / "cam-07", fleet, "--external", theirs.url, "--external-model", "digits"
    )
    fleet.point(first)
    with device.start():
        report = device.active(first)
        assert report.models[0].self_test is not None
        assert report.models[0].self_test.passed
        with device.client() as client:
            assert client.factor() == 2.0
            fleet.point(wrong)
            rejected = device.reported(state="rejected", running=first)
            assert "self-test case 1 failed" in rejected.errors[0]
            assert client.factor() == 2.0
            fleet.point(last)
            device.active(last)
            assert client.factor() == 2.0
            fleet.point(first)
            device.active(first)
            assert client.factor() == 2.0
