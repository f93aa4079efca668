"""Ensembles of a Triton model repository: as they are written, and as models come and go."""

from __future__ import annotations

import json
import threading
import urllib.request
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from device_runtime.tests.onnx_models import mlp, plus
from device_runtime.tests.standalone.test_serve import serving
from edgefleet.errors import EdgeFleetError, InvalidModelError, NotFoundError
from edgefleet.protocol.bundle import TensorSpec
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.serve.table import ModelTable
from edgefleet_runtime.standalone.model_config import read_model_config
from edgefleet_runtime.standalone.repository import ModelRepository
from edgefleet_runtime.standalone.scratch import Scratch
from edgefleet_runtime.standalone.serving import StandaloneConfig, fill

if TYPE_CHECKING:
    from pathlib import Path

X = np.array([1, 2], np.float32)
STEP = """
    step [ {{
        model_name: "{model}"
        model_version: {version}
        input_map {{ key: "x" value: "{x}" }}
        output_map {{ key: "y" value: "{y}" }}
    }} ]
"""
TENSORS = """
platform: "ensemble"
max_batch_size: 0
input [ { name: "in" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "out" data_type: TYPE_FP32 dims: [ -1 ] } ]
"""


def step(model: str, x: str, y: str, version: int = -1) -> str:
    return STEP.format(model=model, x=x, y=y, version=version)


def ensemble(*steps: str) -> str:
    return f"{TENSORS} ensemble_scheduling {{ {''.join(steps)} }}"


def put(root: Path, name: str, text: str) -> None:
    (root / name / "1").mkdir(parents=True, exist_ok=True)
    (root / name / "config.pbtxt").write_text(text)


def model(root: Path, name: str, addend: float, version: str = "1") -> None:
    (root / name / version).mkdir(parents=True)
    plus(root / name / version / "model.onnx", addend)


