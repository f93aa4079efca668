"""The device runtime: fetches, verifies, self-tests and serves models, and reports what it runs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgefleet_runtime.ensemble.declare import Ensemble as Ensemble
    from edgefleet_runtime.ensemble.declare import ModelStep as ModelStep
    from edgefleet_runtime.inprocess import Runtime as Runtime

__version__ = "0.1.0"
__all__ = ["Ensemble", "ModelStep", "Runtime", "__version__"]
_WHERE = {
    "Ensemble": "edgefleet_runtime.ensemble.declare",
    "ModelStep": "edgefleet_runtime.ensemble.declare",
    "Runtime": "edgefleet_runtime.inprocess",
}


def __getattr__(name: str) -> object:
    """What applications use, imported when it is asked for: this package's other users never do."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
