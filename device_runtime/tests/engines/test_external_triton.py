"""The external engine over the model repository of a real Triton.

Runs where EDGEFLEET_PEERS names a folder with PyTriton, whose wheel has NVIDIA's server in it. That
comes without the ONNX Runtime backend, for which a Python-based one of the same name stands in;
model control, the repository, metadata, inference and every error are Triton's own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from benchmarks.serving import peers
from device_runtime.tests.engines.triton_server import triton_server
from device_runtime.tests.node.device import Device, publish, times
from device_runtime.tests.support import Repository, X
from edgefleet.errors import InferenceError, InvalidModelError
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.external import ExternalEngine

FOLDER = Path(os.environ.get("EDGEFLEET_PEERS", "/nonexistent"))
pytestmark = pytest.mark.skipif(
    "pytriton" not in peers.installed(FOLDER),
    reason="EDGEFLEET_PEERS names no folder with pytriton",
)


class Triton(NamedTuple):
    url: str
    repository: Path

    def entries(self) -> list[str]:
        return sorted(path.name for path in self.repository.iterdir())


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    repository = tmp_path_factory.mktemp("repository")
    work = tmp_path_factory.mktemp("triton")
    with triton_server(FOLDER / "pytriton", repository, work) as url:
        yield Triton(url, repository)


def model_file(folder: Path, factor: float) -> Path:
    folder.mkdir()
    path = folder / "net.onnx"
    path.write_bytes(times(factor))
    return path


def test_old_and_new_are_loaded_side_by_side_and_withdrawn(triton: Triton, tmp_path: Path) -> None:
    engine = ExternalEngine(triton.url, repository=triton.repository)
    old, new = (
        engine.load(model_file(tmp_path / name, factor), EngineOptions())
        for name, factor in (("old", 2.0), ("new", 3.0))
    )
    assert old.engine.startswith("triton ")
    assert old.platform == "onnxruntime_onnx"
    assert old.interface.inputs[0].shape == (-1, 4)
    assert old.infer({"x": X})["y"].tolist() == (2 * X).tolist()
    assert new.infer({"x": np.repeat(X, 3, axis=0)}, ["y"])["y"].shape == (3, 4)
    assert len(triton.entries()) == 2
    old.close()
    assert new.infer({"x": X})["y"].tolist() == (3 * X).tolist()
    new.close()
    assert triton.entries() == []
    with pytest.raises(InferenceError, match="closed"):
        new.infer({"x": X})


def test_what_triton_cannot_load_is_refused_in_its_words_and_leaves_no_entry(
    triton: Triton, tmp_path: Path
) -> None:
    path = model_file(tmp_path / "broken", 2.0)
    path.write_bytes(b"broken")
    engine = ExternalEngine(triton.url, repository=triton.repository)
    with pytest.raises(InvalidModelError, match=r"can't load the model: load failed for model"):
        engine.load(path, EngineOptions())
    assert triton.entries() == []


def test_a_fleet_delivers_swaps_rejects_and_rolls_back(triton: Triton, tmp_path: Path) -> None:
    fleet = Repository(tmp_path / "fleet")
    first = fleet.release({"digits": publish(fleet, 2.0)})
    second = fleet.release({"digits": publish(fleet, 3.0)})
    wrong = fleet.release({"digits": publish(fleet, 4.0, recorded=5.0)})
    where = ("--external", triton.url, "--external-repository", str(triton.repository))
    device = Device(tmp_path / "cam-07", fleet, *where)
    fleet.point(first)
    with device.start():
        report = device.active(first)
        assert report.models[0].self_test is not None
        assert report.models[0].self_test.passed
        with device.client() as client:
            assert client.factor() == 2.0
            fleet.point(second)
            device.active(second)
            assert client.factor() == 3.0
            fleet.point(wrong)
            rejected = device.reported(state="rejected", running=second)
            assert "self-test case 1 failed" in rejected.errors[0]
            assert client.factor() == 3.0
            fleet.point(first)
            device.active(first)
            assert client.factor() == 2.0
