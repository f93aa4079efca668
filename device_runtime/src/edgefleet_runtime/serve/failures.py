"""Errors as answers: ``{"error": …}`` with the status that Triton gives."""

from __future__ import annotations

import logging

from edgefleet.errors import (
    EdgeFleetError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    UnsupportedError,
)
from edgefleet_runtime.serve.messages import Response, refusal

_log = logging.getLogger(__name__)


def failed(name: str, error: Exception) -> Response:
    """Why an inference of the model of that name gave no answer; what is our fault is logged."""
    if isinstance(error, EdgeFleetError):
        return failure(error)
    _log.error("inference of %s failed", name, exc_info=error)
    return refusal(500, "internal error")


def failure(error: EdgeFleetError) -> Response:
    """An error as an answer; the cure goes along."""
    message = error.message if error.cure is None else f"{error.message}; {error.cure}"
    if isinstance(error, LimitExceededError):
        return refusal(413, message)
    if isinstance(error, InvalidInputError):
        return refusal(400, message)
    if isinstance(error, NotFoundError):
        return refusal(404, message)
    if isinstance(error, UnsupportedError):
        return refusal(415, message)
    _log.warning("a request failed: %s", message)
    return refusal(500, message)
