"""Models of a repository that come and go by request, asked for with Triton's own clients."""

from __future__ import annotations

import json
import re
import resource
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import InferenceServerException

from device_runtime.tests.onnx_models import plus
from device_runtime.tests.serve.grpc_serving import serving_grpc
from device_runtime.tests.serving import FakeModel, served, table_of
from device_runtime.tests.standalone.test_repository import put
from edgefleet.errors import EdgeFleetError, InvalidInputError, LimitExceededError
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.serve.extensions.repository import LoadRequest
from edgefleet_runtime.serve.table import ModelTable
from edgefleet_runtime.standalone import control as module
from edgefleet_runtime.standalone.control import RepositoryControl
from edgefleet_runtime.standalone.model_config import read_model_config_json
from edgefleet_runtime.standalone.repository import ModelRepository
from edgefleet_runtime.standalone.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CONFIG = json.dumps({"backend": "onnxruntime"})


class Rig(NamedTuple):
    root: Path
    table: ModelTable
    control: RepositoryControl
    scratch: Path

    def left(self) -> int:
        """How many models' files from requests lie there."""
        return len([path for path in self.scratch.glob("*/*") if path.is_dir()])

    def y(self, name: str) -> float:
        """What a model makes of 0."""
        answer = self.table.get(name).infer({"x": np.zeros(1, np.float32)})[0]
        return float(answer["y"][0])


@contextmanager
def rig(folder: Path, *, overrides: bool = True) -> Iterator[Rig]:
    """A repository of ``a`` (adds 1) and ``b`` (adds 2), nothing loaded; ``other`` isn't of it."""
    root, temporary = folder / "repository", folder / "temporary"
    put(root, "a", "1", 1)
    put(root, "b", "1", 2)
    temporary.mkdir()
    table = table_of(served(FakeModel(9), "other"))
    with Scratch(temporary) as scratch:
        control = RepositoryControl(
            ModelRepository(root, table, EngineOptions(threads=1)),
            table,
            scratch=scratch if overrides else None,
            fixed=frozenset({"other"}),
        )
        yield Rig(root, table, control, temporary)
    assert list(temporary.iterdir()) == []


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        yield made


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, here: Rig) -> Iterator[Any]:
    """Triton's client of one protocol, of a server of ``here``."""
    with serving_grpc(here.table, control=here.control) as (rest, grpc):
        if request.param == "grpc":
            with tritonclient.grpc.InferenceServerClient(grpc) as asking:
                yield asking
        else:
            address = "{}:{}".format(*rest.address)
            with tritonclient.http.InferenceServerClient(address) as asking:
                yield asking


def indexed(client: Any) -> dict[str, tuple[str, str, str]]:
    """State, version and reason by model, whichever protocol it is."""
    index = client.get_model_repository_index()
    if not isinstance(index, list):
        index = [
            {"name": m.name, "state": m.state, "version": m.version, "reason": m.reason}
            for m in index.models
        ]
    return {m["name"]: (m["state"], m["version"], m["reason"]) for m in index}


def content(folder: Path, addend: float) -> bytes:
    return plus(folder / "brought.onnx", addend).read_bytes()


# ---------------------------------------------------------------------------- over both protocols


def test_models_are_listed_loaded_and_unloaded(client: Any) -> None:
    assert indexed(client) == {
        "a": ("UNAVAILABLE", "", "not loaded"),
        "b": ("UNAVAILABLE", "", "not loaded"),
        "other": ("READY", "1", ""),
    }
    client.load_model("a")
    assert client.is_model_ready("a")
    assert indexed(client)["a"] == ("READY", "1", "")
    client.unload_model("a", unload_dependents=True)
    assert not client.is_model_ready("a")
    assert indexed(client)["a"] == ("UNAVAILABLE", "", "unloaded")
    assert client.is_model_ready("other")


def test_unloading_twice_is_no_error(client: Any) -> None:
    client.load_model("a")
    for _ in range(2):
        client.unload_model("a")
    assert not client.is_model_ready("a")


