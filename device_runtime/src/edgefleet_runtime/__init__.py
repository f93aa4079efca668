"""The device runtime: fetches, verifies, self-tests and serves models, and reports what it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgefleet_runtime.inprocess import Runtime as Runtime

__version__ = "0.1.0"
__all__ = ["Runtime", "__version__"]


def __getattr__(name: str) -> object:
    """`Runtime`, imported when it is asked for: this package's other users never do."""
    if name != "Runtime":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from edgefleet_runtime.inprocess import Runtime  # noqa: PLC0415

    return Runtime
