"""The external engine against a second instance of ourselves.

`test_external_triton` and `test_external_peers` run other servers, where they are installed.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from device_runtime.tests.node.device import publish
from device_runtime.tests.onnx_models import mlp, plus
from device_runtime.tests.serving import FakeModel, served, serving, table_of
from device_runtime.tests.support import Repository
from edgefleet.errors import (
    ConfigurationError,
    EdgeFleetError,
    InferenceError,
    InvalidInputError,
    InvalidModelError,
    UnavailableError,
    UnsupportedError,
)
from edgefleet.protocol.report import read_report
from edgefleet_runtime.cli import main
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.external import UNTOLD, ExternalEngine
from edgefleet_runtime.serve.table import ModelTable
from edgefleet_runtime.standalone.control import RepositoryControl
from edgefleet_runtime.standalone.repository import ModelRepository

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgefleet_runtime.serve.server import Server

X = {"x": np.array([1.0], np.float32)}
CPU = "CPUExecutionProvider"


@contextmanager
def triton(root: Path) -> Iterator[Server]:
    """A server that loads from a repository by explicit control, as Triton does."""
    root.mkdir(exist_ok=True)
    table = ModelTable()
    repository = ModelRepository(root, table, EngineOptions(providers=(CPU,)))
    with serving(table, control=RepositoryControl(repository, table)) as running:
        yield running.server


def entries(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_a_model_is_written_loaded_run_and_withdrawn(tmp_path: Path) -> None:
    (tmp_path / "laid-out").mkdir()
    path = mlp(tmp_path / "laid-out" / "net.onnx", external=True)
    with triton(tmp_path / "repository") as server:
        engine = ExternalEngine(server.endpoint, repository=tmp_path / "repository")
        model = engine.load(path, EngineOptions(providers=(CPU,), strict=True))
        assert model.providers == (CPU,)
        assert model.interface.inputs[0].shape == (-1, 4)
        (name,) = entries(tmp_path / "repository")
        assert entries(tmp_path / "repository" / name / "1") == ["net.onnx", "net.onnx.data"]
        got = model.infer({"x": np.eye(4, dtype=np.float32)}, ["y"])["y"]
        assert got.tolist() == [[0, 0], [0, 0], [1, 2], [3, 4]]
        model.close()
        model.close()
        assert entries(tmp_path / "repository") == []
        with pytest.raises(InferenceError, match="closed"):
            model.infer(X)


def test_old_and_new_are_loaded_side_by_side(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    old = plus(tmp_path / "old" / "model.onnx", 1)
    new = plus(tmp_path / "new" / "model.onnx", 2)
    with triton(tmp_path / "repository") as server:
        engine = ExternalEngine(server.endpoint, repository=tmp_path / "repository")
        first, second = (engine.load(path, EngineOptions()) for path in (old, new))
        assert first.infer(X)["y"] == 2
        assert second.infer(X)["y"] == 3
        again = engine.load(old, EngineOptions())
        first.close()
        assert again.infer(X)["y"] == 2, "it is still used under the same name"
        for model in (second, again):
            model.close()
        assert not engine._users, "names of models that are gone would only grow"


def test_what_the_server_cannot_load_leaves_no_entry(tmp_path: Path) -> None:
    (tmp_path / "laid-out").mkdir()
    (tmp_path / "laid-out" / "model.onnx").write_bytes(b"broken")
    with triton(tmp_path / "repository") as server:
        engine = ExternalEngine(server.endpoint, repository=tmp_path / "repository")
        with pytest.raises(InvalidModelError, match=r"can't load the model.*model\.onnx"):
            engine.load(tmp_path / "laid-out" / "model.onnx", EngineOptions())
        assert entries(tmp_path / "repository") == []


def test_a_model_that_the_server_has_is_used_as_it_is(tmp_path: Path) -> None:
    entry = plus(tmp_path / "model.onnx", 1)
    with serving(table_of(served(FakeModel(5), "theirs"))) as running:
        engine = ExternalEngine(running.server.endpoint, model="theirs")
        model = engine.load(entry, EngineOptions())
        assert model.infer(X)["y"] == 6
        assert model.engine.startswith("edgefleet-runtime ")
        with pytest.raises(InvalidInputError, match="FP32"):
            model.infer({"x": np.ones(1)})
        model.close()
        with pytest.raises(InvalidModelError, match="'absent' is not ready"):
            ExternalEngine(running.server.endpoint, model="absent").load(entry, EngineOptions())
        with pytest.raises(UnsupportedError, match="FakeProvider, not on CUDA"):
            engine.load(entry, EngineOptions(providers=("CUDAExecutionProvider",), strict=True))


def test_a_server_that_is_gone_is_an_error_and_a_server_that_is_back_is_found(
    tmp_path: Path,
) -> None:
    entry = plus(tmp_path / "model.onnx", 1)
    table = table_of(served(FakeModel(1)))
    with serving(table) as running:
        host, port = running.address
        engine = ExternalEngine(running.server.endpoint, model="m")
        model = engine.load(entry, EngineOptions())
    with pytest.raises(InferenceError, match="doesn't answer") as gone:
        model.infer(X)
    assert gone.value.retryable
    with pytest.raises(UnavailableError):
        engine.load(entry, EngineOptions())
    with serving(table_of(served(FakeModel(2))), host, port):
        assert model.infer(X)["y"] == 3
    model.close()


class Silly(BaseHTTPRequestHandler):
    """A server with some answer for everything."""

    answers: dict[str, bytes]

    def do_GET(self) -> None:
        body = self.answers.get(self.path, b"{}")
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - http.server looks for these names

    def log_message(self, *_: Any) -> None:
        pass


METADATA = b'{"name":"m","inputs":[{"name":"x","datatype":"FP32","shape":[-1]}],"outputs":[]}'


@pytest.mark.parametrize(
    "answers,said",
    [
        ({"/v2": b"<html>"}, "not what Open Inference Protocol"),
        ({"/v2": b"[]"}, "not what Open Inference Protocol"),
        ({"/v2": b'{"name":"\xff"}'}, "not what Open Inference Protocol"),
        ({"/v2": b"[" * 5000}, "not what Open Inference Protocol"),
        ({"/v2/models/m": b'{"inputs": 1}'}, "not what Open Inference Protocol"),
        ({"/v2/models/m": METADATA.replace(b"FP32", b"BF99")}, "can't be served"),
        ({"/v2/models/m": METADATA, "/v2/models/m/infer": b"\xff"}, "can't be read"),
    ],
)
def test_a_server_that_talks_nonsense_is_refused(
    tmp_path: Path, answers: dict[str, bytes], said: str
) -> None:
    entry = plus(tmp_path / "model.onnx", 1)
    handler = type("Handler", (Silly,), {"answers": answers})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            engine = ExternalEngine(f"http://127.0.0.1:{server.server_port}", model="m")
            with pytest.raises(EdgeFleetError, match=said):
                engine.load(entry, EngineOptions()).infer(X)
        finally:
            server.shutdown()
            thread.join()


def test_a_server_that_does_not_tell_where_it_runs_fails_strict(tmp_path: Path) -> None:
    entry = plus(tmp_path / "model.onnx", 1)
    handler = type("Handler", (Silly,), {"answers": {"/v2/models/m": METADATA}})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            engine = ExternalEngine(f"http://127.0.0.1:{server.server_port}", model="m")
            model = engine.load(entry, EngineOptions())
            assert model.providers == (UNTOLD,)
            model.close()
            with pytest.raises(UnsupportedError, match=UNTOLD):
                engine.load(entry, EngineOptions(providers=(CPU,), strict=True))
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("url", ["", "localhost:8000", "https://h:1", "http://h:x", "http://h/v2"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        ExternalEngine(url, model="m")


def test_a_fleet_delivers_to_a_server_that_already_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = Repository(tmp_path / "fleet")
    release = fleet.release({"digits": publish(fleet, 2.0)})
    fleet.point(release)
    arguments = [
        *("once", "--root", str(tmp_path / "data"), "--device", "cam-07", "--channel", "file"),
        *("-o", f"pointer={fleet.pointer_path}", "-o", f"outbox={tmp_path / 'outbox'}"),
    ]
    with triton(tmp_path / "repository") as server:
        where = [
            "--external",
            server.endpoint,
            "--external-repository",
            str(tmp_path / "repository"),
        ]
        command = [sys.executable, "-m", "edgefleet_runtime", *arguments, *where]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    report = read_report((tmp_path / "outbox" / "report.json").read_bytes())
    assert report.running == release
    assert report.models[0].self_test is not None
    assert report.models[0].self_test.passed
    assert main([*arguments, "--external", "http://127.0.0.1:1"]) == 1
    assert "--external-model" in capsys.readouterr().err