class Stand:
    """A repository of ``a`` (adds 1), ``b`` (adds 10) and ``both``, nothing loaded."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.table = ModelTable()
        model(root, "a", 1)
        model(root, "b", 10)
        put(root, "both", ensemble(step("b", "t", "out"), step("a", "in", "t")))
        self.repository = ModelRepository(root, self.table, EngineOptions(threads=1))

    @property
    def names(self) -> set[str]:
        return {served.name for served in self.table}

    def ask(self, name: str = "both", x: str = "in", y: str = "out") -> float:
        with self.table.lease(name) as served:
            return float(served.infer({x: X})[0][y][0])


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path)


def test_an_ensemble_is_read_as_triton_writes_it() -> None:
    config = read_model_config(ensemble(step("a", "in", "out", 3)).encode(), name="e")
    assert config.ensemble is not None
    assert config.ensemble.inputs == (TensorSpec(name="in", datatype="FP32", shape=(-1,)),)
    (only,) = config.ensemble.steps
    assert only.model == "a"  # type: ignore[union-attr]
    assert only.version == "3"  # type: ignore[union-attr]


def test_a_batch_size_adds_a_dimension_to_what_is_declared() -> None:
    text = ensemble(step("a", "in", "out")).replace("max_batch_size: 0", "max_batch_size: 8")
    config = read_model_config(text.encode(), name="e")
    assert config.ensemble is not None
    assert [spec.shape for spec in config.ensemble.outputs] == [(-1, -1)]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text,said",
    [
        ('platform: "ensemble"', "half an ensemble"),
        ('platform: "onnxruntime_onnx" ensemble_scheduling { }', "half an ensemble"),
        ('backend: "onnxruntime" ensemble_scheduling { }', "half an ensemble"),
        ("ensemble_scheduling { step [ { model_version: 1 } ] }", "names no model"),
        (
            'ensemble_scheduling { step [ { model_name: "a" model_version: -2 } ] }',
            "asks for version -2",
        ),
        ('ensemble_scheduling { step [ { model_name: "a" } ] }', "step 1 .* empty output_map"),
        (
            'ensemble_scheduling { } input { name: "x" data_type: TYPE_FP32 dims: [ -2 ] }',
            ">= -1",
        ),
    ],
)
def test_half_an_ensemble_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidModelError, match=said):
        read_model_config(text.encode(), name="e")


def test_an_ensemble_loads_its_members(stand: Stand) -> None:
    assert stand.repository.load("both").name == "both"
    assert stand.names == {"a", "b", "both"}
    assert stand.ask() == 12


def test_a_whole_repository_loads_each_model_once(stand: Stand) -> None:
    put(stand.root, "above", ensemble(_whole("both", "in", "out")))
    put(stand.root, "zero", ensemble(_whole("above", "in", "out")))
    table = ModelTable()
    with Scratch() as scratch:
        fill(table, StandaloneConfig(repository=stand.root), scratch)
    first = {served.name: served for served in table}
    assert set(first) == {"a", "b", "above", "both", "zero"}
    assert float(first["zero"].infer({"in": X})[0]["out"][0]) == 12
    for served in first.values():
        served.retire()
    assert all(_closed(served) for served in first.values())


def _whole(member: str, x: str, y: str) -> str:
    text = step(member, x, y)
    return text.replace('key: "x"', 'key: "in"').replace('key: "y"', 'key: "out"')


def _closed(served: Any) -> bool:
    with pytest.raises(EdgeFleetError, match="closed"):
        served.infer({"x": X} if served.name in {"a", "b"} else {"in": X})
    return True


def test_a_missing_member_is_named_and_nothing_is_left_loaded(stand: Stand) -> None:
    put(stand.root, "both", ensemble(step("a", "in", "t"), step("gone", "t", "out")))
    with pytest.raises(NotFoundError, match=r"^ensemble 'both': .* no model 'gone'"):
        stand.repository.load("both")
    assert stand.names == set()


def test_a_member_in_another_version_is_refused(stand: Stand) -> None:
    put(stand.root, "both", ensemble(step("a", "in", "out", 7)))
    said = r"ensemble 'both': step 1 \(model 'a'\) needs version 7, served is 1"
    with pytest.raises(InvalidModelError, match=said):
        stand.repository.load("both")
    assert stand.names == set()


def test_declared_tensors_must_be_those_that_the_steps_make(stand: Stand) -> None:
    text = ensemble(step("a", "in", "out")).replace(
        'name: "out" data_type: TYPE_FP32', 'name: "out" data_type: TYPE_INT64'
    )
    put(stand.root, "both", text)
    with pytest.raises(InvalidModelError, match="output 'out' is declared as INT64"):
        stand.repository.load("both")


def test_an_ensemble_without_a_version_s_folder_says_to_make_one(stand: Stand) -> None:
    (stand.root / "both" / "1").rmdir()
    with pytest.raises(NotFoundError, match=r"make the folder .*both/1, which stays empty"):
        stand.repository.load("both")


def test_ensembles_in_a_circle_are_refused(stand: Stand) -> None:
    put(stand.root, "both", ensemble(_whole("other", "in", "out")))
    put(stand.root, "other", ensemble(_whole("both", "in", "out")))
    with pytest.raises(InvalidModelError, match="circle: both -> other -> both"):
        stand.repository.load("both")
    put(stand.root, "both", ensemble(step("a", "in", "out")))
    stand.repository.load("other")
    put(stand.root, "both", ensemble(_whole("other", "in", "out")))
    with pytest.raises(InvalidModelError, match="circle"):
        stand.repository.load("both")
    assert stand.ask("other") == 2


def test_a_member_loaded_anew_is_used_by_the_ensemble(stand: Stand) -> None:
    stand.repository.load("both")
    model(stand.root, "a", 5, "2")
    stand.repository.load("a")
    assert stand.ask() == 16
    assert stand.names == {"a", "b", "both"}


def test_a_member_that_does_not_fit_any_more_is_refused_and_the_old_one_serves(
    stand: Stand,
) -> None:
    stand.repository.load("both")
    (stand.root / "a" / "2").mkdir()
    mlp(stand.root / "a" / "2" / "model.onnx")
    with pytest.raises(InvalidModelError, match=r"ensemble 'both': step 2 .* FP32\[-1, 4\]"):
        stand.repository.load("a")
    assert stand.ask() == 12
    assert stand.ask("a", "x", "y") == 2


def test_a_member_that_is_unloaded_takes_the_ensemble_with_it(stand: Stand) -> None:
    stand.repository.load("both")
    stand.repository.unload("a")
    assert stand.names == {"b"}


def test_members_stay_when_their_ensemble_is_unloaded(stand: Stand) -> None:
    stand.repository.load("both")
    stand.repository.unload("both")
    assert stand.names == {"a", "b"}


def test_members_loaded_for_an_ensemble_alone_leave_with_it_where_that_is_asked(
    stand: Stand,
) -> None:
    stand.repository.load("a")
    stand.repository.load("both")
    stand.repository.unload("both", dependents=True)
    assert stand.names == {"a"}


def test_members_that_another_ensemble_needs_stay(stand: Stand) -> None:
    put(stand.root, "other", ensemble(step("a", "in", "out")))
    stand.repository.load("both")
    stand.repository.load("other")
    stand.repository.unload("both", dependents=True)
    assert stand.names == {"a", "other"}
    assert stand.ask("other") == 2


def test_no_request_is_lost_or_mixed_while_members_come_and_go(stand: Stand) -> None:
    """Each answer is of one version of each member, and only a served ensemble answers."""
    put(stand.root, "both", ensemble(step("a", "in", "t"), step("a", "t", "out")))
    stand.repository.load("both")
    stop = threading.Event()
    wrong: list[object] = []
    answers: list[float] = []

    def ask() -> None:
        while not stop.is_set():
            try:
                got = stand.ask()
            except Exception as error:  # noqa: BLE001 - what it is, the assertion tells
                wrong.append(error)
                return
            answers.append(got)
            if got not in {1 + 2.0**n for n in range(1, 21)}:  # 1 + a + a, never 1 + a + a'
                wrong.append(got)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for version in range(2, 20):
        model(stand.root, "a", 2.0 ** (version - 1), str(version))
        stand.repository.load("a")
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert answers
    assert stand.ask() == 1 + 2.0**19


def test_the_server_serves_an_ensemble_of_its_repository(stand: Stand) -> None:
    with serving("--model-repository", str(stand.root)) as (endpoint, _):
        tensor = {"name": "in", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0]}
        request = urllib.request.Request(
            f"{endpoint}/v2/models/both/infer", json.dumps({"inputs": [tensor]}).encode()
        )
        with urllib.request.urlopen(request, timeout=90) as answer:
            assert json.load(answer)["outputs"][0]["data"] == [12.0, 13.0]
        with urllib.request.urlopen(f"{endpoint}/metrics", timeout=90) as answer:
            figures = answer.read().decode()
    for name in ("both", "a", "b"):
        assert f'nv_inference_count{{model="{name}",version="1"}} 1' in figures
        assert f'nv_inference_request_success{{model="{name}",version="1"}} 1' in figures
