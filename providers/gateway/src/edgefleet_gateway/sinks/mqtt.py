"""CloudEvents by MQTT 3.1.1: each a structured event of its own, QoS 1, by paho-mqtt 1.6 or 2.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/mqtt-protocol-binding.md

The connection stays while all goes well. After any trouble it is given up with what was under way
on it: the outbox has that, and sends it in order on the next one.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edgefleet.errors import (
    AccessDeniedError,
    EdgeFleetError,
    MissingExtraError,
    UnavailableError,
)
from edgefleet_gateway.sinks.base import Outcome, Sink, read_login, tls_context

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefleet_gateway.sinks.base import Waiting
    from edgefleet_gateway.sinks.settings import MqttSettings

PORTS = {"mqtt": 1883, "mqtts": 8883}
BATCH = 100
# MQTT 3.1.1, table 3.1: the credentials are wrong, or the client may not connect.
_REFUSED = frozenset({4, 5, 134, 135})


def library() -> Any:  # noqa: ANN401 - paho has no types
    """Its client.

    Raises:
        MissingExtraError: paho-mqtt isn't installed.
    """
    try:
        from paho.mqtt import client  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingExtraError(
            "a sink by MQTT needs paho-mqtt",
            cure="install it with: pip install 'edgefleet-gateway[mqtt]'",
        ) from error
    return client


class MqttSink(Sink):
    """Publishes events.

    Args:
        settings: the broker; paths in it are absolute.

    Raises:
        MissingExtraError: paho-mqtt isn't installed.
        ConfigurationError: a certificate can't be used.
    """

    batch = BATCH

    def __init__(self, settings: MqttSettings) -> None:
        self._paho, self._settings = library(), settings
        parts = urlsplit(settings.address)
        self._host, self._port = parts.hostname or "", parts.port or PORTS[parts.scheme]
        self._tls = (
            tls_context(settings.ca, settings.certificate, settings.key)
            if parts.scheme == "mqtts"
            else None
        )
        self._connection: _Connection | None = None

    def send(self, events: Sequence[Waiting]) -> Outcome:
        taken: set[int] = set()
        refused = {
            event.number: f"{len(event.data)} bytes are more than max_bytes"
            for event in events
            if len(event.data) > self._settings.max_bytes
        }
        try:
            connection = self._connected()
            connection.publish(
                [
                    (event.number, event.topic(self._settings.topic), event.data)
                    for event in events
                    if event.number not in refused
                ],
                taken,
            )
        except EdgeFleetError as error:
            self.close()
            return Outcome(frozenset(taken), refused, error)
        return Outcome(frozenset(taken), refused)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connected(self) -> _Connection:
        if self._connection is not None and not self._connection.lost:
            return self._connection
        self.close()
        client = self._client()
        where = f"the broker at {self._host}:{self._port}"
        connection = _Connection(client, where, self._settings.timeout_s)
        try:
            connection.open(self._host, self._port)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _client(self) -> Any:  # noqa: ANN401 - paho's
        versions = getattr(self._paho, "CallbackAPIVersion", None)
        name = self._settings.client
        client: Any
        if versions is None:  # 1.6
            client = self._paho.Client(client_id=name, clean_session=True)
        else:
            client = self._paho.Client(versions.VERSION2, client_id=name, clean_session=True)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        if self._settings.login is not None:
            client.username_pw_set(*read_login(self._settings.login))
        return client


class _Connection:
    """One connection to a broker, from its first byte to the first trouble."""

    def __init__(self, client: Any, where: str, timeout_s: float) -> None:  # noqa: ANN401 - paho's
        self._client, self._where, self._timeout_s = client, where, timeout_s
        self._news = threading.Condition()
        self._code: int | None = None
        self._acknowledged: set[int] = set()
        self.lost = False
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish

    def open(self, host: str, port: int) -> None:
        """Connect.

        Raises:
            EdgeFleetError: the broker is away, or refuses.
        """
        try:
            self._client.connect(host, port, keepalive=60)
        except (OSError, ValueError) as error:
            raise UnavailableError(f"{self._where}: {error}") from error
        self._client.loop_start()
        with self._news:
            self._news.wait_for(lambda: self._code is not None or self.lost, self._timeout_s)
        if self._code is None:
            raise UnavailableError(f"{self._where} gives no answer")
        if self._code in _REFUSED:
            raise AccessDeniedError(
                f"{self._where} refuses this gateway ({self._code})",
                cure="renew the login of the sink",
            )
        if self._code:
            raise UnavailableError(f"{self._where} refuses the connection ({self._code})")

    def publish(self, messages: Sequence[tuple[int, str, bytes]], taken: set[int]) -> None:
        """Publish messages in order, and note the numbers of those that the broker has.

        Raises:
            UnavailableError: it hasn't all of them.
        """
        sent: dict[int, int] = {}
        try:
            for number, topic, data in messages:
                told = self._client.publish(topic, data, qos=1)
                sent[told.mid] = number
        except (OSError, ValueError, RuntimeError) as error:
            raise UnavailableError(f"{self._where}: {error}") from error
        with self._news:
            self._news.wait_for(
                lambda: self.lost or sent.keys() <= self._acknowledged, self._timeout_s
            )
            taken.update(number for mid, number in sent.items() if mid in self._acknowledged)
            self._acknowledged.clear()
        if len(taken) < len(messages):
            raise UnavailableError(f"{self._where} doesn't acknowledge what is published")

    def close(self) -> None:
        """Hang up."""
        self.lost = True
        with suppress(OSError, ValueError):
            self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, *told: Any) -> None:  # noqa: ANN401 - the fourth is an int in 1.6
        reason = told[3]
        with self._news:
            self._code = int(getattr(reason, "value", reason))
            self._news.notify_all()

    def _on_disconnect(self, *_: Any) -> None:  # noqa: ANN401 - paho's
        self._client.disconnect()  # else paho connects again, and sends in its own order
        with self._news:
            self.lost = True
            self._news.notify_all()

    def _on_publish(self, *told: Any) -> None:  # noqa: ANN401 - the third is the message's number
        with self._news:
            self._acknowledged.add(told[2])
            self._news.notify_all()
