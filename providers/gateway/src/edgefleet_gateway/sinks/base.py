"""What every sink does: deliver a few events, and say what became of each."""

from __future__ import annotations

import re
import ssl
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from edgefleet.errors import AccessDeniedError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgefleet.errors import EdgeFleetError

MAX_SECRET_BYTES = 64 << 10
OTHER = "other"  # kind in topics of events whose type is none of ours
_KIND = re.compile(r"[a-z][a-z0-9_]{0,30}")


class Waiting(NamedTuple):
    """An event that waits for a sink.

    Attributes:
        number: of its place in the outbox, growing.
        device: who sent it, as its certificate said.
        kind: of event.
        data: the event, a CloudEvent in JSON.
    """

    number: int
    device: str
    kind: str
    data: bytes

    def topic(self, template: str) -> str:
        """The topic that it goes to."""
        kind = self.kind if _KIND.fullmatch(self.kind) else OTHER
        return template.replace("{device}", self.device).replace("{kind}", kind)


class Outcome(msgspec.Struct, frozen=True):
    """What became of events.

    Attributes:
        taken: numbers of those that the other side has.
        refused: of those that it will never take, and why.
        error: why the rest must be sent again; None where there is no rest.
    """

    taken: frozenset[int] = frozenset()
    refused: Mapping[int, str] = {}
    error: EdgeFleetError | None = None


class Sink(ABC):
    """Delivers events to one place. Used by one thread."""

    batch: int
    """Most events of one delivery."""

    @abstractmethod
    def send(self, events: Sequence[Waiting]) -> Outcome:
        """Deliver events in their order. Does not raise for a sink that is away."""

    @abstractmethod
    def close(self) -> None:
        """Hang up."""


def read_secret(path: Path) -> str:
    """A secret in a file, without the white space around it.

    Raises:
        AccessDeniedError: it can't be read, or is none.
    """
    try:
        with path.open("rb") as stream:
            text = stream.read(MAX_SECRET_BYTES + 1).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise AccessDeniedError(
            f"the secret in {path} can't be read: {getattr(error, 'strerror', None) or 'no text'}",
            cure="write it there, for the gateway's user to read",
        ) from error
    if not text or len(text) > MAX_SECRET_BYTES or not text.isprintable():
        raise AccessDeniedError(f"{path} holds no secret", cure="write one line of text there")
    return text


def read_login(path: Path) -> tuple[str, str]:
    """User and password in a file, ``USER:PASSWORD``.

    Raises:
        AccessDeniedError: it can't be read, or is none.
    """
    user, colon, password = read_secret(path).partition(":")
    if not colon:
        raise AccessDeniedError(f"{path} holds no login", cure="write USER:PASSWORD there")
    return user, password


def tls_context(ca: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    """What verifies the other side, and shows a certificate where there is one.

    Raises:
        ConfigurationError: a file can't be used.
    """
    try:
        context = ssl.create_default_context(cafile=ca)
        if certificate is not None:
            context.load_cert_chain(certificate, key, lambda: "")  # never ask at a terminal
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(
            f"certificates of a sink can't be used: {error.strerror or error}",
            cure="see that ca, certificate and key are PEM files that fit",
        ) from error
    return context
