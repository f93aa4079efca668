"""The builds of ONNX Runtime, of which one may be installed: they all fill the same folder.

pip doesn't see that the wheels overwrite each other: the one installed last wins, and after an
uninstall of either neither works. https://onnxruntime.ai/docs/install/
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from edgefleet.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

BUILDS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-directml",
)


def installed_builds(is_installed: Callable[[str], bool] | None = None) -> tuple[str, ...]:
    """The builds whose packages are installed, from metadata alone."""
    return tuple(filter(is_installed or _is_installed, BUILDS))


def check_one_build(is_installed: Callable[[str], bool] | None = None) -> None:
    """Refuse to work with builds that have overwritten each other.

    Raises:
        ConfigurationError: more than one is installed.
    """
    found = installed_builds(is_installed)
    if len(found) > 1:
        names = " ".join(found)
        msg = f"{' and '.join(found)} are installed together, and overwrite each other's files"
        raise ConfigurationError(
            msg, cure=f"pip uninstall {names}, then install the one that fits this machine"
        )


def _is_installed(name: str) -> bool:
    """Whether a wheel's folder of metadata is there.

    Looked for by hand: `importlib.metadata` takes 20 ms, a tenth of a server's start.
    """
    start = f"{name.replace('-', '_')}-"
    for folder in filter(os.path.isdir, sys.path):
        with os.scandir(folder) as entries:
            if any(e.name.startswith(start) and e.name.endswith(".dist-info") for e in entries):
                return True
    return False
