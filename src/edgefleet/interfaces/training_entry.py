"""Runs first where a vendor's service trains, and gives the user's script what every trainer gives.

Sent along with each job as one file, so it needs nothing but Python 3.9 and its standard library.
The order and the archive of `script_archive` lie beside it; where the vendor lays out the rest, the
command's arguments say.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from pathlib import Path
from typing import IO, Any

ENTRY = "edgefleet_entry.py"  # what this file is called where it is sent to
ORDER = "order.json"
SOURCE = "source.tar.gz"
HELPER = "helper"  # folder of the archive with `edgefleet.training`, for images without EdgeFleet
MAX_REASON = 1000  # characters that vendors show of a failure
METRIC = b"edgefleet-metric "
METRICS = "edgefleet-metrics.json"


class _RefusedError(Exception):
    """What came with the job can't be used."""


def main(words: list[str]) -> int:
    """Run the script that the order names; gives its exit status."""
    told, here = _arguments(words), Path(__file__).resolve().parent
    try:
        order = json.loads((here / ORDER).read_text(encoding="utf-8"))
        code = Path(told.work) / "code"
        _unpack(here / SOURCE, code)
        wanted = order.get("lacking", {})
        lacking = [wanted[name] for name in wanted if importlib.util.find_spec(name) is None]
        _install([*order["requirements"], *lacking])
        command = [sys.executable, "-u", order["script"]]
        metrics = told.metrics if _counts(told) else None
        status = _run(command, code / "source", _environment(told, order, code), metrics)
        reason = f"the script ended with status {status}" if status else None
    except (_RefusedError, OSError, ValueError, KeyError) as error:
        status, reason = 1, f"{type(error).__name__}: {error}"
        sys.stderr.write(f"{reason}\n")
    if reason is not None and told.failure is not None:
        failure = Path(told.failure)
        failure.parent.mkdir(parents=True, exist_ok=True)
        failure.write_text(reason[:MAX_REASON], encoding="utf-8")
    return status


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", required=True, help="folder whose content is kept")
    parser.add_argument("--work", required=True, help="folder for the code")
    parser.add_argument("--data", help="folder of the data")
    parser.add_argument("--trained", help="folder or tar.gz that the training script left")
    parser.add_argument("--checkpoints", help="folder that is there again; may be missing")
    parser.add_argument("--params", help="file with an object of JSON texts; may be missing")
    parser.add_argument("--failure", help="file to tell a failure in")
    parser.add_argument("--metrics", help="folder to write the newest metrics to")
    parser.add_argument("--rank", default="", help="variable with the number of this process")
    parser.add_argument("--set", action="append", default=[], help="NAME=VALUE for the script")
    told = parser.parse_args(words)
    told.work = str(Path(told.work).resolve())
    return told


def _unpack(archive: Path, to: Path) -> None:
    with tarfile.open(archive) as source:
        for member in source:
            parts = Path(member.name).parts
            if (
                not (member.isfile() or member.isdir())
                or member.name.startswith("/")
                or ".." in parts
            ):
                raise _RefusedError(f"the archive holds {member.name!r}")
            if member.isfile():
                path = to / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                content = source.extractfile(member)
                with path.open("wb") as target:
                    if content is not None:
                        shutil.copyfileobj(content, target, 1 << 20)


def _install(requirements: list[str]) -> None:
    if requirements:
        pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
        if subprocess.run([*pip, "--", *requirements], check=False).returncode:
            raise _RefusedError(f"pip could not install {' '.join(requirements)}")
        importlib.invalidate_caches()


def _counts(told: argparse.Namespace) -> bool:
    """Whether what this process leaves and logs counts: of several, the first one's does."""
    return not told.rank or os.environ.get(told.rank, "0") == "0"


def _environment(told: argparse.Namespace, order: dict[str, Any], code: Path) -> dict[str, str]:
    """The environment of the script: ours, and the names that the vendor's own tools give."""
    output = Path(told.output)
    if not _counts(told):
        output = Path(told.work) / "not-kept"
    output.mkdir(parents=True, exist_ok=True)
    given = {**os.environ, **dict(one.split("=", 1) for one in told.set)}
    given |= {"EDGEFLEET_OUTPUT_DIR": str(output), "PYTHONUNBUFFERED": "1"}
    if told.params is not None:
        written = Path(told.params)
        texts = json.loads(written.read_text(encoding="utf-8")) if written.exists() else {}
        params = {key: json.loads(text) for key, text in texts.items()}
        given["EDGEFLEET_PARAMS"] = json.dumps(params)
    if order["data"] is not None:
        given["EDGEFLEET_DATA_DIR"] = str(Path(told.data) / order["data"])
    if told.checkpoints is not None and Path(told.checkpoints).is_dir():
        given["EDGEFLEET_CHECKPOINT_DIR"] = told.checkpoints
    if told.trained is not None:
        trained = Path(told.trained)
        if trained.is_file():
            trained = Path(told.work) / "trained"
            _unpack(Path(told.trained), trained)
        given["EDGEFLEET_MODEL_DIR"] = str(trained)
    if importlib.util.find_spec("edgefleet") is None:
        before = given.get("PYTHONPATH")
        helper = str(code / HELPER)
        given["PYTHONPATH"] = helper if not before else f"{before}{os.pathsep}{helper}"
    return given


def _run(command: list[str], folder: Path, given: dict[str, str], metrics: str | None) -> int:
    out = None if metrics is None else subprocess.PIPE
    script = subprocess.Popen(command, cwd=folder, env=given, stdout=out)
    signal.signal(signal.SIGTERM, lambda *_: script.terminate())  # the services' way to say stop
    if metrics is None or script.stdout is None:
        status = script.wait()
    else:
        newest: dict[str, float] = {}
        reading = threading.Thread(target=_pass_on, args=(script.stdout, newest))
        reading.start()
        status = script.wait()
        reading.join()
        (Path(metrics) / METRICS).write_text(json.dumps(newest), encoding="utf-8")
    return 128 - status if status < 0 else status


def _pass_on(lines: IO[bytes], newest: dict[str, float]) -> None:
    for line in lines:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
        if line.startswith(METRIC):
            try:
                metric = json.loads(line[len(METRIC) :])
                newest[str(metric["name"])] = float(metric["value"])
            except (ValueError, KeyError, TypeError):
                continue  # as where a log is read: a malformed line is no metric


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