def test_loading_again_takes_the_newest_version(client: Any, here: Rig) -> None:
    client.load_model("a")
    put(here.root, "a", "2", 5)
    client.load_model("a")
    assert indexed(client)["a"] == ("READY", "2", "")
    assert here.y("a") == 5


def test_a_load_that_fails_says_why_and_what_served_goes_on(client: Any, here: Rig) -> None:
    client.load_model("a")
    (here.root / "a" / "2").mkdir()
    (here.root / "a" / "2" / "model.onnx").write_bytes(b"broken")
    with pytest.raises(InferenceServerException, match="model 'a'"):
        client.load_model("a")
    state, version, reason = indexed(client)["a"]
    assert (state, version, here.y("a")) == ("READY", "1", 1)
    assert reason.startswith("model 'a'")


def test_a_model_comes_with_its_files_and_goes_with_them(client: Any, here: Rig) -> None:
    client.load_model("a", config=CONFIG, files={"file:7/model.onnx": content(here.root, 40)})
    assert (indexed(client)["a"], here.y("a")) == (("READY", "7", ""), 40)
    assert here.left() == 1
    assert sorted(path.name for path in (here.root / "a").rglob("*")) == ["1", "model.onnx"]
    client.load_model("a")
    assert (here.y("a"), here.left()) == (1, 0)


def test_a_model_may_come_that_the_repository_does_not_have(client: Any, here: Rig) -> None:
    client.load_model("new", config=CONFIG, files={"file:1/model.onnx": content(here.root, 3)})
    assert here.y("new") == 3
    client.unload_model("new")
    assert here.left() == 0
    assert "new" not in indexed(client)


def test_a_configuration_alone_stands_for_the_one_in_the_repository(client: Any, here: Rig) -> None:
    put(here.root, "a", "2", 5)
    only_the_first = {"versionPolicy": {"specific": {"versions": ["1"]}}}
    client.load_model("a", config=json.dumps(only_the_first))
    assert (indexed(client)["a"][1], here.y("a"), here.left()) == ("1", 1, 0)


@pytest.mark.parametrize(
    "name,said",
    [("..", "not a model's name"), ("other", "is not from the model repository")],
)
def test_what_is_not_of_the_repository_is_neither_loaded_nor_unloaded(
    client: Any, name: str, said: str
) -> None:
    if not isinstance(client, tritonclient.grpc.InferenceServerClient):
        name = name.replace(".", "%2E")  # or the client resolves it
    for call in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match=said):
            call(name)
    assert client.is_model_ready("other")


def test_what_nobody_knows_is_not_loaded_and_unloading_it_is_no_error(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="no model 'missing'"):
        client.load_model("missing")
    client.unload_model("missing")
    assert "missing" not in indexed(client)


# -------------------------------------------------------------------------------------- overrides


def load(here: Rig, files: Mapping[str, bytes], config: str = CONFIG) -> None:
    here.control.load(LoadRequest(name="a", config=config, files=files))


