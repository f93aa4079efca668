"""Which execution providers of onnxruntime really run a model here, not only which ones it lists.

``python -m edgefleet.cli.accelerators`` prints it as JSON. A process of its own, because a broken
driver may take its process along.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

TIMEOUT_S = 120.0  # a first CUDA or TensorRT session may take half a minute
REMOTE = frozenset({"AzureExecutionProvider"})
"""Listed in every build, but runs models elsewhere."""

# An ONNX file of one node, y = x + x with x: float32[1], opset 13: written by onnx.helper.
_MODEL = bytes.fromhex(
    "08083a350a0e0a01780a017812017922034164641201675a0f0a0178120a0a08080112040a020801620f0a01791"
    "20a0a08080112040a02080142040a00100d"
)


def look() -> dict[str, Any]:
    """What a process of its own finds: ``version``, ``providers`` {name: works}, or ``problem``."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "edgefleet.cli.accelerators"],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"problem": f"trying them took over {TIMEOUT_S:.0f} s"}
    try:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        said = done.stderr.strip().splitlines()
        return {"problem": said[-1] if said else f"the trial ended with {done.returncode}"}
    return found


def probe() -> dict[str, Any]:
    """Run a tiny model on each execution provider that onnxruntime lists, in this process."""
    import numpy as np
    import onnxruntime as ort

    ort.set_default_logger_severity(4)
    usable = {}
    for name in ort.get_available_providers():
        if name in REMOTE:
            continue
        try:
            session = ort.InferenceSession(_MODEL, providers=[name])
            session.run(None, {"x": np.ones(1, np.float32)})
        except Exception:  # noqa: BLE001 - whatever a driver raises, it isn't usable
            usable[name] = False
        else:
            # Asked for alone, one that can't start is silently replaced by the CPU.
            usable[name] = session.get_providers()[0] == name
    return {"version": ort.__version__, "providers": usable}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe()) + "\n")
