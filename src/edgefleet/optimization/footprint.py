"""What loading and running a candidate adds to a process, seen in a process of its own.

Run as ``python -m edgefleet.optimization.footprint``: the request is a line of JSON on standard
input, the answer one on standard output. The peak of the resident set is read before the model is
loaded and after it has run, so that interpreter and libraries don't count. What the engine sets up
for its first model does, some megabytes: even the smallest model is told with them.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgefleet.protocol.bundle import Interface
from edgefleet.protocol.typed import convert

if TYPE_CHECKING:
    from edgefleet.optimization.artifact import Artifact
    from edgefleet.optimization.samples import Feed

log = logging.getLogger(__name__)

RUNS = 3  # after which engines have taken what they take
TIMEOUT_S = 300.0


def memory_of(artifact: Artifact, feed: Feed, folder: Path) -> int | None:
    """Bytes that the candidate adds, or None where this machine doesn't tell.

    Args:
        artifact: the candidate.
        feed: one call's input.
        folder: where the input is put for the other process.
    """
    import numpy as np

    if not sys.platform.startswith("linux") or any(a.dtype.kind == "O" for a in feed.values()):
        return None
    inputs = folder / "feed.npz"
    np.savez(inputs, **feed)  # type: ignore[arg-type] # numpy's stub takes the names for options
    request = {
        "format": artifact.format,
        "path": str(artifact.path),
        "interface": msgspec.to_builtins(artifact.interface),
        "inputs": str(inputs),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", __name__],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=True,
        )
        return int(json.loads(done.stdout)["bytes"])
    except (subprocess.SubprocessError, OSError, ValueError, KeyError):
        log.info("the memory of %s was not measured", artifact.path, exc_info=True)
        return None


def main() -> None:
    """Answer the request on standard input."""
    import numpy as np

    from edgefleet.optimization.sessions import LIBRARIES, session_of

    request: dict[str, Any] = json.loads(sys.stdin.readline())
    feed = dict(np.load(request["inputs"], allow_pickle=False))
    interface = convert(request["interface"], Interface)
    session_type = session_of(request["format"])
    import_module(LIBRARIES[request["format"]])
    before = _peak_bytes()
    session = session_type(Path(request["path"]), interface)
    for _ in range(RUNS):
        session.run(feed)
    sys.stdout.write(json.dumps({"bytes": max(0, _peak_bytes() - before)}) + "\n")


def _peak_bytes() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    main()
