"""What the DaemonSet of a group tells a device's channel, as options. Reads no file, asks nobody.

Each option stands in the pod's arguments, which are the same for all nodes of a group; what differs
from node to node is the node's name alone, from the downward API.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from edgefleet.errors import ConfigurationError
from edgefleet.protocol.typed import convert

if TYPE_CHECKING:
    from collections.abc import Mapping

NODE_VARIABLE = "NODE_NAME"
POINTER_KEY = "pointer.json"
REPORT_KEY = "report.json"

OPTIONS = {
    "reports": "NAMESPACE/PREFIX: the report goes into the ConfigMap PREFIX-report-NODE there",
    "pointer": "file with the pointer, below the folder that its ConfigMap is mounted at",
    "watch": "NAMESPACE/NAME of the pointer's ConfigMap, to watch it through the API as well",
    "token": "folder with the pod's projected token and the API server's authority, ca.crt",
    "events": "where hot events go: https://…, mqtts://…/TOPIC or pubsub://PROJECT/TOPIC",
    "events_token": "file with the bearer token, or for MQTT with USER:PASSWORD",
    "events_ca": "file with the authority of that server's certificate, where no public one is",
    "events_cert": "file with the device's own certificate for it, PEM",
    "events_key": "file with that certificate's key, PEM",
    "segments": "where segments go: oci://HOST/REPOSITORY or gs://BUCKET/PREFIX",
    "segments_credentials": "file with the device's own registry credentials, as docker writes it",
    "orders": "HOST:PORT of this pod, where the operator's orders are heard",
    "orders_token": "file with the token that whoever gives orders has to show",
    "models": "folders with blobs/sha256, asked before the pointer's sources, a comma between them",
    "registry_credentials": "file with credentials that models are read with, as docker writes it",
}
"""Options, each with a line for people."""

_NAMESPACE = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?"  # DNS subdomain, as names of ConfigMaps are
_PLACE = re.compile(rf"({_NAMESPACE})/({_NAME})")
_EVENTS = frozenset({"https", "http", "mqtts", "mqtt", "pubsub"})
_SEGMENTS = frozenset({"oci", "gs"})


class Place(msgspec.Struct, frozen=True):
    """A name in a namespace."""

    namespace: str
    name: str


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The options, read.

    Attributes:
        reports: namespace and prefix of devices' reports.
        pointer: file with the pointer.
        watch: the pointer's ConfigMap; None to read the mounted one alone.
        token: folder, see `OPTIONS`; likewise the others.
        events: address for hot events; None for none.
        segments: address for segments and samples; None for none.
        orders: address to hear orders at; None for nowhere.
        models: folders that blobs may lie in, such as mounted images.
    """

    reports: Place
    pointer: Path = Path("/etc/edgefleet/pointer/pointer.json")
    watch: Place | None = None
    token: Path = Path("/var/run/secrets/edgefleet")
    events: str | None = None
    events_token: Path | None = None
    events_ca: Path | None = None
    events_cert: Path | None = None
    events_key: Path | None = None
    segments: str | None = None
    segments_credentials: Path | None = None
    registry_credentials: Path | None = None
    orders: str | None = None
    orders_token: Path | None = None
    models: tuple[Path, ...] = ()


def read_settings(options: Mapping[str, str]) -> Settings:
    """The settings that options say.

    Raises:
        ConfigurationError: one is missing, unknown or makes no sense.
    """
    unknown = sorted(options.keys() - OPTIONS.keys())
    if unknown or "reports" not in options:
        missing = "" if "reports" in options else ", missing option 'reports'"
        raise ConfigurationError(
            f"channel kubernetes: unknown options {unknown}{missing}",
            cure=f"give it -o reports=NAMESPACE/PREFIX, and others of {', '.join(OPTIONS)}",
        )
    found: dict[str, object] = {}
    for name, value in options.items():
        if name in {"reports", "watch"}:
            found[name] = _place(name, value)
        elif name in {"events", "segments"}:
            found[name] = _address(name, value)
        elif name == "orders":
            found[name] = value
        elif name == "models":
            found[name] = tuple(Path(folder).absolute() for folder in value.split(",") if folder)
        else:
            found[name] = Path(value).absolute()
    settings = convert(found, Settings)
    _check_events(settings)
    if (settings.orders is None) is not (settings.orders_token is None):
        raise ConfigurationError(
            "channel kubernetes: orders are heard from nobody without a token",
            cure="give both orders and orders_token",
        )
    return settings


def _place(name: str, value: str) -> Place:
    match = _PLACE.fullmatch(value)
    if match is None:
        raise ConfigurationError(
            f"channel kubernetes: {name} {value[:300]!r} is no name in a namespace",
            cure=f"write {name}=NAMESPACE/NAME: small letters, digits, dashes and dots",
        )
    return Place(match[1], match[2])


def _address(name: str, value: str) -> str:
    allowed = _EVENTS if name == "events" else _SEGMENTS
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    wrong = parts.scheme not in allowed or not parts.hostname or port == 0
    if wrong or "@" in parts.netloc or parts.query or parts.fragment:
        # Not repeated: it may hold a password.
        raise ConfigurationError(
            f"channel kubernetes: {name} is no address without user, query and fragment",
            cure=f"write {name}=SCHEME://HOST/…, SCHEME one of {', '.join(sorted(allowed))}",
        )
    return value.rstrip("/")


def _check_events(settings: Settings) -> None:
    if (settings.events_cert is None) is not (settings.events_key is None):
        raise ConfigurationError(
            "channel kubernetes: a certificate and its key belong together",
            cure="give both events_cert and events_key",
        )
    clear = urlsplit(settings.events or "").scheme in {"http", "mqtt"}
    if clear and settings.events_token is not None:
        raise ConfigurationError(
            "channel kubernetes: events_token would be sent in clear text",
            cure="use an https or mqtts address",
        )
