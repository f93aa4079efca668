"""``serve`` as a real process, and what it refuses to start with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from device_runtime.tests.node.device import publish
from device_runtime.tests.onnx_models import plus
from device_runtime.tests.support import Repository
from edgefleet.protocol.layout import BundleLayout
from edgefleet_runtime.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator

NONE = ["--load-model", "none"]
PREFIX = "edgefleet-*"  # engines leave files of their own among temporary files


MODULE = ("-m", "edgefleet_runtime")


@contextmanager
def serving(
    *arguments: str, python: tuple[str, ...] = MODULE, **environment: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server and its endpoint; ends with the block."""
    command = [sys.executable, *python, "serve", "--exit-with-parent"]
    process = subprocess.Popen(
        [*command, "--http", "127.0.0.1:0", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
    )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("serving on http://"), line
            yield line.split()[-1], process
        finally:
            process.kill()


def infer(endpoint: str, name: str, values: list[float], shape: list[int]) -> Any:
    tensor = {"name": "x", "datatype": "FP32", "shape": shape, "data": values}
    request = urllib.request.Request(
        f"{endpoint}/v2/models/{name}/infer", json.dumps({"inputs": [tensor]}).encode()
    )
    with urllib.request.urlopen(request, timeout=90) as answer:
        return json.load(answer)["outputs"][0]["data"]


def bundle(root: Path, factor: float, *, recorded: float | None = None) -> BundleLayout:
    return publish(Repository(root), factor, recorded=recorded)


def test_files_bundles_and_a_repository_are_served_together(tmp_path: Path) -> None:
    file = plus(tmp_path / "one.onnx", 1)
    layout = bundle(tmp_path / "published", 3.0)
    version = tmp_path / "repository" / "two" / "1"
    version.mkdir(parents=True)
    plus(version / "model.onnx", 2)
    with serving(
        *("--model", f"one={file}", "--bundle", f"three={layout.root}"),
        *("--model-repository", str(tmp_path / "repository"), "--device", "cpu", "--strict"),
    ) as (endpoint, process):
        assert infer(endpoint, "one", [1.0], [1]) == [2.0]
        assert infer(endpoint, "two", [1.0], [1]) == [3.0]
        assert infer(endpoint, "three", [1.0] * 4, [1, 4]) == [3.0] * 4
        process.send_signal(signal.SIGTERM)
        assert process.wait(90) == 0


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """``a`` adds 1, ``b`` adds 2."""
    for name, addend in (("a", 1), ("b", 2)):
        version = tmp_path / "repository" / name / "1"
        version.mkdir(parents=True)
        plus(version / "model.onnx", addend)
    return tmp_path / "repository"


def test_models_are_loaded_over_grpc_and_listed_over_rest(repository: Path) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="ef") as folder,
        serving(
            *("--model-repository", str(repository), "--load-model", "b"),
            *("--grpc", f"unix:{folder}/s"),
        ) as (endpoint, process),
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == f"serving gRPC on unix:{folder}/s\n"
        rest = tritonclient.http.InferenceServerClient(endpoint.partition("://")[2])
        with tritonclient.grpc.InferenceServerClient(f"unix:{folder}/s") as grpc, rest:
            states = [(m["name"], m["state"]) for m in rest.get_model_repository_index()]
            assert states == [("a", "UNAVAILABLE"), ("b", "READY")]
            grpc.load_model("a")
            assert infer(endpoint, "a", [1.0], [1]) == [2.0]
            with pytest.raises(InferenceServerException, match="--allow-overrides"):
                grpc.load_model("a", config="{}")
            rest.unload_model("b")
            assert not grpc.is_model_ready("b")
        process.send_signal(signal.SIGTERM)
        assert process.wait(90) == 0
        assert list(Path(folder).iterdir()) == []


