"""Loading and unloading: from below one folder, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from device_runtime.tests import onnx_models
from device_runtime.tests.edgemanager.agent_client import AgentClient
from device_runtime.tests.edgemanager.agent_serving import CURE, serving_agent
from device_runtime.tests.node.device import publish
from device_runtime.tests.serving import FakeModel, served, table_of
from device_runtime.tests.support import Repository
from edgefleet.errors import AlreadyExistsError, NotFoundError
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.serve.table import ModelTable
from edgefleet_runtime.standalone import agent_models
from edgefleet_runtime.standalone.agent_models import FolderModels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

X = np.array([1.0, 2.0], np.float32)


def code_of(call: Callable[..., Any], **fields: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as raised:
        call(**fields)
    return raised.value.code().name, raised.value.details() or ""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of models, and a model beside it."""
    root = tmp_path / "models"
    for name, addend in (("one", 1), ("two", 2)):
        (root / name).mkdir(parents=True)
        onnx_models.plus(root / name / "model.onnx", addend)
    (root / "compiled").mkdir()
    (root / "compiled" / "compiled.so").write_bytes(b"\x7fELF")
    (root / "broken.onnx").write_bytes(b"\xff" * 100)
    onnx_models.plus(tmp_path / "outside.onnx", 9)
    return root


@pytest.fixture
def table() -> ModelTable:
    return table_of(served(FakeModel(), "fixed"))


@pytest.fixture
def client(root: Path, table: ModelTable, contract: Path, tmp_path: Path) -> Iterator[AgentClient]:
    work = tmp_path / "work"
    work.mkdir()
    models = FolderModels(root, table, EngineOptions(threads=1), work)
    with (
        serving_agent(table, models=models) as address,
        AgentClient(contract, address) as client,
    ):
        yield client


def test_a_model_is_loaded_described_used_and_unloaded(client: AgentClient, root: Path) -> None:
    url = str(root / "one")
    model = client.LoadModel(url=url, name="plus-1").model
    assert (model.name, model.url, model.input_tensor_metadatas[0].name) == ("plus-1", url, "x")
    assert client.predict("plus-1", client.tensor("x", X))["y"].tolist() == [2.0, 3.0]
    assert {m.name: m.url for m in client.ListModels().models} == {"fixed": "", "plus-1": url}
    client.UnLoadModel(name="plus-1")
    assert [m.name for m in client.ListModels().models] == ["fixed"]
    assert code_of(client.predict, name="plus-1")[0] == "NOT_FOUND"


def test_a_file_and_a_path_below_the_folder_will_do(client: AgentClient, root: Path) -> None:
    client.LoadModel(url=str(root / "two" / "model.onnx"), name="a")
    client.LoadModel(url="one", name="b")
    assert client.predict("a", client.tensor("x", X))["y"].tolist() == [3.0, 4.0]
    assert client.predict("b", client.tensor("x", X))["y"].tolist() == [2.0, 3.0]


def test_a_bundle_is_verified_and_its_files_go_when_it_is_unloaded(
    client: AgentClient, root: Path, tmp_path: Path
) -> None:
    layout = publish(Repository(root / "published"), 3.0)
    client.LoadModel(url=str(layout.root), name="digits")
    ones = np.ones((1, 4), np.float32)
    assert client.predict("digits", client.tensor("x", ones))["y"].tolist() == [[3.0] * 4]
    assert len(list((tmp_path / "work").iterdir())) == 1
    client.UnLoadModel(name="digits")
    assert list((tmp_path / "work").iterdir()) == []
    wrong = publish(Repository(root / "other"), 3.0, recorded=5.0)
    code, said = code_of(client.LoadModel, url=str(wrong.root), name="digits")
    assert (code, "self-test" in said) == ("FAILED_PRECONDITION", True)
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize(
    "url,name,code,said",
    [
        ("absent", "m", "NOT_FOUND", "no model at"),
        ("", "m", "NOT_FOUND", "no model at"),
        ("../outside.onnx", "m", "NOT_FOUND", "no model at"),
        ("/etc/hostname", "m", "NOT_FOUND", "no model at"),
        ("one\0", "m", "NOT_FOUND", "no model at"),
        ("a" * 5000, "m", "NOT_FOUND", "no model at"),
        ("compiled", "m", "FAILED_PRECONDITION", "Neo"),
        ("broken.onnx", "m", "FAILED_PRECONDITION", "model 'm'"),
        ("one", "fixed", "ALREADY_EXISTS", "loaded already"),
        ("one", "under_score", "INVALID_ARGUMENT", "dashes"),
        ("one", "-m", "INVALID_ARGUMENT", "dashes"),
        ("one", "m-", "INVALID_ARGUMENT", "dashes"),
        ("one", "", "INVALID_ARGUMENT", "dashes"),
        ("one", "m\n", "INVALID_ARGUMENT", "dashes"),
        ("one", "m" * 256, "INVALID_ARGUMENT", "255"),
    ],
)
def test_what_cannot_be_loaded_ends_with_aws_status(
    client: AgentClient, url: str, name: str, code: str, said: str
) -> None:
    assert code_of(client.LoadModel, url=url, name=name)[0] == code
    assert said in code_of(client.LoadModel, url=url, name=name)[1]
    assert [m.name for m in client.ListModels().models] == ["fixed"]


