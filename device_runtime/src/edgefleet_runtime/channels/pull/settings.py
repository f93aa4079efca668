"""What a device's channel is told by options: where its pointers come from, and how to ask."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from edgefleet.errors import ConfigurationError
from edgefleet.protocol.gateway import MAX_WAIT_S
from edgefleet_runtime.channels.pull.https import NO_PROXY, Proxy

if TYPE_CHECKING:
    from collections.abc import Mapping

OPTIONS = {
    "identity": "folder with the identity that 'enroll' made: pull from its fleet's gateways",
    "url": "or https://HOST/PATH of a web server, with pointer.json and blobs/ below it; read-only",
    "media": "or the folder that a stick is mounted at; with identity, receipts are signed by it",
    "poll_s": "seconds between two calls where nobody lets the device wait (default: the "
    "gateway's word, else 60)",
    "wait_s": f"longest wait for news on an open connection, 0 to {MAX_WAIT_S:g} (default 50)",
    "proxy": "http://HOST:PORT to go through, or none (default: HTTPS_PROXY and NO_PROXY)",
}
POLL_S, WAIT_S = 60.0, 50.0
LEAST_POLL_S, MOST_POLL_S = 0.05, 86_400.0
_CURE = "give it one of -o identity=DIR, -o url=https://HOST/PATH, -o media=DIR"


class Settings(NamedTuple):
    """The options, read.

    Attributes:
        identity: folder of the identity.
        url: of a web server, without a slash at its end.
        media: where a stick is mounted.
        poll_s: seconds between two calls.
        wait_s: longest wait for news.
        proxy: address, ``none``, or None for the environment's.
    """

    identity: Path | None
    url: str | None
    media: Path | None
    poll_s: float
    wait_s: float
    proxy: str | None


def read_settings(options: Mapping[str, str]) -> Settings:
    """What options say.

    Raises:
        ConfigurationError: one is unknown or wrong, or they name no place, or two.
    """
    unknown = sorted(options.keys() - OPTIONS.keys())
    if unknown:
        raise ConfigurationError(
            f"channel pull: unknown options {unknown}", cure=f"there are {', '.join(OPTIONS)}"
        )
    identity, url, media = (options.get(name) for name in ("identity", "url", "media"))
    if not (identity or url or media) or (url and (identity or media)):
        raise ConfigurationError("channel pull: there is one place to pull from", cure=_CURE)
    proxy = options.get("proxy")
    if proxy is not None and proxy != NO_PROXY:
        Proxy.of(proxy)
    return Settings(
        identity=Path(identity).absolute() if identity else None,
        url=_address(url) if url else None,
        media=Path(media).absolute() if media else None,
        poll_s=_seconds(options, "poll_s", POLL_S, LEAST_POLL_S, MOST_POLL_S),
        wait_s=_seconds(options, "wait_s", WAIT_S, 0.0, MAX_WAIT_S),
        proxy=proxy,
    )


def _address(url: str) -> str:
    try:
        parts = urlsplit(url)
        known = parts.scheme == "https" and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    if not known or "@" in url or "?" in url or "#" in url:
        raise ConfigurationError(
            "channel pull: url is no address of a folder on a web server",
            cure="write -o url=https://HOST/PATH, without a user or a query",
        )
    return url.rstrip("/")


def _seconds(
    options: Mapping[str, str], name: str, usual: float, least: float, most: float
) -> float:
    text = options.get(name)
    if text is None:
        return usual
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not least <= found <= most:
        raise ConfigurationError(
            f"channel pull: {name}={text[:40]!r} is no number of seconds that it takes",
            cure=f"write a number from {least:g} to {most:g}",
        )
    return found
