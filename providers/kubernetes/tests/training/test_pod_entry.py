"""What runs first in a training pod, as the pod runs it: a text given to Python."""

from __future__ import annotations

import ast
import base64
import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

from edgefleet.errors import IntegrityError, NotFoundError
from edgefleet.interfaces import script_archive, training_entry
from edgefleet.testing.cloud.calls import Refused
from edgefleet.testing.cloud.oci import Kind, OciRegistry
from edgefleet.testing.cloud.oci_tokens import User
from edgefleet.testing.cloud.rules import Rule
from edgefleet_kubernetes import pod_entry
from edgefleet_kubernetes.artifacts import CODE, Artifacts
from providers.kubernetes.tests.oci.rig import credentials

ArtifactsOf = Callable[..., Artifacts]
SCRIPT = """
import pathlib
from edgefleet import training
text = (training.data_dir() / "in.txt").read_text()
(training.output_dir() / "model.onnx").write_text(text.upper() * training.params()["times"])
(training.output_dir() / "more").mkdir()
(training.output_dir() / "more" / "empty").touch()
print("read", len(text), flush=True)
"""


class Run:
    """One run of a script in a pod of this machine.

    Args:
        artifacts: that the operator reaches.
        folder: for the script and the pod.
    """

    def __init__(self, artifacts: Artifacts, folder: Path, script: str = SCRIPT) -> None:
        self.artifacts, self._folder = artifacts, folder
        source = folder / "source"
        source.mkdir()
        (source / "train.py").write_text(script)
        data = folder / "in.txt"
        data.write_text("abc" * 100_000)
        order = {"script": "train.py", "data": ".", "requirements": []}
        code = {
            training_entry.SOURCE: script_archive.pack(source),
            training_entry.ORDER: json.dumps(order).encode(),
            training_entry.ENTRY: Path(training_entry.__file__).read_bytes(),
        }
        self.order: dict[str, object] = {
            "store": artifacts.address,
            "code": artifacts.send(code, "code-1", CODE),
            "data": artifacts.send({"in.txt": data}, "data-1", CODE),
            "outputs": "outputs-1",
            "entry": training_entry.ENTRY,
            "arguments": [],
            "rank": "RANK",
            "checkpoints": None,
        }

    def go(self, **more: str) -> subprocess.CompletedProcess[str]:
        """Run the pod's command to its end."""
        given = {
            "PATH": os.environ["PATH"],
            pod_entry.ORDER: json.dumps(self.order),
            "EDGEFLEET_PARAMS": json.dumps({"times": 2}),
            "TMPDIR": str(self._folder),
            **more,
        }
        command = [sys.executable, "-c", Path(pod_entry.__file__).read_text()]
        return subprocess.run(
            command, env=given, capture_output=True, text=True, timeout=120, check=False
        )

    def outputs(self) -> Path:
        """What it left, brought here."""
        to = self._folder / "outputs"
        self.artifacts.fetch("outputs-1", to)
        return to


@pytest.fixture
def run_on(artifacts_of: ArtifactsOf, tmp_path: Path) -> Callable[..., Run]:
    def make(registry: OciRegistry, script: str = SCRIPT, **settings: object) -> Run:
        return Run(artifacts_of(registry, **settings), tmp_path, script)

    return make


def test_code_and_data_come_and_outputs_stay(
    registry: OciRegistry, run_on: Callable[..., Run]
) -> None:
    run = run_on(registry)
    ended = run.go()
    assert (ended.returncode, ended.stdout) == (0, "read 300000\n"), ended.stderr
    outputs = run.outputs()
    assert (outputs / "model.onnx").stat().st_size == 600_000
    assert (outputs / "more" / "empty").read_bytes() == b""


def test_a_connection_that_is_dropped_goes_on_by_range(
    run_on: Callable[..., Run], tmp_path: Path
) -> None:
    with OciRegistry(tmp_path / "other") as dropping:
        run = run_on(dropping)
        dropping.kind.drop_every = 200_000
        ended = run.go(EDGEFLEET_PARAMS='{"times": 0}')
        partial = dropping.seen("GetBlob", "206")
    assert "read 300000" in ended.stdout, ended.stderr
    assert partial


