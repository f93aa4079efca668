"""Libraries of the extras ``analysis`` and ``images``, imported when something needs them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from edgefleet.errors import MissingExtraError


def needs(module: str, *, extra: str = "analysis") -> Any:  # noqa: ANN401 - whichever module
    """A module that an extra brings.

    Raises:
        MissingExtraError: it isn't installed; the message names the extra.
    """
    try:
        return import_module(module)
    except ImportError as error:
        msg = f"this needs {module.partition('.')[0]}"
        cure = f"install it with: pip install 'edgefleet[{extra}]'"
        raise MissingExtraError(msg, cure=cure) from error


def needs_pyarrow() -> Any:  # noqa: ANN401 - pyarrow ships no types
    """pyarrow, for tables."""
    return needs("pyarrow")
