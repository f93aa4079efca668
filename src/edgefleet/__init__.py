"""EdgeFleet: train once, deliver through any cloud, serve the same everywhere, know it happened.

The public names are imported when they are first used, so that ``import edgefleet`` costs nothing.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgefleet.analysis.dataset import Dataset
    from edgefleet.deployment import Deployment
    from edgefleet.devices import Device
    from edgefleet.errors import EdgeFleetError
    from edgefleet.fleet import Fleet, connect
    from edgefleet.interfaces.automation import Gate
    from edgefleet.interfaces.policy import RolloutPolicy
    from edgefleet.interfaces.training import Resources
    from edgefleet.interfaces.values import DeviceInfo, Group, ModelVersion
    from edgefleet.loop.loop import Loop
    from edgefleet.optimization.bundle import Bundle
    from edgefleet.optimization.classical import convert
    from edgefleet.optimization.classifying import classification
    from edgefleet.optimization.evaluation import Scores
    from edgefleet.optimization.recipes import Recipe
    from edgefleet.optimization.run import optimize
    from edgefleet.protocol.policy import TelemetryPolicy
    from edgefleet.protocol.release import Release, ReleaseModel

__version__ = "0.1.0"

# ONNX Runtime 1.29 and later tells its maker of the machine and of the models that it opens, and
# keeps an identifier in the user's folder, unless this is set before it is imported:
# https://github.com/microsoft/onnxruntime/pull/27379. Here, because whatever of ours imports it
# has imported this package first. Who wants it sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "Bundle": "edgefleet.optimization.bundle",
    "Dataset": "edgefleet.analysis.dataset",
    "Deployment": "edgefleet.deployment",
    "Device": "edgefleet.devices",
    "DeviceInfo": "edgefleet.interfaces.values",
    "EdgeFleetError": "edgefleet.errors",
    "Fleet": "edgefleet.fleet",
    "Gate": "edgefleet.interfaces.automation",
    "Group": "edgefleet.interfaces.values",
    "Loop": "edgefleet.loop.loop",
    "ModelVersion": "edgefleet.interfaces.values",
    "Recipe": "edgefleet.optimization.recipes",
    "Release": "edgefleet.protocol.release",
    "ReleaseModel": "edgefleet.protocol.release",
    "Resources": "edgefleet.interfaces.training",
    "RolloutPolicy": "edgefleet.interfaces.policy",
    "Scores": "edgefleet.optimization.evaluation",
    "TelemetryPolicy": "edgefleet.protocol.policy",
    "classification": "edgefleet.optimization.classifying",
    "connect": "edgefleet.fleet",
    "convert": "edgefleet.optimization.classical",
    "optimize": "edgefleet.optimization.run",
}

__all__ = [
    "Bundle",
    "Dataset",
    "Deployment",
    "Device",
    "DeviceInfo",
    "EdgeFleetError",
    "Fleet",
    "Gate",
    "Group",
    "Loop",
    "ModelVersion",
    "Recipe",
    "Release",
    "ReleaseModel",
    "Resources",
    "RolloutPolicy",
    "Scores",
    "TelemetryPolicy",
    "__version__",
    "classification",
    "connect",
    "convert",
    "optimize",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    own = {"Any", "TYPE_CHECKING", "import_module"}
    return sorted({*globals(), *__all__} - own)
