"""What a Jetson is and which onnxruntime fits it, from the files that NVIDIA puts there.

PyPI has no onnxruntime-gpu for arm64. Sources of wheels: https://pypi.jetson-ai-lab.io, NVIDIA's
community index (https://github.com/dusty-nv/jetson-containers/issues/1283 tells which folder is for
what). JetPack releases and their L4T: https://developer.nvidia.com/embedded/jetpack-archive.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

# L4T major and minor, and what the JetPack on it is called; the newest first.
_JETPACKS = (
    ((38, 0), "7"),
    ((36, 4), "6.1 or 6.2"),
    ((36, 0), "6.0"),
    ((35, 0), "5"),
    ((32, 0), "4"),
)
_RELEASE = re.compile(r"R(\d+) \(release\), REVISION: (\d+)\.(\d+)")
_INDEX = "https://pypi.jetson-ai-lab.io"


class Jetson(msgspec.Struct, frozen=True, kw_only=True):
    """A Jetson as its own files tell.

    Attributes:
        board: the product's name.
        l4t: version of NVIDIA's Linux, such as ``36.4.3``; empty when unknown, as in a container.
        jetpack: version of the JetPack that goes with it; empty when unknown.
    """

    board: str
    l4t: str = ""
    jetpack: str = ""

    def advice(self, *, gpu_engine: bool) -> str | None:
        """How to get an onnxruntime that uses the GPU; None when there is one already.

        Args:
            gpu_engine: whether an engine here lists CUDA.
        """
        if gpu_engine:
            return None
        start = f"this is a {self.board} with JetPack {self.jetpack or '(unknown)'}"
        match self.jetpack.partition(".")[0]:
            case "7":
                how = (
                    f"install onnxruntime-gpu from a folder for JetPack 7 of {_INDEX}, or build "
                    "it; PyPI has none for arm64"
                )
            case "6":
                how = (
                    f"wheels of onnxruntime-gpu lie at {_INDEX}/jp6/cu126 for Python 3.10, too old "
                    f"for this runtime; in a container with Ubuntu 24.04 take {_INDEX}/jp6/cu129"
                )
            case "4" | "5":
                how = (
                    "no wheel fits both it and this runtime's Python; leave the server that uses "
                    "its GPU and drive it with the 'external' engine, or upgrade JetPack"
                )
            case _:
                how = f"run it in a container for its JetPack, with onnxruntime-gpu of {_INDEX}"
        return f"{start}, and no engine here uses its GPU: {how}"


def detect_jetson(root: Path = Path("/")) -> Jetson | None:
    """The Jetson that this is, or None.

    Args:
        root: where ``/etc`` and ``/proc`` lie.
    """
    release = _RELEASE.search(_read(root / "etc/nv_tegra_release"))
    board = _read(root / "proc/device-tree/model").strip("\0 \n")
    if release is None:
        return Jetson(board=board) if "jetson" in board.lower() else None
    major, minor, patch = (int(part) for part in release.groups())
    jetpack = next((name for since, name in _JETPACKS if (major, minor) >= since), "")
    return Jetson(board=board or "Jetson", l4t=f"{major}.{minor}.{patch}", jetpack=jetpack)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
