"""What ``[[profiles.<name>.gateway.sinks]]`` may hold. Imports no client of any sink.

Secrets stand in files alone, which are read again for each connection. What leaves the machine is
encrypted: an address without TLS is taken only where it is this machine's own, such as a proxy's.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

_PLACES = {"{device}", "{kind}"}


class _SinkSettings(BaseModel):
    """What all sinks share.

    Attributes:
        name: of the sink: of its outbox, in logs and figures.
        segments: whether the events of segments go there, too, beside hot events.
        max_mib: mebibytes that wait for it at the most; beyond that the oldest are dropped.
        timeout_s: seconds that one delivery may take.
        ca: certificates that the other side's is verified against, PEM; without it the system's.
        certificate: that is shown to the other side, PEM.
        key: its key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$")
    segments: bool = False
    max_mib: int = Field(default=64, ge=1, le=1 << 20)
    timeout_s: float = Field(default=30.0, gt=0, le=600)
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @model_validator(mode="after")
    def _has_both(self) -> _SinkSettings:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together")
        return self


class HttpSettings(_SinkSettings):
    """CloudEvents posted to an address.

    Attributes:
        url: where to.
        token: file with the token that is sent as ``Authorization: Bearer``.
        batch: events of one request; 1 posts each by itself, as ``application/cloudevents+json``.
    """

    kind: Literal["http"]
    url: str
    token: Path | None = None
    batch: int = Field(default=100, ge=1, le=1000)

    @field_validator("url")
    @classmethod
    def _is_address(cls, url: str) -> str:
        return _address(url, "https", "http")


class MqttSettings(_SinkSettings):
    """Each event a message of its own, QoS 1.

    Attributes:
        address: of the broker: ``mqtts://HOST:PORT``.
        topic: with ``{device}`` and ``{kind}`` where these stand.
        login: file with ``USER:PASSWORD``.
        client: name that the broker knows the gateway by; each gateway needs its own. Without it
            the broker gives one.
        max_bytes: of a message; brokers hang up on longer ones, so these are set aside.
    """

    kind: Literal["mqtt"]
    address: str
    topic: str = "edgefleet/{device}/{kind}"
    login: Path | None = None
    client: str = Field(default="", max_length=64)
    max_bytes: int = Field(default=240 << 10, ge=1 << 10, le=256 << 20)

    @field_validator("address")
    @classmethod
    def _is_broker(cls, address: str) -> str:
        address = _address(address, "mqtts", "mqtt")
        if urlsplit(address).path.strip("/"):
            raise ValueError("a broker's address has no path: the topic has a key of its own")
        return address

    @field_validator("topic")
    @classmethod
    def _is_topic(cls, topic: str) -> str:
        return _template(topic, forbidden="+#\0")


class KafkaSettings(_SinkSettings):
    """Each event a record whose key is the device.

    Attributes:
        brokers: some of them: ``HOST:PORT``.
        topic: with ``{device}`` and ``{kind}`` where these stand.
        mode: ``binary`` puts the event's attributes into headers and its data into the value,
            ``structured`` the whole event into the value.
        tls: false is taken only where all brokers are this machine's.
        login: file with ``USER:PASSWORD``.
        mechanism: how the login is proven.
    """

    kind: Literal["kafka"]
    brokers: tuple[str, ...] = Field(min_length=1, max_length=32)
    topic: str = "edgefleet"
    mode: Literal["binary", "structured"] = "binary"
    tls: bool = True
    login: Path | None = None
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"

    @field_validator("brokers")
    @classmethod
    def _are_brokers(cls, brokers: tuple[str, ...]) -> tuple[str, ...]:
        for broker in brokers:
            _address(f"kafka://{broker}", "kafka", "kafka")
            if urlsplit(f"kafka://{broker}").port is None or "," in broker or "/" in broker:
                raise ValueError(f"{broker!r} is no broker: write HOST:PORT")
        return brokers

    @field_validator("topic")
    @classmethod
    def _is_topic(cls, topic: str) -> str:
        return _template(topic, forbidden="/+#\0 ")

    @model_validator(mode="after")
    def _is_encrypted(self) -> KafkaSettings:
        hosts = [urlsplit(f"kafka://{broker}").hostname or "" for broker in self.brokers]
        if not self.tls and not all(map(_is_own, hosts)):
            raise ValueError("brokers on other machines are spoken to with TLS only")
        return self


AnySettings = Annotated[HttpSettings | MqttSettings | KafkaSettings, Field(discriminator="kind")]
"""The settings of one sink, by its ``kind``."""


def _address(address: str, secure: str, plain: str) -> str:
    parts = urlsplit(address)
    right = parts.scheme == secure or (parts.scheme == plain and _is_own(parts.hostname or ""))
    if "@" in parts.netloc:
        raise ValueError("an address holds no credential: name a file that does")
    if not right or not parts.hostname or parts.fragment:
        raise ValueError(f"{address!r}: write {secure}://HOST…, which is encrypted")
    return address


def _template(topic: str, *, forbidden: str) -> str:
    rest = topic
    for place in _PLACES:
        rest = rest.replace(place, "x")
    if not rest or {"{", "}", *forbidden} & {*rest} or len(topic) > 200:
        raise ValueError(f"{topic!r} is no topic; only {{device}} and {{kind}} stand for something")
    return topic


def _is_own(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
