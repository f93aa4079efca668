"""What the installed engines can do here: for choosing variants, and for ``doctor``."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import msgspec

from edgefleet_runtime.engines.base import Engine
from edgefleet_runtime.engines.discovery import GROUP

NOT_INSTALLED = "its library is not installed"
"""The problem of an engine that nobody asked for."""

if TYPE_CHECKING:
    from collections.abc import Callable


class Installed(msgspec.Struct, frozen=True, kw_only=True):
    """An installed engine.

    Attributes:
        name: of its entry point.
        formats: model formats that it opens.
        providers: execution providers that it lists here.
        problem: why it can't be used; None when it can.
    """

    name: str
    formats: frozenset[str] = frozenset()
    providers: tuple[str, ...] = ()
    problem: str | None = None


def installed_engines() -> tuple[Installed, ...]:
    """Every installed engine by name; one that fails to import is listed with its problem."""
    names = {entry.name: entry for entry in entry_points(group=GROUP)}
    return tuple(_inspect(name, names[name].load) for name in sorted(names))


def _inspect(name: str, load: Callable[[], object]) -> Installed:
    try:
        kind = load()
        if not (isinstance(kind, type) and issubclass(kind, Engine)):
            return Installed(name=name, problem=f"{kind!r} is no Engine class")
        providers = kind.available()
    except Exception as error:  # noqa: BLE001 - whatever a plugin raises stays its own affair
        return Installed(name=name, problem=f"{type(error).__name__}: {error}")
    problem = None if providers else NOT_INSTALLED
    return Installed(name=name, formats=kind.formats, providers=providers, problem=problem)