def test_credentials_buy_tokens_and_stay_out_of_the_script(
    run_on: Callable[..., Run], tmp_path: Path
) -> None:
    script = f"import os; print({pod_entry.AUTH!r} in os.environ)"
    users = {"trainer": User("word")}
    with OciRegistry(tmp_path / "other", users=users) as asking:
        known = credentials(
            tmp_path / "config.json", asking.host, username="trainer", password="word"
        )
        run = run_on(asking, script, registry_credentials=known)
        ended = run.go(**{pod_entry.AUTH: known.read_text()})
        assert (ended.returncode, ended.stdout) == (0, "False\n"), ended.stderr
        refused = run.go()
    assert refused.returncode == 1
    assert "401" in refused.stderr


def test_a_redirected_download_shows_the_credentials_to_nobody_else(
    run_on: Callable[..., Run], tmp_path: Path
) -> None:
    users = {"trainer": User("word")}
    with OciRegistry(tmp_path / "other", Kind(redirects=True), users=users) as moved:
        known = credentials(
            tmp_path / "config.json", moved.host, username="trainer", password="word"
        )
        run = run_on(moved, registry_credentials=known)
        ended = run.go(**{pod_entry.AUTH: known.read_text()})
        assert ended.returncode == 0, ended.stderr
        assert moved.seen("StoreGet", "200")


def test_a_refusal_tells_no_signed_address(run_on: Callable[..., Run], tmp_path: Path) -> None:
    with OciRegistry(tmp_path / "other", Kind(redirects=True)) as moved:
        run = run_on(moved)
        moved.rules.add(Rule("oci.StoreGet", fault=Refused(404, "NoSuchKey")))
        ended = run.go()
    assert ended.returncode == 1
    assert "RefusedError: 404 http" in ended.stderr
    assert "signature" not in ended.stderr


def test_a_redirect_away_from_tls_is_not_followed() -> None:
    asked = urllib.request.Request("https://registry.test/v2/plant/blobs/x")
    redirects = pod_entry._Redirects()
    with pytest.raises(pod_entry.RefusedError, match="TLS"):
        redirects.redirect_request(asked, None, 307, "", {}, "http://store.test/x")
    assert redirects.redirect_request(asked, None, 307, "", {}, "https://store.test/x") is not None


class _Breaking(BaseHTTPRequestHandler):
    """Sends a body in chunks, and breaks off in the first of its answers."""

    protocol_version = "HTTP/1.1"
    server: _BreakingServer

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(self.server.bodies.pop(0))
        self.close_connection = True


class _BreakingServer(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Breaking)
        self.bodies: list[bytes] = []


@contextmanager
def breaking(*bodies: bytes) -> Iterator[str]:
    """The address of a repository that answers so, one after the other."""
    with _BreakingServer() as server:
        server.bodies = [*bodies]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v2/plant"
        finally:
            server.shutdown()
            thread.join()


WHOLE = {"digest": f"sha256:{sha256(b'whole').hexdigest()}", "size": 5}


