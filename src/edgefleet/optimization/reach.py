"""What code reaches: the names that it reads, the modules it imports, and what lies outside.

Names are judged by what they usually mean (``open``, ``read_csv``, ``time``, ``random``): a
harmless function of such a name is refused too, which costs a repetition, never a wrong figure.
"""

from __future__ import annotations

import dis
import functools
import importlib.metadata
import sys
import types
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_OUTSIDE_NAMES = ("download", "fetch", "load", "open", "rand", "read", "shuffle", "url")
"""How names begin, of functions and attributes, that bring in what no fingerprint covers."""
_OUTSIDE = frozenset(
    {"__import__", "compile", "environ", "eval", "exec", "getenv", "globals", "hash", "id", "input"}
    | {"fromfile", "genfromtxt", "glob", "iglob", "iterdir", "listdir", "locals", "memmap", "vars"}
    | {"bootstrap", "choice", "permutation", "permuted", "resample", "sample", "train_test_split"}
    | {"getattr", "now", "perf_counter", "time", "time_ns", "today", "utcnow", "walk"}
)
_OUTSIDE_MODULES = frozenset(
    {"ctypes", "datetime", "ftplib", "glob", "http", "io", "mmap", "os", "pickle", "platform"}
    | {"random", "requests", "secrets", "shelve", "shutil", "socket", "sqlite3", "subprocess"}
    | {"sys", "tempfile", "time", "urllib", "urllib3", "uuid"}
)
_LIBRARIES = ("site-packages", "dist-packages")
"""Folders whose modules are installed: their content is their version's."""


class UnknownError(Exception):
    """What of a function can't be told exactly."""


def refuse_outside(name: str) -> None:
    """Refuse the name of a function or attribute that may bring in what no fingerprint covers.

    Raises:
        UnknownError: it does.
    """
    if name in _OUTSIDE or name.lstrip("_").startswith(_OUTSIDE_NAMES):
        msg = f"{name!r} may bring in what changes without it"
        raise UnknownError(msg)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def is_outside(module: str) -> bool:
    """Whether what a module gives changes by itself."""
    return not _OUTSIDE_MODULES.isdisjoint(module.split("."))


def names_of(code: types.CodeType) -> Iterator[str]:
    """The globals and attributes that code names, its inner functions' too."""
    for part in _codes(code):
        yield from part.co_names


def globals_of(code: types.CodeType) -> set[str]:
    """The globals that code reads, its inner functions' too."""
    return {
        step.argval
        for part in _codes(code)
        for step in dis.get_instructions(part)
        if step.opname in {"LOAD_GLOBAL", "LOAD_NAME"}
    }


def imports_of(code: types.CodeType) -> set[str]:
    """The modules that code imports while it runs.

    Raises:
        UnknownError: it imports relatively.
    """
    found = set()
    for part in _codes(code):
        steps = list(dis.get_instructions(part))
        for place, step in enumerate(steps):
            if step.opname == "IMPORT_NAME":
                if steps[place - 2].argval != 0:
                    msg = "it imports from its own package while it runs"
                    raise UnknownError(msg)
                found.add(step.argval)
    return found


@functools.cache
def version_of(module: str | None) -> str | None:
    """Version of an installed module; None for the caller's own, whose content counts."""
    top = (module or "__main__").partition(".")[0]
    if top == "__main__":
        return None
    if top in sys.stdlib_module_names:
        return "stdlib"
    found = sys.modules.get(top)
    version = getattr(found, "__version__", None)
    if top != "edgefleet" and not _is_installed(found):
        return None
    if isinstance(version, str):
        return version
    try:
        return importlib.metadata.version(top)
    except importlib.metadata.PackageNotFoundError:
        names = importlib.metadata.packages_distributions().get(top, ())
        return ",".join(f"{name}={importlib.metadata.version(name)}" for name in sorted(names))


def _is_installed(module: types.ModuleType | None) -> bool:
    places = [getattr(module, "__file__", None) or "", *getattr(module, "__path__", ())]
    return any(part in _LIBRARIES for place in places for part in PurePath(place).parts)