def test_files_from_requests_are_gone_when_the_server_has_stopped(
    repository: Path, tmp_path: Path
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    arguments = ("--model-repository", str(repository), *NONE, "--allow-overrides")
    with serving(*arguments, TMPDIR=str(temporary)) as (endpoint, process):
        with tritonclient.http.InferenceServerClient(endpoint.partition("://")[2]) as rest:
            assert rest.is_server_ready()
            content = (repository / "b" / "1" / "model.onnx").read_bytes()
            rest.load_model("a", config="{}", files={"file:1/model.onnx": content})
        assert infer(endpoint, "a", [1.0], [1]) == [3.0]
        assert len(list(temporary.glob(PREFIX))) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(90) == 0
    assert list(temporary.glob(PREFIX)) == []


@pytest.mark.parametrize("given", [[], ["--model-control"]])
def test_other_machines_load_models_only_with_model_control(
    repository: Path, tmp_path: Path, given: list[str]
) -> None:
    """``LOCALHOST`` is a name to whoever doesn't resolve it: an address that others reach."""
    token = tmp_path / "token"
    token.write_text("t" * 40)
    token.chmod(0o600)
    with (
        serving(
            *("--model-repository", str(repository), *NONE, "--http", "LOCALHOST:0"),
            *("--allow-remote", "--token-file", str(token)),
            *given,
        ) as (endpoint, _),
        tritonclient.http.InferenceServerClient(endpoint.partition("://")[2]) as rest,
    ):
        headers = {"Authorization": "Bearer " + "t" * 40}
        if given:
            rest.load_model("a", headers=headers)
        else:
            with pytest.raises(InferenceServerException, match="--model-control"):
                rest.load_model("a", headers=headers)
        assert rest.is_model_ready("a", headers=headers) is bool(given)


def test_it_ends_with_what_started_it(tmp_path: Path) -> None:
    file = plus(tmp_path / "one.onnx", 1)
    with serving("--model", f"one={file}") as (_, process):
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(90) == 0


def test_a_load_that_does_not_end_does_not_keep_it_from_ending(tmp_path: Path) -> None:
    """The thread stands for one in an engine's call, which nothing can break off."""
    code = (
        "import sys, threading; from edgefleet_runtime.cli import main\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
        "sys.exit(main())\n"
    )
    file = plus(tmp_path / "one.onnx", 1)
    with serving("--model", f"one={file}", python=("-c", code)) as (_, process):
        process.send_signal(signal.SIGTERM)
        assert process.wait(90) == 0


SLOW = """
import sys, threading
from edgefleet_runtime.cli import main
from edgefleet_runtime.standalone import serving

def fill(*given):
    print("loading", flush=True)
    threading.Event().wait()  # an engine's build, which nothing can break off

serving.fill = fill
sys.exit(main())
"""


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_models_are_loaded_ends_it_at_once(signal_number: int) -> None:
    command = [sys.executable, "-c", SLOW, "serve", "--model", "m=m.onnx", "--http", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"loading\n"
            process.send_signal(signal_number)
            assert process.wait(90) == 0
            assert process.stdout.read() == b""  # it never said that it serves
        finally:
            process.kill()


def test_it_ends_with_what_started_it_while_models_are_loaded() -> None:
    command = [sys.executable, "-c", SLOW, "serve", "--model", "m=m.onnx", "--exit-with-parent"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == b"loading\n"
            process.stdin.close()
            assert process.wait(90) == 0
        finally:
            process.kill()


@pytest.mark.parametrize(
    "arguments,said",
    [
        ([], "nothing to serve"),
        (["--model", "one.onnx"], "KEY=VALUE"),
        (["--model", "m=one.onnx", "--model", "m=one.onnx"], "one name to several"),
        (["--model", "m=one.onnx", "--bundle", "m=published"], "NotFound"),
        (["--model", "m=absent.onnx"], "no file absent.onnx"),
        (["--model", "m=notes.txt"], "no model file"),
        (["--model", "m=broken.onnx"], "model 'm'"),
        (["--model", "m=one.onnx", "--device", "toaster"], "no device 'toaster'"),
        (["--model", "m=one.onnx", "--device", "cuda", "--strict"], "CUDAExecutionProvider"),
        (["--model", "m=one.onnx", "--http", "0.0.0.0:0"], "other machines"),
        (["--model-repository", "absent"], "no model repository"),
        (["--model", "two=one.onnx", "--model-repository", "repository"], "two models"),
        (["--bundle", "repository"], "no bundle"),
        (["--model", "m=one.onnx", "--http", "127.0.0.1:99999"], "no such port"),
        (["--model", "m=one.onnx", "--http", "none"], "nowhere to serve"),
        (["--model", "m=one.onnx", "--grpc", "0.0.0.0:0", "--allow-remote"], "--token-file"),
        (["--model", "m=one.onnx", "--model-control"], "--model-repository"),
        (["--model", "m=one.onnx", "--allow-overrides"], "--model-repository"),
        (["--model", "m=one.onnx", "--load-model", "m"], "--model-repository"),
        (["--model-repository", "repository"], "no version"),
        (["--model-repository", "repository", "--load-model", "one"], "no model 'one'"),
        (["--model-repository", "repository", *NONE, "--load-model", "two"], "beside other models"),
        (["--model", "two=one.onnx", "--model-repository", "repository", *NONE], "two models"),
        (["--model", "m=one.onnx", "--max-batch-rows", "0"], "max_rows"),
        (["--model", "m=one.onnx", "--latency-budget-ms", "inf"], "latency_us"),
        (["--model", "m=one.onnx", "--max-queued", "-1"], "max_requests"),
        (["--model", "m=one.onnx", "--max-held-mib", "0"], "max_held_bytes"),
        (["--model", "m=one.onnx", "--threads", "-3"], "--threads takes"),
        (["--model", "m=one.onnx", "--threads", "100000"], "--threads takes"),
        (["--model", "m=repository"], "repository is a folder"),
        (["--model", "a/b=one.onnx"], "model named 'a/b' over REST"),
        (["--bundle", "m=repository"], "model 'm': "),
    ],
)
def test_what_cannot_be_served_stops_the_start(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    plus(tmp_path / "one.onnx", 1)
    Path("notes.txt").touch()
    Path("broken.onnx").write_bytes(b"\xff" * 100)
    Path("repository/two/1").mkdir(parents=True)
    assert main(["serve", *arguments]) == 1
    error = capsys.readouterr().err
    assert said in error or said == "NotFound"
    assert error.startswith("error: ") or "\nerror: " in error


@pytest.mark.parametrize(
    "wrong",
    [
        ["--http", "0.0.0.0:0"],
        ["--grpc", "0.0.0.0:0"],
        ["--token-file", "absent"],
        ["--tls-cert", "absent", "--tls-key", "absent"],
    ],
)
def test_what_cannot_listen_is_told_before_models_are_loaded(
    wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--model", "m=absent.onnx", *wrong]) == 1
    error = capsys.readouterr().err
    assert "no file absent.onnx" not in error
    assert "cure: " in error


def test_a_queue_as_long_as_told_refuses_what_comes_on_top(tmp_path: Path) -> None:
    file = plus(tmp_path / "one.onnx", 1)
    bounds = ("--max-queued", "0", "--no-batching", "--latency-budget-ms", "2")
    with (
        serving("--model", f"m={file}", *bounds) as (endpoint, _),
        pytest.raises(urllib.error.HTTPError, match="503") as refused,
    ):
        infer(endpoint, "m", [1.0], [1])
    assert "0 requests are waiting" in refused.value.read().decode()


def test_a_bundle_that_fails_its_self_test_is_not_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = bundle(tmp_path, 2.0, recorded=5.0)
    assert main(["serve", "--bundle", str(layout.root)]) == 1
    assert "self-test" in capsys.readouterr().err


def test_the_start_loads_no_pydantic_and_no_fleet(tmp_path: Path) -> None:
    file = plus(tmp_path / "one.onnx", 1)
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from edgefleet_runtime.serve.table import ModelTable\n"
        "from edgefleet_runtime.standalone.scratch import Scratch\n"
        "from edgefleet_runtime.standalone.serving import StandaloneConfig, fill\n"
        "table = ModelTable()\n"
        f"fill(table, StandaloneConfig(models={{'m': Path({str(file)!r})}}), Scratch())\n"
        "wrong = ('pydantic', 'google', 'backports.zstd', 'edgefleet.protocol.pointer',"
        " 'edgefleet.protocol.release', 'edgefleet.protocol.report', 'edgefleet.protocol.event',"
        " 'edgefleet_runtime.node', 'edgefleet_runtime.reconciler', 'edgefleet_runtime.spool',"
        " 'edgefleet_runtime.store', 'edgefleet_runtime.channels')\n"
        "print([name for name in wrong if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
