"""Runs first in a training container and gives the user's script what every trainer gives it.

Sent along with each job, so it needs nothing but Python 3.9 and its standard library. How SageMaker
lays out a container is told in
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo.html.
Channels lie in ``/opt/ml/input/data``, what ``/opt/ml/model`` holds is kept, and
``/opt/ml/output/failure`` tells why a job failed. This file lies in the channel ``code``, and finds
all others from there.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

ORDER = "order.json"
SOURCE = "source.tar.gz"
HELPER = "helper"  # folder of the archive with `edgefleet.training`, for images without EdgeFleet
MAX_REASON = 1000  # characters that SageMaker shows of a failure


class _RefusedError(Exception):
    """What came with the job can't be used."""


def main() -> int:
    """Run the script that the order names; gives its exit status."""
    channel = Path(__file__).resolve().parent
    ml = channel.parents[2]
    try:
        order = json.loads((channel / ORDER).read_text(encoding="utf-8"))
        code = ml / "code"
        _unpack(channel / SOURCE, code)
        wanted = order.get("lacking", {})
        lacking = [wanted[name] for name in wanted if importlib.util.find_spec(name) is None]
        _install([*order["requirements"], *lacking])
        status = _run([sys.executable, "-u", order["script"]], code / "source", _told(ml, order))
        reason = f"the script ended with status {status}" if status else None
    except (_RefusedError, OSError, ValueError, KeyError) as error:
        status, reason = 1, f"{type(error).__name__}: {error}"
    if reason is not None:
        failure = ml / "output" / "failure"
        failure.parent.mkdir(parents=True, exist_ok=True)
        failure.write_text(reason[:MAX_REASON], encoding="utf-8")
    return status


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


def _told(ml: Path, order: dict[str, Any]) -> dict[str, str]:
    """The environment of the script: ours, and the names that SageMaker's own tools give."""
    written = ml / "input" / "config" / "hyperparameters.json"
    texts = json.loads(written.read_text(encoding="utf-8")) if written.exists() else {}
    model, data = ml / "model", ml / "input" / "data" / "training"
    model.mkdir(parents=True, exist_ok=True)
    told = {
        **os.environ,
        "EDGEFLEET_PARAMS": json.dumps({key: json.loads(text) for key, text in texts.items()}),
        "EDGEFLEET_OUTPUT_DIR": str(model),
        "PYTHONUNBUFFERED": "1",
        "SM_MODEL_DIR": str(model),
        "SM_OUTPUT_DATA_DIR": str(ml / "output" / "data"),
    }
    if order["data"] is not None:
        told["EDGEFLEET_DATA_DIR"] = str(data / order["data"])
        told["SM_CHANNEL_TRAINING"] = str(data)
    checkpoints = ml / "checkpoints"
    if checkpoints.is_dir():  # SageMaker makes it for jobs that have somewhere to keep them
        told["EDGEFLEET_CHECKPOINT_DIR"] = str(checkpoints)
    if order.get("model"):
        trained = ml / "trained"
        _unpack(ml / "input" / "data" / "model" / "model.tar.gz", trained)
        told["EDGEFLEET_MODEL_DIR"] = str(trained)
    if importlib.util.find_spec("edgefleet") is None:
        before = told.get("PYTHONPATH")
        helper = str(ml / "code" / HELPER)
        told["PYTHONPATH"] = helper if not before else f"{before}{os.pathsep}{helper}"
    return told


def _run(command: list[str], folder: Path, told: dict[str, str]) -> int:
    script = subprocess.Popen(command, cwd=folder, env=told)
    signal.signal(signal.SIGTERM, lambda *_: script.terminate())  # SageMaker's way to say stop
    status = script.wait()
    return 128 - status if status < 0 else status


if __name__ == "__main__":
    sys.exit(main())
