"""The optional libraries of this package: asked for at its doors, imported plainly behind them."""

from __future__ import annotations

import importlib
import importlib.metadata

from edgefleet.errors import MissingExtraError


def require(*names: str, extra: str = "optimize") -> None:
    """Import the named libraries, so that code behind this call may rely on them.

    Args:
        names: of modules.
        extra: what brings them.

    Raises:
        MissingExtraError: one isn't installed; the message names it and the extra that brings it.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            msg = f"this needs the {name} library, which cannot be imported: {error}"
            cure = f"install it with: pip install 'edgefleet[{extra}]'"
            raise MissingExtraError(msg, cure=cure) from error


def available(name: str) -> bool:
    """Whether a library can be imported here."""
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def versions(*names: str) -> dict[str, str]:
    """Installed versions of distributions, for lineage; what isn't installed is left out."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
