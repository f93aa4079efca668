"""Other model servers for Python, each in an environment of its own because their pins clash.

    python -m benchmarks.serving.peers install [--into DIR] [--python PYTHON] [NAME …]

They serve the same model file with the same onnxruntime, through the least code that each takes
(`peer_servers/`), with what its documentation recommends for speed. MLServer's REST has no binary
tensors: it is asked in JSON. PyTriton 0.7.0 brings a Python of its own, which takes the standard
library of the environment's: of 3.11 it works with 3.11.2, and fails to load models with 3.11.7.
KServe listens on all addresses and knows no option against that: mind where you run it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.serving.children import below, guarded, started
from benchmarks.serving.load import Spot, check_grpc, check_rest
from benchmarks.serving.under_test import UnderTest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.serving.models import Subject

FOLDER = Path.home() / ".cache" / "edgefleet-peers"
SERVERS = Path(__file__).with_name("peer_servers")
START_S = 120.0
TICK_S = 0.02


class Peer(NamedTuple):
    """A server to compare with.

    Attributes:
        package: on PyPI, with its version.
        binary: whether its REST takes tensors as raw bytes.
    """

    package: str
    binary: bool


ENGINE = "onnxruntime==1.31.1"
PEERS = {
    "mlserver": Peer("mlserver==1.7.1", binary=False),
    "kserve": Peer("kserve==0.21.0", binary=True),
    "pytriton": Peer("nvidia-pytriton==0.7.0", binary=True),
}


def installed(folder: Path) -> dict[str, str]:
    """The peers that are installed in a folder, with their packages."""
    return {name: peer.package for name, peer in PEERS.items() if _python(folder, name).exists()}


def install(folder: Path, names: list[str], python: str) -> list[str]:
    """Install peers in a folder; returns why each of those that can't be is not."""
    failed = []
    for name in names:
        print(f"installing {PEERS[name].package} in {folder / name}", flush=True)
        pip = [sys.executable, "-m", "pip", "--python", str(_python(folder, name)), "install"]
        steps = (
            [python, "-m", "venv", "--clear", "--without-pip", str(folder / name)],
            [*pip, "--quiet", "--disable-pip-version-check", PEERS[name].package, ENGINE],
        )
        for step in steps:
            done = subprocess.run(step, capture_output=True, text=True, check=False)
            if done.returncode:
                shutil.rmtree(folder / name, ignore_errors=True)
                failed.append(f"{name}: {done.stderr.strip().splitlines()[-1]}")
                break
    return failed


@contextmanager
def serving(name: str, folder: Path, subject: Subject, work: Path) -> Iterator[UnderTest]:
    """A peer with a model, until the block ends; asked once over REST and gRPC.

    Raises:
        RuntimeError: it doesn't start or doesn't answer right; its log is in the message.
    """
    ports = _free_ports(3)
    place = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=work))
    log = place / "log"
    command = _command(name, _python(folder, name), subject, ports, place)
    request = subject.binary if PEERS[name].binary else subject.json
    rest, calls = Spot(ports[0]), Spot(ports[1])
    environment = {"PYTHONPATH": str(SERVERS), "CUDA_VISIBLE_DEVICES": ""}
    began = time.perf_counter()
    with started(guarded(command), says=False, log=log, environment=environment) as child:
        try:
            _wait_until_ready(rest, subject.name)
            check_rest(rest, request, subject)
            ready_s = time.perf_counter() - began
            check_grpc(calls, subject)
        except Exception as error:
            tail = log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{name}: {error}\n{tail}") from error
        yield UnderTest(rest, calls, below(child.pid), ready_s, request)


def _command(name: str, python: Path, subject: Subject, ports: list[int], place: Path) -> list[str]:
    if name != "mlserver":
        script = SERVERS / f"{name}_server.py"
        return [
            str(python),
            str(script),
            str(subject.path),
            subject.name,
            *map(str, ports),
            str(place),
        ]
    settings = {
        "host": "127.0.0.1",
        "http_port": ports[0],
        "grpc_port": ports[1],
        "metrics_port": ports[2],
        "parallel_workers": 0,  # no queue between processes: the faster way for one model
        "debug": False,
    }
    model = {
        "name": subject.name,
        "implementation": "mlserver_model.OnnxModel",
        "parameters": {"uri": str(subject.path)},
    }
    (place / "settings.json").write_text(json.dumps(settings))
    (place / "model-settings.json").write_text(json.dumps(model))
    return [str(python.with_name("mlserver")), "start", str(place)]


def _wait_until_ready(spot: Spot, model: str) -> None:
    deadline = time.monotonic() + START_S
    while True:
        client = http.client.HTTPConnection("127.0.0.1", spot.port, timeout=5)
        try:
            client.request("GET", f"/v2/models/{model}/ready")
            if client.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            client.close()
        if time.monotonic() > deadline:
            raise RuntimeError(f"not ready after {START_S:.0f} s")
        time.sleep(TICK_S)


def _free_ports(count: int) -> list[int]:
    """Ports that nobody has now; these servers can't tell which they chose themselves."""
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(listener.getsockname()[1]) for listener in taken]
    for listener in taken:
        listener.close()
    return ports


def _python(folder: Path, name: str) -> Path:
    return folder / name / "bin" / "python"


def main() -> None:
    """Install."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("verb", choices=["install"])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PEERS)}")
    parser.add_argument("--into", type=Path, default=FOLDER, help="(default: %(default)s)")
    parser.add_argument(
        "--python", default=sys.executable, help="of the environments (default: %(default)s)"
    )
    given = parser.parse_intermixed_args()
    unknown = [name for name in given.names if name not in PEERS]
    if unknown:
        sys.exit(f"error: no peer {unknown[0]!r}\n  cure: one of {', '.join(PEERS)}")
    failed = install(given.into, given.names or [*PEERS], given.python)
    if failed:
        sys.exit("error: " + "\n  ".join(failed))


if __name__ == "__main__":
    main()
