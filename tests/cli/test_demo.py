"""`edgefleet demo`: short, whole, and nothing left of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from edgefleet.cli.demo import command
from tests.cli.conftest import Run, RunJson

pytest.importorskip("sklearn")
pytest.importorskip("skl2onnx")
pytest.importorskip("matplotlib")


def test_the_demo_keeps_what_it_promises(
    run_json: RunJson,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = tmp_path_factory.mktemp("cache")  # where matplotlib keeps what it knows of fonts
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    facts = run_json("demo", "--output", "out")
    assert [version["reference"] for version in facts["versions"]] == ["digits:1", "digits:2"]
    assert len(facts["versions"][0]["variants"]) >= 2
    assert len({device["variant"] for device in facts["devices"]}) >= 2
    assert len({device["process"] for device in facts["devices"]}) == 3
    for device in facts["devices"]:
        assert device["accuracy"]["2"] > device["accuracy"]["1"] > 0.9
        assert device["execution_provider"].endswith("ExecutionProvider")
        assert min(device["bytes_fetched"].values()) > 0
    for swap in (facts["update"], facts["rollback"]):
        assert swap["requests"] > 0
        assert swap["failed"] == 0
        assert sum(swap["answered"].values()) == swap["requests"]
        assert swap["same_processes"]
    assert set(facts["update"]["answered"]) == {"1", "2"}
    assert facts["rollback"]["bytes_fetched"] == 0
    telemetry = facts["telemetry"]
    assert telemetry["events"] == telemetry["requests_sent"] > 100
    assert facts == json.loads((tmp_path / "out" / "demo.json").read_bytes())
    assert (tmp_path / "out" / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not (cache / "edgefleet").exists()


def test_an_interrupted_demo_leaves_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-m", "edgefleet.cli", "demo", "--output", "out"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if "fleet.deploy(" in line:
                    break
            [fleet] = tmp_path.glob("edgefleet-demo-*")
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=90)
        finally:
            process.kill()
    assert process.returncode == 130
    assert err.strip().splitlines()[-1] == "interrupted"
    assert not fleet.exists()
    mine = str(fleet).encode()
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if mine in _read(path)], (
        "a process of the demo still runs"
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_what_is_missing_is_said_before_anything_begins(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "NEEDED", (*command.NEEDED, "no_such_library"))
    said = run("demo", expect=1).stderr
    assert "the demo needs no_such_library" in said
    assert "pip install 'edgefleet[demo]'" in said
    assert not (tmp_path / "demo-out").exists()


def test_an_earlier_demos_fleet_is_not_overwritten(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out" / "fleet").mkdir(parents=True)
    assert "is there already" in run("demo", "--keep", "--output", "out", expect=1).stderr
