"""What a service answered with 200, which may be somebody else's page.

Whatever stands between may answer in a service's place, and say that all is well: a network that
wants one to sign in first, or a proxy.
"""

from __future__ import annotations

import codecs
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from edgefleet.errors import UnavailableError
from edgefleet.protocol.typed import UNREADABLE, decoder

BETWEEN = "check what stands between, such as a proxy or a network to sign in to"
"""What to do where an answer isn't the service's."""
_T = TypeVar("_T")


class Answer(Protocol):
    """What the answers of HTTP libraries have in common."""

    @property
    def content(self) -> bytes:
        """The whole body."""

    @property
    def url(self) -> object:
        """What was asked."""


def read_answer(answer: Answer, kind: type[_T]) -> _T:
    """The JSON that a service answered, as a value of a type.

    Args:
        answer: that isn't a refusal.
        kind: what it holds, such as ``dict[str, Any]`` for any object.

    Raises:
        UnavailableError: it holds no such thing, so that hardly the service gave it.
    """
    try:
        return decoder(kind).decode(answer.content.removeprefix(codecs.BOM_UTF8))
    except UNREADABLE as error:
        raise UnavailableError(
            f"what {urlsplit(str(answer.url)).hostname} answered isn't this service's: {error}",
            cure=BETWEEN,
        ) from error
