"""Functions that a file or a command line names: an ``evaluate``, a metric, a maker of models."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgefleet.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable


def load_function(reference: str) -> Callable[..., Any]:
    """A function by ``module:name`` (the current folder is searched) or ``path.py:name``.

    Raises:
        InvalidInputError: there is none; what its module raises while it is imported goes through.
    """
    home, colon, name = reference.rpartition(":")
    if not colon or not home or not name.isidentifier():
        msg = f"{reference!r} names no function"
        raise InvalidInputError(msg, cure="write MODULE:FUNCTION or PATH.py:FUNCTION")
    path = Path(home)
    folder, module_name = (path.parent, path.stem) if home.endswith(".py") else (Path(), home)
    if home.endswith(".py") and not path.is_file():
        msg = f"no file {home}"
        raise InvalidInputError(msg, cure="give the path of a Python file")
    sys.path.insert(0, str(folder.absolute()))
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name.split(".", maxsplit=1)[0] and error.name != module_name:
            raise
        msg = f"no module {module_name!r} in this folder or this environment"
        raise InvalidInputError(msg, cure="give its path instead: PATH.py:FUNCTION") from error
    function = getattr(module, name, None)
    if not callable(function):
        msg = f"{home} has no function {name!r}"
        raise InvalidInputError(msg, cure="check the name behind the colon")
    found: Callable[..., Any] = function
    return found
