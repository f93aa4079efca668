"""Errors as answers over REST: ``{"error": …}`` with the status that Triton gives."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from edgefleet.errors import EdgeFleetError, ThrottledError, UnsupportedError
from edgefleet_runtime.serve.extensions.errors import INTERNAL, message_of, status_of
from edgefleet_runtime.serve.messages import Response, overloaded, refusal

if TYPE_CHECKING:
    from edgefleet_runtime.serve.messages import Limits

_log = logging.getLogger(__name__)


def failed(name: str, error: Exception, limits: Limits) -> Response:
    """Why an inference of the model of that name gave no answer; what is our fault is logged."""
    if isinstance(error, ThrottledError):
        return overloaded(message_of(error), limits)
    if isinstance(error, EdgeFleetError):
        return failure(error)
    _log.error("inference of %s failed", name, exc_info=error)
    return refusal(500, "internal error")


def failure(error: EdgeFleetError) -> Response:
    """An error as an answer; the cure goes along."""
    message = message_of(error)
    if isinstance(error, UnsupportedError):  # of a body: RFC 9110, 15.5.16
        return refusal(415, message)
    status = status_of(error)
    if status is INTERNAL:
        _log.warning("a request failed: %s", message)
    return refusal(status.http, message)
