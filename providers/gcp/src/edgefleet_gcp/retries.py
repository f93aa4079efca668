"""When a call to Google Cloud is repeated, and after how long.

Rules kept here:

- Waits are those of `PAUSES` (https://cloud.google.com/storage/docs/retry-strategy),
  ``Retry-After`` is honoured as `edgefleet.interfaces.retrying` says.
- Only what may be done twice is repeated: whoever makes a call says so by giving this to it.
"""

from __future__ import annotations

import functools
import itertools
import time
from typing import TYPE_CHECKING, Any, TypeVar

import requests.exceptions as lost
import urllib3.exceptions
from google.api_core.retry import Retry
from google.auth.exceptions import TransportError

from edgefleet.interfaces.retrying import PASSING, Pauses
from edgefleet_gcp.answers import retry_after_s, status_of

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

PAUSES = Pauses(first_s=0.5, most_s=32.0, longest_told_s=120.0)
LOST = (
    ConnectionError,
    lost.ConnectionError,
    lost.ChunkedEncodingError,
    lost.ContentDecodingError,
    lost.Timeout,
    urllib3.exceptions.HTTPError,
    TransportError,
)
"""Errors that mean a lost connection."""


class Retries(Retry):
    """What Google's libraries take as ``retry``; any callable can be called with it, too.

    Args:
        attempts: tries of each call, the first included.
    """

    def __init__(self, attempts: int) -> None:
        super().__init__(predicate=is_passing)
        self._attempts = attempts

    def __call__(
        self, func: Callable[..., T], on_error: Callable[[Exception], Any] | None = None
    ) -> Callable[..., T]:
        """A function that does the same, again where that may help."""

        @functools.wraps(func)
        def again(*args: Any, **options: Any) -> T:  # noqa: ANN401 - as the function has them
            for tries in itertools.count(1):
                try:
                    return func(*args, **options)
                except Exception as error:
                    wait_s = self._wait_s(error, tries)
                    if wait_s is None:
                        raise
                    if on_error is not None:
                        on_error(error)
                time.sleep(wait_s)
            raise AssertionError  # the loop has no end of its own

        return again

    def _wait_s(self, error: Exception, tries: int) -> float | None:
        if tries >= self._attempts or not is_passing(error):
            return None
        told = retry_after_s(error)
        return None if PAUSES.is_too_long(told) else PAUSES.next_s(tries, told)


def is_passing(error: Exception) -> bool:
    """Whether an error may be gone at another try."""
    return isinstance(error, LOST) or status_of(error) in PASSING
