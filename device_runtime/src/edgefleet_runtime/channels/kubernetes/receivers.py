"""What a device shows to whoever receives its events, and how it knows them."""

from __future__ import annotations

import ssl
from functools import partial
from typing import TYPE_CHECKING

from edgefleet.errors import ConfigurationError
from edgefleet_runtime.channels.watched import read_secret
from edgefleet_runtime.store.renewing import Renewing
from edgefleet_runtime.store.trust import system_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefleet_runtime.channels.kubernetes.settings import Settings


def secret(path: Path) -> str:
    """The credential that a receiver is shown.

    Raises:
        AccessDeniedError: it isn't there, or is none.
    """
    return read_secret(path, "credential for events", cure="mount the Secret there")


def tls_context(settings: Settings) -> Callable[[], ssl.SSLContext]:
    """Gives what checks the receiver's certificate and shows the device's own, as they are now.

    Raises:
        ConfigurationError: a file can't be used.
    """
    own = (settings.events_ca, settings.events_cert, settings.events_key)

    def files() -> tuple[Path, ...]:
        return (*system_files(), *(path for path in own if path is not None))

    given = Renewing("certificates", partial(_made, settings), files)
    given()
    return given


def _made(settings: Settings) -> ssl.SSLContext:
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
