"""From a real device's requests to data that a person has labelled, and back to its origin."""

from __future__ import annotations

import json
import time
import warnings
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgefleet as ef
from edgefleet.analysis.dataset import Dataset
from edgefleet.errors import NotFoundError

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet.fleet import Fleet

TIMEOUT_S = 120.0
PROFILE = """
[profiles.default]
provider = "local"

[profiles.default.recorded]
inputs = ["squares/x"]
segment_max_age_s = 0.2
"""


def model(path: Path) -> Path:
    """Three scores of a picture of 4 by 4."""
    weights = np.random.default_rng(7).standard_normal((16, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Reshape", ["x", "flat"], ["v"]),
            helper.make_node("MatMul", ["v", "w"], ["l"]),
            helper.make_node("Softmax", ["l"], ["y"], axis=-1),
        ],
        "squares",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [
            numpy_helper.from_array(weights, "w"),
            numpy_helper.from_array(np.array([1, 16], dtype=np.int64), "flat"),
        ],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), path)
    return path


def gathered(fleet: Fleet, count: int, to: Path) -> Dataset:
    """The dataset, once so many samples have arrived with their files."""
    deadline = time.monotonic() + TIMEOUT_S
    for attempt in range(10_000):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # some are still on their way
                made = fleet.dataset("squares", to=to / str(attempt), progress=False)
        except NotFoundError:
            made = None
        if made is not None and len(made) >= count:
            return made
        assert time.monotonic() < deadline, made
        time.sleep(0.2)
    raise AssertionError(count)


def test_samples_of_a_real_device_become_labelled_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nobody"))
    (tmp_path / "edgefleet.toml").write_text(PROFILE, encoding="utf-8")
    inputs = np.random.default_rng(1).random((4, 1, 4, 4), dtype=np.float32)
    with ef.connect("default") as fleet:
        version = fleet.push(model(tmp_path / "squares.onnx"), "squares", progress=False)
        fleet.enroll("cam-1", group="line")
        deployed = fleet.deploy(version, to="line")
        deployed.wait(timeout_s=TIMEOUT_S, progress=False)
        device = fleet.device("cam-1")
        device.capture("squares", count=4, reason="to label", timeout_s=TIMEOUT_S)
        answers = [device.infer("squares", one)["y"] for one in inputs]

        dataset = gathered(fleet, 4, tmp_path / "sets")
        assert sorted(map(bytes, dataset.arrays("x"))) == sorted(map(bytes, inputs[:, 0]))
        rows = {dataset.array(row).tobytes(): row for row in dataset}
        for one, answer in zip(inputs, answers, strict=True):
            row = rows[one.tobytes()]
            assert row.predicted == str(int(np.argmax(answer)))
            assert row.score == pytest.approx(float(np.max(answer)), rel=1e-5)
            assert (row.device, row.version, row.bundle) == ("cam-1", "1", version.digest)
            assert row.release == deployed.release

        tasks = json.loads(
            dataset.export_label_studio(tmp_path / "tasks").read_text(encoding="utf-8")
        )
        for task in tasks:  # a person agrees with all but the first
            agreed = task["predictions"][0]["result"]
            task["annotations"] = [{"result": agreed, "completed_by": 1, "updated_at": None}]
        tasks[0]["annotations"][0]["result"] = [
            {**tasks[0]["predictions"][0]["result"][0], "value": {"choices": ["other"]}}
        ]
        (tmp_path / "export.json").write_text(json.dumps(tasks), encoding="utf-8")
        assert dataset.import_labels(tmp_path / "export.json").added == 4
        labelled = fleet.dataset(
            "squares", labels=dataset.path, to=tmp_path / "labelled", progress=False
        )
        assert labelled.manifest.labelled == 4
        assert labelled.rows[0].label == "other"

        back = fleet.lineage.of_prediction(labelled.rows[0].id, device="cam-1")
        assert (back.kind, back.model.reference) == ("sample", "squares:1")
        assert back.release == deployed.release
