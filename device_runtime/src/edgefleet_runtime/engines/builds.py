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
    return tuple(filter(is_installed or _distributions().__contains__, BUILDS))


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


def _distributions() -> frozenset[str]:
    """Names of what is installed that begin as the builds' do, by the wheels' folders of metadata.

    Looked for by hand, and once for all builds: `importlib.metadata` takes 20 ms, a tenth of a
    server's start, and every model that is loaded asks.
    """
    return frozenset(
        entry.partition("-")[0].replace("_", "-")
        for folder in filter(os.path.isdir, sys.path)
        for entry in os.listdir(folder)  # noqa: PTH208 - a thousand names, not as many paths
        if entry.startswith(BUILDS[0]) and entry.endswith(".dist-info")
    )
