from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from device_runtime.tests.onnx_models import plus
from edgefleet.errors import EdgeFleetError, InvalidInputError, InvalidModelError, NotFoundError
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.serve.table import ModelTable
from edgefleet_runtime.standalone.repository import ModelRepository

if TYPE_CHECKING:
    from pathlib import Path

X = {"x": np.zeros(1, np.float32)}


def put(root: Path, name: str, version: str, addend: float, *, file: str = "model.onnx") -> Path:
    folder = root / name / version
    folder.mkdir(parents=True)
    return plus(folder / file, addend)


def opened(root: Path, table: ModelTable | None = None) -> ModelRepository:
    return ModelRepository(root, table or ModelTable(), EngineOptions())


def test_the_latest_version_by_number_is_served(tmp_path: Path) -> None:
    for version in ("2", "9", "10"):
        put(tmp_path, "m", version, float(version))
    for stray in ("latest", "011", "0", "-1", "1.5"):
        put(tmp_path, "m", stray, 0)
    served = opened(tmp_path).load("m")
    assert served.version == "10"
    assert served.infer(X)[0]["y"][0] == 10


def test_the_configuration_chooses_versions_and_the_file(tmp_path: Path) -> None:
    put(tmp_path, "m", "1", 1, file="net.onnx")
    put(tmp_path, "m", "2", 2, file="net.onnx")
    (tmp_path / "m" / "config.pbtxt").write_text(
        'default_model_filename: "net.onnx" version_policy { specific { versions: 1 } }'
    )
    assert opened(tmp_path).load("m").infer(X)[0]["y"][0] == 1


def test_a_model_is_loaded_replaced_and_unloaded_beside_others(tmp_path: Path) -> None:
    table = ModelTable()
    put(tmp_path, "a", "1", 1)
    put(tmp_path, "b", "1", 1)
    repository = opened(tmp_path, table)
    for name in repository.names():
        repository.load(name)
    put(tmp_path, "a", "2", 2)
    repository.load("a")
    assert {(m.name, m.version) for m in table} == {("a", "2"), ("b", "1")}
    repository.unload("a")
    assert [m.name for m in table] == ["b"]
    with pytest.raises(NotFoundError, match="not loaded"):
        repository.unload("a")


def test_a_load_that_fails_leaves_what_served_before(tmp_path: Path) -> None:
    table = ModelTable()
    put(tmp_path, "m", "1", 1)
    repository = opened(tmp_path, table)
    repository.load("m")
    (tmp_path / "m" / "2").mkdir()
    (tmp_path / "m" / "2" / "model.onnx").write_bytes(b"broken")
    with pytest.raises(InvalidModelError, match="model 'm'"):
        repository.load("m")
    assert table.get("m").infer(X)[0]["y"][0] == 1


@pytest.mark.parametrize("link", ["m", "m/1", "m/1/model.onnx", "m/1/weights", "m/config.pbtxt"])
def test_a_link_out_of_the_repository_is_refused(tmp_path: Path, link: str) -> None:
    root, outside = tmp_path / "repository", tmp_path / "outside"
    root.mkdir()
    for place in (root, outside):
        put(place, "m", "1", 1)
        (place / "m" / "1" / "weights").touch()
        (place / "m" / "config.pbtxt").touch()
    (root / link).rename(tmp_path / "aside")
    (root / link).symlink_to(outside / link)
    with pytest.raises(InvalidModelError, match="out of the repository"):
        opened(root).load("m")


def test_a_link_within_the_repository_is_followed(tmp_path: Path) -> None:
    put(tmp_path, "m", "1", 1)
    (tmp_path / "m" / "2").symlink_to("1")
    assert opened(tmp_path).load("m").version == "2"


@pytest.mark.parametrize("name", ["..", ".", "a/b", "", "a\0", "x" * 200, "/etc"])
def test_names_that_are_paths_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInputError):
        opened(tmp_path).find(name)


@pytest.mark.parametrize(
    "config,said",
    [
        ('input { name: "z" data_type: TYPE_FP32 }', "none of that name"),
        ('output { name: "y" data_type: TYPE_INT8 }', "has it as FP32"),
    ],
)
def test_a_configuration_of_another_model_is_refused(
    tmp_path: Path, config: str, said: str
) -> None:
    put(tmp_path, "m", "1", 1)
    (tmp_path / "m" / "config.pbtxt").write_text(config)
    with pytest.raises(InvalidModelError, match=said):
        opened(tmp_path).load("m")


def test_a_model_without_a_version_says_where_to_put_one(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    with pytest.raises(NotFoundError) as refused:
        opened(tmp_path).find("m")
    assert "m/1/model.onnx" in str(refused.value)


def test_a_version_that_the_configuration_does_not_allow_is_told(tmp_path: Path) -> None:
    put(tmp_path, "m", "3", 1)
    (tmp_path / "m" / "config.pbtxt").write_text("version_policy { specific { versions: 7 } }")
    with pytest.raises(
        NotFoundError, match="its versions: 3; its version_policy allows: 7\n"
    ) as told:
        opened(tmp_path).find("m")
    assert "m/7/model.onnx" in str(told.value)


def test_a_missing_repository_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EdgeFleetError, match="no model repository"):
        opened(tmp_path / "nowhere")
