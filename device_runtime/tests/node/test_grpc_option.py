"""A runtime's ``--grpc``: served beside REST, absent otherwise, and the missing extra is named."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as client

from device_runtime.tests.node.device import Device, publish
from device_runtime.tests.support import Repository
from edgefleet_runtime.cli import main

RUN = ["run", "--root", "r", "--device", "cam-07", "--channel", "file"]
OPTIONS = ["-o", "pointer=p", "-o", "outbox=o"]


def test_a_device_answers_over_grpc_what_the_fleet_delivered(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "fleet")
    release = repository.release({"digits": publish(repository, 3)})
    repository.point(release)
    with tempfile.TemporaryDirectory(prefix="ef") as folder:
        address = f"unix:{folder}/s"
        with Device(tmp_path / "cam-07", repository, "--grpc", address) as device:
            device.active(release)
            with client.InferenceServerClient(address) as grpc:
                assert grpc.is_server_ready()
                given = client.InferInput("x", [1, 4], "FP32")
                given.set_data_from_numpy(np.ones((1, 4), np.float32))
                answer = grpc.infer("digits", [given]).as_numpy("y")
    np.testing.assert_array_equal(answer, np.full((1, 4), 3, np.float32))


def test_without_the_extra_its_name_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "edgefleet_runtime.serve.grpc.server", raising=False)
    monkeypatch.setitem(sys.modules, "grpc.aio", None)
    assert main([*RUN, *OPTIONS, "--grpc", "127.0.0.1:0"]) == 1
    assert "edgefleet-runtime[grpc]" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments,said",
    [
        (["--grpc", "8001"], "HOST:PORT"),
        (["--grpc", "0.0.0.0:0"], "other machines"),
        (["--grpc", "0.0.0.0:0", "--allow-remote"], "--token-file"),
        (["--grpc", "127.0.0.1:0", "--token-file", "absent"], "can't read absent"),
        (["--grpc", "127.0.0.1:0", "--tls-cert", "c", "--tls-key", "absent"], "can't read absent"),
    ],
)
def test_what_grpc_may_not_be_served_on_is_refused_as_for_rest(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*RUN, *OPTIONS, "--http", "none", "--uds", "s", *arguments]) == 1
    assert said in capsys.readouterr().err


def test_a_runtime_without_grpc_imports_none_of_it() -> None:
    code = (
        "import edgefleet_runtime.node, sys;"
        "print([m for m in ('grpc', 'google.protobuf') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
