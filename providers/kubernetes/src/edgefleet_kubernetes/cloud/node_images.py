"""The images that nodes of the mock can pull: this Python, and what is installed beside it."""

from __future__ import annotations

import sys

from edgefleet_kubernetes.cloud.kubelet_environment import Image

RUNTIME_IMAGE = "registry.mock/edgefleet-runtime:mock"
"""The image of the device runtime."""
TRAINING_IMAGE = "registry.mock/training:mock"
"""An image with Python, for runs."""


def images() -> dict[str, Image]:
    """Every image, by its name; others can be added."""
    python = (sys.executable,)
    return {
        RUNTIME_IMAGE: Image((*python, "-m", "edgefleet_runtime")),
        TRAINING_IMAGE: Image(python),
    }
