"""Who decides which models the agent's clients may load and unload."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from edgefleet.errors import AlreadyExistsError, ConflictError, InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from edgefleet_runtime.serve.table import ModelTable, ServedModel

MAX_NAME = 255  # characters; SageMaker's API reference, edge_Model
_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")


class AgentModels(Protocol):
    """Loads and unloads models on request; called on a thread of its own, one call at a time.

    An error becomes the call's answer: `NotFoundError` for what isn't there, `AlreadyExistsError`
    for a name that is taken, `ConflictError` for a model that can't run here, or that isn't the
    client's to change.
    """

    def load(self, url: str, name: str) -> ServedModel:
        """Serve the model at a place of the file system under a name."""

    def unload(self, name: str) -> None:
        """Serve it no longer."""

    def url_of(self, name: str) -> str:
        """Where a model was loaded from, as its client said it; empty for others."""


class FixedModels:
    """Models that somebody else decides about: they answer as loaded already.

    Args:
        table: the models.
        cure: what a client's operator does instead.
    """

    def __init__(self, table: ModelTable, cure: str) -> None:
        self._table = table
        self._cure = cure

    def load(self, url: str, name: str) -> ServedModel:
        """Refuse, telling those that are served from others."""
        if is_served(self._table, name):
            raise AlreadyExistsError(f"model {name!r} is loaded already")
        raise ConflictError(
            f"model {name!r} can't be loaded by request here", cure=self._cure, retryable=False
        )

    def unload(self, name: str) -> None:
        """Refuse likewise."""
        if not is_served(self._table, name):
            raise NotFoundError(f"model {name[:MAX_NAME]!r} is not loaded")
        raise ConflictError(
            f"model {name!r} can't be unloaded by request here", cure=self._cure, retryable=False
        )

    def url_of(self, name: str) -> str:
        """Nothing: it didn't come from a place that a client knows."""
        return ""


def is_served(table: ModelTable, name: str) -> bool:
    """Whether a model of that name answers requests."""
    return any(model.name == name for model in table)


def check_name(name: str) -> str:
    """The name, if AWS's agent would take it for a new model.

    Raises:
        InvalidInputError: it wouldn't.
    """
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise InvalidInputError(
            f"not a model's name: {name[:100]!r}",
            cure=f"use up to {MAX_NAME} letters and digits, with dashes only between them",
        )
    return name