def test_an_answer_in_chunks_that_breaks_off_is_asked_for_again(tmp_path: Path) -> None:
    waited: list[float] = []
    with breaking(b"5\r\nwh", b"5\r\nwhole\r\n0\r\n\r\n") as base:
        pod_entry.Registry(base, wait=waited.append).fetch(WHOLE, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"whole"
    assert len(waited) == 1


def test_no_more_of_a_blob_is_written_than_it_has(tmp_path: Path) -> None:
    with (
        breaking(b"5\r\nwhole\r\n1\r\n!\r\n0\r\n\r\n") as base,
        pytest.raises(pod_entry.RefusedError, match="longer"),
    ):
        pod_entry.Registry(base).fetch(WHOLE, tmp_path / "file")
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 5


def _auth(pair: str) -> dict[str, str]:
    return {"auth": base64.b64encode(pair.encode()).decode()}


@pytest.mark.parametrize(
    "auths, repository, user",
    [
        ({"reg.test/other": _auth("a:1"), "reg.test": _auth("b:2")}, "reg.test/v2/plant", "b:2"),
        ({"reg.test": _auth("b:2"), "reg.test/plant": _auth("c:3")}, "reg.test/v2/plant/m", "c:3"),
        ({"reg.test/plant": _auth("c:3")}, "reg.test/v2/plants", ""),
        ({"https://reg.test/v2/": _auth("d:4")}, "reg.test/v2/plant", "d:4"),
        ({"https://index.docker.io/v1/": _auth("e:5")}, "registry-1.docker.io/v2/plant", "e:5"),
        ({"reg.test": {"username": "f", "password": "6"}}, "reg.test/v2/plant", "f:6"),
        ({"reg.test": {}}, "reg.test/v2/plant", ""),
        ({"reg.test": {"identitytoken": "t"}}, "reg.test/v2/plant", ""),
    ],
)
def test_of_the_credentials_those_of_the_repository_count(
    auths: dict[str, dict[str, str]], repository: str, user: str
) -> None:
    found = pod_entry._basic(json.dumps({"auths": auths}), f"https://{repository}/")
    assert base64.b64decode(found).decode() == user


@pytest.mark.parametrize(
    "config",
    ["word", "[]", '{"auths": {"reg.test": "word"}}', '{"auths": {"reg.test": {"auth": "wo rd"}}}'],
)
def test_credentials_that_make_no_sense_are_not_repeated(config: str) -> None:
    with pytest.raises(pod_entry.RefusedError, match="docker") as caught:
        pod_entry.Registry("https://reg.test/v2/plant", config)
    assert "word" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_failing_script_keeps_nothing_and_gives_its_status(
    registry: OciRegistry, run_on: Callable[..., Run]
) -> None:
    run = run_on(registry, "raise SystemExit(7)")
    assert run.go().returncode == 7
    with pytest.raises(NotFoundError):
        run.outputs()


def test_only_the_first_machine_keeps_what_it_leaves(
    registry: OciRegistry, run_on: Callable[..., Run]
) -> None:
    run = run_on(registry)
    assert run.go(RANK="1").returncode == 0
    with pytest.raises(NotFoundError):
        run.outputs()


def test_other_content_than_the_digest_says_is_refused(
    registry: OciRegistry, run_on: Callable[..., Run]
) -> None:
    run = run_on(registry)
    run.order["code"] = "sha256:" + "0" * 64
    ended = run.go()
    assert ended.returncode == 1
    assert "404" in ended.stderr


@pytest.mark.parametrize("title", ["../out", "/out", "a/../../out", "a//b"])
def test_names_that_lead_out_of_the_folder_are_refused(
    registry: OciRegistry, run_on: Callable[..., Run], title: str
) -> None:
    run = run_on(registry)
    run.order["code"] = run.artifacts.send({title: b"x"}, "bad", CODE)
    assert "RefusedError" in run.go().stderr


def test_outputs_named_to_lead_out_are_refused_here(
    registry: OciRegistry, artifacts_of: ArtifactsOf, tmp_path: Path
) -> None:
    artifacts = artifacts_of(registry)
    artifacts.send({"../out": b"x"}, "outputs-1", CODE)
    with pytest.raises(IntegrityError):
        artifacts.fetch("outputs-1", tmp_path / "outputs")
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("module", [pod_entry, training_entry], ids=["pod", "training"])
def test_a_pod_needs_no_newer_python_than_3_9_and_no_library(module: ModuleType) -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text("utf-8"), feature_version=(3, 9))
    nodes = list(ast.walk(tree))
    names = {one.name for node in nodes if isinstance(node, ast.Import) for one in node.names}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    assert "subprocess" in names
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names