@pytest.mark.parametrize("files", [{}, {"1/model.onnx": b""}])
def test_overrides_are_refused_unless_allowed_and_leave_no_mark(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    with rig(tmp_path, overrides=False) as here:
        here.control.load(LoadRequest(name="a"))
        with pytest.raises(EdgeFleetError, match="--allow-overrides"):
            load(here, files)
        assert here.y("a") == 1
        assert {state.reason for state in here.control.index()} == {"", "not loaded"}


@pytest.mark.parametrize(
    "path",
    [
        *("../b/1/model.onnx", "/etc/model.onnx", "1/../../x", "1//model.onnx", "./model.onnx", ""),
        *("1\\..\\x", "C:x", "1/a\0b", "1/" + "x" * 300, "."),
    ],
)
def test_a_path_that_leads_out_of_the_models_folder_is_refused(here: Rig, path: str) -> None:
    with pytest.raises(InvalidInputError, match="unsafe file path"):
        load(here, {"1/model.onnx": content(here.root, 3), path: b"x"})
    assert here.left() == 0
    assert not (here.root / "b" / "1" / "x").exists()


@pytest.mark.parametrize("other", ["1/model.onnx/x", "1"])
def test_a_file_in_the_place_of_a_folder_is_refused(here: Rig, other: str) -> None:
    with pytest.raises(InvalidInputError, match="where another one is"):
        load(here, {"1/model.onnx": b"x", other: b"y"})
    assert here.left() == 0


@pytest.mark.parametrize("path", ["model.onnx", "01/model.onnx", "1/other.onnx"])
def test_files_without_a_model_where_it_belongs_are_refused_with_the_place(
    here: Rig, path: str
) -> None:
    with pytest.raises(InvalidInputError, match=re.escape("file:1/model.onnx")):
        load(here, {path: content(here.root, 3)})
    assert here.left() == 0


def test_too_many_files_are_refused(here: Rig) -> None:
    with pytest.raises(LimitExceededError, match="256 are allowed"):
        load(here, {f"1/{number}": b"" for number in range(257)})


def test_the_files_of_all_models_together_are_bounded(
    here: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = content(here.root, 3)
    monkeypatch.setattr(module, "MAX_BYTES", len(data) * 3 // 2)
    files = {"1/model.onnx": data}
    for _ in range(2):  # in place of itself it fits
        load(here, files)
    with pytest.raises(LimitExceededError, match="unload models"):
        here.control.load(LoadRequest(name="b", config=CONFIG, files=files))
    here.control.unload("a", dependents=False)
    here.control.load(LoadRequest(name="b", config=CONFIG, files=files))
    assert here.left() == 1


def test_files_of_a_model_that_can_not_be_opened_are_removed_and_the_old_ones_stay(
    here: Rig,
) -> None:
    load(here, {"1/model.onnx": content(here.root, 3)})
    with pytest.raises(EdgeFleetError, match="model 'a'"):
        load(here, {"1/model.onnx": b"broken"})
    assert (here.y("a"), here.left()) == (3, 1)


def test_a_disk_that_takes_no_more_is_said_and_nothing_is_left(here: Rig) -> None:
    data = content(here.root, 3)
    here.control.load(LoadRequest(name="a"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(data) // 2, hard))
    try:
        with pytest.raises(EdgeFleetError, match="can't be written: File too large"):
            load(here, {"1/model.onnx": data})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert (here.y("a"), here.left()) == (1, 0)


@pytest.mark.parametrize(
    "config,said",
    [
        ("", "malformed"),
        ("[]", "malformed"),
        ('{"max_batch_size": "x"}', "malformed"),
        ('{"name": "b"}', "names it 'b'"),
        ('{"backend": "python"}', "python"),
        ('{"parameters": ' * 40 + "1" + "}" * 40, "malformed"),
        ('{"modelOperations": {"opLibraryFilename": ["x.so"]}}', "custom operators"),
        ('{"input": [{"name": "z", "data_type": "TYPE_FP32"}]}', "none of that name"),
        (" " * (300 << 10), "are allowed"),
    ],
)
def test_a_wrong_configuration_is_refused_with_its_reason(
    here: Rig, config: str, said: str
) -> None:
    with pytest.raises(EdgeFleetError, match=re.escape(said)):
        load(here, {}, config)
    assert [model.name for model in here.table] == ["other"]


_KEYS = st.text(max_size=4) | st.sampled_from(
    [
        *("name", "input", "output", "dims", "dataType", "data_type", "versionPolicy", "specific"),
        *("versions", "maxBatchSize", "instanceGroup", "kind", "parameters", "stringValue"),
    ]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(_JSON.map(json.dumps) | st.text(max_size=60))
def test_any_text_is_a_configuration_or_an_error_of_ours(text: str) -> None:
    try:
        config = read_model_config_json(text, name="m")
    except EdgeFleetError:
        return
    assert config.max_batch_size >= 0
