"""What an OCI registry's refusals mean."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx2

from edgefleet.errors import (
    AccessDeniedError,
    AccessExpiredError,
    EdgeFleetError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    StorageFullError,
    ThrottledError,
    UnavailableError,
    UnsupportedError,
)
from edgefleet.protocol.retry_after import retry_after_s
from edgefleet.protocol.typed import UNREADABLE, decoder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_MESSAGE = 500  # characters of what a registry says
_FULL = "no space left on device"  # distribution/distribution passes the system's words on


class RegistryRefusal(Exception):  # noqa: N818 - an answer
    """A registry's answer that isn't what was asked for.

    Args:
        where: what was asked for, such as ``PUT registry.plant/models, manifest digits-V1``.
        status: of the answer.
        headers: of the answer.
        body: of the answer.
    """

    def __init__(self, where: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.where, self.status, self.headers = where, status, headers
        self.code, said = _said(body)
        super().__init__(f"{where}: HTTP {status} {self.code} {said}".strip()[:MAX_MESSAGE])


def _said(body: bytes) -> tuple[str, str]:
    """Code and message of the first error in an answer; distribution-spec 1.1, "Error Codes"."""
    try:
        first = decoder(dict[str, Any]).decode(body)["errors"][0]
        detail = first.get("detail")
        told = detail if isinstance(detail, str) else json.dumps(detail) if detail else ""
        return str(first["code"]), " ".join(filter(None, (first.get("message", ""), told)))
    except (*UNREADABLE, LookupError, TypeError, AttributeError):
        return "", ""


@contextmanager
def asking_registry() -> Iterator[None]:
    """Have a registry's answer, or the lack of one, be an error of ours inside.

    For whoever speaks with others, too, whose lost connections look the same.
    """
    try:
        yield
    except Exception as error:
        told = translate(error)
        if told is None:
            raise
        raise told from error


def translate(error: Exception) -> EdgeFleetError | None:
    """The error of ours that a registry's answer, or the lack of one, means."""
    if isinstance(error, httpx2.HTTPError | httpx2.InvalidURL):
        return UnavailableError(
            f"the registry can't be reached: {str(error) or type(error).__name__}",
            cure="check its address and the network, then repeat the call",
        )
    if not isinstance(error, RegistryRefusal):
        return None
    said, status = str(error), error.status
    if status == 429:
        throttled = ThrottledError(said, cure="repeat the call later")
        throttled.retry_after_s = retry_after_s(error.headers.get("Retry-After"))
        return throttled
    if status == 507 or _FULL in said:
        return StorageFullError(said, cure="free space at the registry and push again")
    if status >= 500 or status == 408:
        return UnavailableError(said, cure="repeat the call later")
    kinds: dict[int, tuple[type[EdgeFleetError], str]] = {
        401: (AccessExpiredError, "log in to the registry again"),
        403: (AccessDeniedError, "let the credentials pull from and push to the repository"),
        404: (NotFoundError, "check the repository's name, or create it at the registry"),
        405: (UnsupportedError, "use a registry of the distribution specification 1.1"),
        413: (LimitExceededError, "raise the limit of the registry or the proxy before it"),
    }
    kind, cure = kinds.get(status, (InvalidInputError, "see what the registry says"))
    return kind(said, cure=cure)
