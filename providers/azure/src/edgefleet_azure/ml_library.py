"""azure-ai-ml, imported when a call needs it: it takes seconds and 68 MB.

Importing it warns of what it does itself with its own libraries, and its classes announce each time
that some of them are experimental. Neither is anything that a user of ours can change.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType


def load_library() -> ModuleType:
    """The module ``azure.ai.ml``; from now on it is quiet about itself."""
    logging.getLogger("azure.ai.ml").setLevel(logging.ERROR)
    for module in (r"azure\.ai\.ml\b", r"marshmallow\b"):
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=module)
    return importlib.import_module("azure.ai.ml")
