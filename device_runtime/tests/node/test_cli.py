from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from device_runtime.tests import onnx_models
from edgefleet.errors import ConflictError, InvalidInputError
from edgefleet_runtime import __version__, doctor
from edgefleet_runtime.cli import main
from edgefleet_runtime.commands.fleet import LABELS_VARIABLE, add_fleet, fleet_settings
from edgefleet_runtime.config import checked
from edgefleet_runtime.lock import RootLock

RUN = ["run", "--root", "r", "--device", "cam-07", "--channel", "file"]
OPTIONS = ["-o", "pointer=p", "-o", "outbox=o"]
ONCE = "once --root r --device cam-07 --channel file -o pointer=p -o outbox=o"


@pytest.mark.parametrize(
    "arguments,said",
    [
        ([*RUN, "-o", "pointer"], "KEY=VALUE"),
        ([*RUN, *OPTIONS, "--label", "=x"], "KEY=VALUE"),
        ([*RUN, *OPTIONS, "--label", "x=" + "y" * 64], "labels"),
        ([*RUN, *OPTIONS, "--http", "8080"], "HOST:PORT"),
        ([*RUN, *OPTIONS, "--http", "127.0.0.1:99999"], "port"),
        ([*RUN, *OPTIONS, "--http", "none"], "Unix socket"),
        ([*RUN, *OPTIONS, "--http", "0.0.0.0:0"], "other machines"),
        ([*RUN, *OPTIONS, "--http", "0.0.0.0:0", "--allow-remote"], "--token-file"),
        ([*RUN, *OPTIONS, "--token-file", "/dev/null"], "/dev/null"),
        ([*RUN, *OPTIONS, "--tls-cert", "cert.pem"], "--tls-key"),
        ([*RUN, *OPTIONS, "--tls-cert", "c", "--tls-key", "k"], "can't read k"),
        ([*RUN, *OPTIONS, "--open-health"], "--token-file"),
        ([*RUN, *OPTIONS, "--fleet", "mine"], "fleet"),
        ([*RUN, *OPTIONS, "--spool-max-bytes", "1"], "spool_max_bytes"),
        ([*RUN, *OPTIONS, "--store-max-bytes", "0"], "store_max_bytes"),
        ([*RUN, *OPTIONS, "--metered", ""], "metered"),
        ([*RUN, "-o", "pointer=p"], "outbox"),
        ([*RUN[:-1], "smoke", *OPTIONS], "no channel 'smoke'"),
        ([*RUN[:4], "a/b", *RUN[5:], *OPTIONS], "device name"),
        (["run", "--root", "/proc/nowhere", *RUN[3:], *OPTIONS], "/proc/nowhere"),
    ],
)
def test_a_wrong_start_is_refused_with_its_cure(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert said in error
    assert "cure: " in error
    assert "Traceback" not in error


def test_labels_come_from_the_environment_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    add_fleet(parser)
    given = parser.parse_args([*RUN[1:], "--label", "target=x86-cpu"])
    monkeypatch.setenv(LABELS_VARIABLE, '{"site": "A 1", "target": "jetson-orin"}')
    assert fleet_settings(given)["labels"] == {"site": "A 1", "target": "x86-cpu"}
    monkeypatch.setenv(LABELS_VARIABLE, '{"site": 3}')
    assert main([*RUN, *OPTIONS]) == 1
    assert LABELS_VARIABLE in capsys.readouterr().err


def test_doctor_tells_what_works_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["runtime"] == __version__
    engines = {engine["name"]: engine for engine in facts["engines"]}
    assert engines["onnxruntime"]["problem"] is None
    assert "CPUExecutionProvider" in engines["onnxruntime"]["providers"]
    channels = {channel["name"]: channel for channel in facts["channels"]}
    assert channels["file"]["options"].keys() == {"pointer", "outbox"}
    assert main(["doctor"]) == 0
    assert "runs on CPUExecutionProvider" in capsys.readouterr().out


def test_doctor_tells_which_extras_a_policy_may_ask_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(doctor.WATCHING, "mqtt", "no_such_module")
    assert main(["doctor", "--json"]) == 0
    extras = json.loads(capsys.readouterr().out)["extras"]
    assert extras == {"drift": True, "rules": True, "mqtt": False}
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "  rules: installed" in said
    assert "pip install 'edgefleet-runtime[mqtt]'" in said


def test_a_wrong_name_of_the_device_has_one_cure(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--root", "r", "--device", "cam 1", "--channel", "file", "-o", "pointer=p"]
    assert main(["run", *given, "-o", "outbox=o"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: not a device name: 'cam 1'")
    assert said.count("cure: ") == 1


def test_a_reader_that_has_enough_is_no_failure_to_trace() -> None:
    command = [sys.executable, "-m", "edgefleet_runtime", "doctor"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(90) == 1


def test_a_terminal_without_an_ellipsis_is_told_what_it_can_show() -> None:
    command = [sys.executable, "-m", "edgefleet_runtime", "doctor"]
    told = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(command, env=told, capture_output=True, check=True, timeout=90)
    assert b"-o pointer=?" in done.stdout


def interrupted_bench(file: Path, seconds: str) -> tuple[int, bytes]:
    """How a measurement ended that was interrupted after its first figure, and its errors."""
    command = [sys.executable, "-m", "edgefleet_runtime", "bench", str(file), "--seconds", seconds]
    told = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=told
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(str(file).encode())
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=90)
        finally:
            process.kill()
    return process.returncode, error


def test_an_interrupt_is_no_failure_to_trace(tmp_path: Path) -> None:
    file = onnx_models.plus(tmp_path / "one.onnx", 1)
    # A busy machine may let the second figure end, too, before the signal is sent.
    ends = (interrupted_bench(file, seconds) for seconds in ("2", "8", "32"))
    assert next((end for end in ends if end[0] != 0), None) == (130, b"")


def test_help_teaches_and_version_tells(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (["--version"], __version__),
        (["run", "--help"], "--exit-with-parent"),
        (["bench", "--help"], "\n\nMeasure a model on this device"),
        (["serve", "--help"], "intel-npu"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        assert said in capsys.readouterr().out


def test_help_loads_neither_numpy_nor_an_engine() -> None:
    code = (
        "import sys, edgefleet_runtime.cli as c\n"
        "try: c.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'numpy', 'onnxruntime', 'asyncio', 'msgspec'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


def test_a_folder_is_free_again_when_its_runtime_has_ended(tmp_path: Path) -> None:
    first = RootLock(tmp_path)
    with pytest.raises(ConflictError, match="another runtime"):
        RootLock(tmp_path)
    first.release()
    RootLock(tmp_path).release()


def test_wrong_settings_are_named() -> None:
    with pytest.raises(InvalidInputError, match=r"port"):
        checked({"root": Path("r"), "device": "cam-07", "channel": "file", "port": -1})


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon"])
@pytest.mark.parametrize("command", ["bench m.onnx --seconds", f"{ONCE} --timeout"])
def test_a_duration_is_a_number_above_zero(
    command: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), text])
    assert ended.value.code == 2
    assert "seconds above 0" in capsys.readouterr().err


def test_a_device_that_nobody_told_anything_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(ONCE.split()) == 0
    assert "asked for nothing yet; runs nothing" in capsys.readouterr().out
