"""What a device shows to whoever receives its events, and how it knows them."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from edgefleet.errors import AccessDeniedError, ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet_runtime.channels.kubernetes.settings import Settings

MAX_TOKEN_BYTES = 16 << 10


def secret(path: Path) -> str:
    """What a file with a credential says, read anew because it may have been replaced.

    Raises:
        AccessDeniedError: it isn't there, or is none.
    """
    try:
        text = path.read_bytes()[:MAX_TOKEN_BYTES].decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise AccessDeniedError(
            f"no credential for events at {path}", cure="mount the Secret there"
        ) from error
    if not text.isprintable() or not text:
        raise AccessDeniedError(
            f"{path} holds no credential: one line of printable characters is one",
            cure="write the Secret again",
        )
    return text


def tls_context(settings: Settings) -> ssl.SSLContext:
    """What checks the receiver's certificate and shows the device's own.

    Raises:
        ConfigurationError: a file can't be used.
    """
    try:
        context = ssl.create_default_context()
        if settings.events_ca is not None:
            context.load_verify_locations(settings.events_ca)
        if settings.events_cert is not None:
            context.load_cert_chain(settings.events_cert, settings.events_key, _no_password)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(
            f"certificates for events can't be used: {error.strerror or error}",
            cure="see that events_ca, events_cert and events_key are PEM files that fit",
        ) from error
    return context


def _no_password() -> str:
    return ""  # of a key that has none; one that has is refused, instead of asked for at a terminal
