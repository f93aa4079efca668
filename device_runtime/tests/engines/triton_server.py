"""NVIDIA's own Triton, as PyTriton's wheel brings it, in explicit model control."""

from __future__ import annotations

import http.client
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.serving.children import guarded, started
from edgefleet.testing.waiting import eventually

BACKEND = Path(__file__).with_name("triton_backend") / "model.py"


@contextmanager
def triton_server(environment: Path, repository: Path, work: Path) -> Iterator[str]:
    """Runs until the block ends; gives its address.

    Args:
        environment: virtual environment with ``nvidia-pytriton`` and ``onnxruntime``.
        repository: of models; may be empty.
        work: folder for backends and the log.
    """
    (packages,) = (environment / "lib").glob("python3.*/site-packages")
    version = packages.parent.name.removeprefix("python")
    shipped = packages / "pytriton" / "tritonserver"
    backends = work / "backends"
    shutil.copytree(shipped / "backends", backends)
    stub = shipped / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy(stub, backends / "python")
    (backends / "onnxruntime").mkdir()
    shutil.copy(BACKEND, backends / "onnxruntime")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # For the server alone: its libraries are not those of whoever guards it.
    variables = {
        "CUDA_VISIBLE_DEVICES": "",
        "EDGEFLEET_REPOSITORY": repository,
        "LD_LIBRARY_PATH": packages / "nvidia_pytriton.libs",
        "PATH": f"{environment / 'bin'}:/usr/bin:/bin",
        "PYTHONPATH": packages,
    }
    command = [
        *("env", *(f"{name}={value}" for name, value in variables.items())),
        str(shipped / "bin" / "tritonserver"),
        *("--http-address", "127.0.0.1", "--http-port", str(port)),
        *("--allow-grpc=false", "--allow-metrics=false", "--model-control-mode", "explicit"),
        *("--model-repository", str(repository), "--backend-directory", str(backends)),
    ]
    log = work / "log"
    with started(guarded(command), says=False, log=log):
        eventually(lambda: _is_ready(port), f"Triton, see {log}")
        yield f"http://127.0.0.1:{port}"


def _is_ready(port: int) -> bool:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        client.request("GET", "/v2/health/ready")
        return client.getresponse().status == 200
    except OSError:
        return False
    finally:
        client.close()
