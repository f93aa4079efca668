"""``serve`` and ``run`` as processes that a client of Edge Manager's agent talks to."""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from device_runtime.tests.edgemanager.agent_client import AgentClient
from device_runtime.tests.node.device import RECORD, Device, publish
from device_runtime.tests.onnx_models import plus
from device_runtime.tests.standalone.test_serve import serving
from device_runtime.tests.support import Repository
from edgefleet.protocol.event import Sample
from edgefleet.protocol.segment import read_segment
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator

X = np.array([1.0, 2.0], np.float32)
RUN = ["run", "--root", "r", "--device", "d", "--channel", "file", "-o", "pointer=p"]


def test_captures_that_cannot_be_kept_stop_the_start(
    tmp_path: Path, uds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    agent = ["--edge-manager-uds", str(uds), "--edge-manager-models", str(tmp_path)]
    given = [*agent, "--capture-dir", str(tmp_path / "file"), "--http", "127.0.0.1:0"]
    assert main(["serve", *given]) == 1
    assert "cure: give --capture-dir a folder" in capsys.readouterr().err


@pytest.fixture
def uds() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ef") as folder:
        yield Path(folder, "s")


def test_a_server_lets_clients_load_and_capture_where_it_was_told(
    tmp_path: Path, uds: Path, contract: Path
) -> None:
    (tmp_path / "models" / "one").mkdir(parents=True)
    plus(tmp_path / "models" / "one" / "model.onnx", 1)
    with (
        serving(
            *("--edge-manager-uds", str(uds), "--edge-manager-models", str(tmp_path / "models")),
            *("--capture-dir", str(tmp_path / "captures")),
        ) as (_, process),
        AgentClient(contract, f"unix:{uds}") as client,
    ):
        client.LoadModel(url=str(tmp_path / "models" / "one"), name="plus")
        x = client.tensor("x", X)
        assert client.predict("plus", x)["y"].tolist() == [2.0, 3.0]
        identity = str(uuid.uuid4())
        client.CaptureData(model_name="plus", capture_id=identity, input_tensors=[x])
        eventually(lambda: client.status(identity) == "SUCCESS")
        assert uds.stat().st_mode & 0o777 == 0o660
        process.terminate()
        assert process.wait(90) == 0
    assert not uds.exists()
    assert identity in (tmp_path / "captures" / "events.ndjson").read_text()


def test_what_a_device_captures_reaches_the_fleet(
    tmp_path: Path, uds: Path, contract: Path
) -> None:
    repository = Repository(tmp_path / "fleet")
    layout = publish(repository, 3)
    release = repository.release({"digits": layout}, telemetry=RECORD)
    repository.point(release)
    identity = str(uuid.uuid4())
    x = np.ones((1, 4), np.float32)
    with Device(tmp_path / "cam-07", repository, "--edge-manager-uds", str(uds)) as device:
        device.active(release)
        with AgentClient(contract, f"unix:{uds}") as client:
            given = client.tensor("x", x)
            y = client.predict("digits", given)["y"]
            client.CaptureData(
                model_name="digits",
                capture_id=identity,
                input_tensors=[given],
                output_tensors=[client.tensor("y", y)],
            )
            eventually(lambda: client.status(identity) == "SUCCESS")
        assert device.process is not None
        device.process.terminate()
        assert device.ended() == 0
    events = [
        event
        for path in device.outbox.rglob("*.ndjson.zst")
        for event in read_segment(io.BytesIO(path.read_bytes()))
    ]
    kinds = sorted(event.kind for event in events if event.kind != "account")
    assert kinds == ["prediction", "sample"]
    (sample,) = [event.payload() for event in events if event.id == identity]
    assert isinstance(sample, Sample)
    assert (sample.model, sample.model_version) == ("digits", "1")
    for digest, array in ((sample.inputs["x"], x), (sample.outputs["y"], y)):
        file = device.outbox / "samples" / "sha256" / digest.partition(":")[2]
        np.testing.assert_array_equal(np.load(file), array, strict=True)


@pytest.mark.parametrize(
    "arguments,said",
    [
        (["serve", "--model", "m=m.onnx", "--capture-dir", "c"], "--edge-manager-uds"),
        (["serve", "--edge-manager-models", "."], "--edge-manager-uds"),
        (["serve", "--edge-manager-uds", "s"], "nothing to serve"),
        (["serve", "--edge-manager-uds", "s", "--edge-manager-models", "no"], "no folder"),
        (
            ["serve", "--model", "m=m.onnx", "--edge-manager-uds", "s", "--capture-max-bytes", "0"],
            "--capture-max-bytes",
        ),
        (
            ["serve", "--model", "m=m.onnx", "--http", "127.0.0.1:0", "--edge-manager-uds", "m"],
            "is no socket",
        ),
    ],
)
def test_what_cannot_be_is_said(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    plus(Path("m.onnx"), 1)
    Path("m").touch()
    assert main(arguments) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", [["serve", "--model", "m=m.onnx"], [*RUN, "-o", "outbox=o"]])
def test_without_the_extra_its_name_is_said(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    plus(Path("m.onnx"), 1)
    module = "edgefleet_runtime.serve.edgemanager.server"
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "grpc.aio", None)
    assert main([*command, "--edge-manager-uds", "s"]) == 1
    assert "edgefleet-runtime[grpc]" in capsys.readouterr().err


def test_a_server_without_it_imports_none_of_it() -> None:
    code = (
        "import edgefleet_runtime.node, edgefleet_runtime.standalone.serving, sys;"
        "print([m for m in ('grpc', 'google.protobuf') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