def test_a_link_out_of_the_folder_is_not_followed(
    client: AgentClient, root: Path, tmp_path: Path
) -> None:
    (root / "linked").symlink_to(tmp_path / "outside.onnx")
    assert code_of(client.LoadModel, url="linked", name="m")[0] == "NOT_FOUND"
    (root / "one" / "weights").symlink_to(tmp_path)
    code, said = code_of(client.LoadModel, url="one", name="m")
    assert (code, "leads out" in said) == ("FAILED_PRECONDITION", True)


def test_loading_twice_and_unloading_what_is_not_a_clients(client: AgentClient) -> None:
    client.LoadModel(url="one", name="m")
    assert code_of(client.LoadModel, url="two", name="m")[0] == "ALREADY_EXISTS"
    client.UnLoadModel(name="m")
    assert code_of(client.UnLoadModel, name="m")[0] == "NOT_FOUND"
    assert code_of(client.UnLoadModel, name="fixed")[0] == "FAILED_PRECONDITION"


def test_more_models_than_the_limit_are_refused(
    client: AgentClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_models, "MAX_MODELS", 1)
    client.LoadModel(url="one", name="a")
    assert code_of(client.LoadModel, url="two", name="b")[0] == "RESOURCE_EXHAUSTED"


def test_two_files_need_one_of_them_named(client: AgentClient, root: Path) -> None:
    onnx_models.plus(root / "two" / "other.onnx", 5)
    client.LoadModel(url="two", name="m")  # model.onnx is the one that is meant
    (root / "two" / "model.onnx").rename(root / "two" / "first.onnx")
    assert code_of(client.LoadModel, url="two", name="n")[0] == "FAILED_PRECONDITION"


def test_where_a_fleet_decides_models_are_loaded_already_or_refused_with_the_cure(
    contract: Path, table: ModelTable
) -> None:
    with serving_agent(table) as address, AgentClient(contract, address) as client:
        assert code_of(client.LoadModel, url="x", name="fixed")[0] == "ALREADY_EXISTS"
        code, said = code_of(client.LoadModel, url="x", name="other")
        assert (code, CURE in said) == ("FAILED_PRECONDITION", True)
        assert code_of(client.UnLoadModel, name="fixed")[0] == "FAILED_PRECONDITION"
        assert code_of(client.UnLoadModel, name="other")[0] == "NOT_FOUND"


def test_a_folder_that_is_none_is_said_at_once(table: ModelTable, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no folder of models"):
        FolderModels(tmp_path / "absent", table, EngineOptions(), tmp_path)


def test_a_table_takes_a_name_once_and_gives_back_only_what_it_has() -> None:
    table = table_of(first := served(FakeModel()))
    with pytest.raises(AlreadyExistsError):
        table.add(served(FakeModel()))
    table.add(other := served(FakeModel(), "n"))
    assert list(table) == [first, other]
    assert table.remove(first)
    assert not table.remove(first)
    assert list(table) == [other]
