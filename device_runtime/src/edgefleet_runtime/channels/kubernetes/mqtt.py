"""Hot events by MQTT: each a structured CloudEvent of its own, QoS 1, by paho-mqtt 1.6 or 2.

A connection lives for one delivery: hot events are rare, and a connection that is idle for days
would have to be watched.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from edgefleet.errors import (
    AccessDeniedError,
    ConfigurationError,
    EdgeFleetError,
    MissingExtraError,
    UnavailableError,
)
from edgefleet.protocol.documents import encode
from edgefleet.protocol.event import attributed
from edgefleet_runtime.channels.kubernetes.receivers import secret, tls_context

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefleet.protocol.event import Event
    from edgefleet_runtime.channels.kubernetes.settings import Settings

_log = logging.getLogger(__name__)

TIMEOUT_S = 30.0  # of a connection, and of each acknowledgement
TOPIC = "edgefleet/{device}/hot"  # where the address names none
PORTS = {"mqtt": 1883, "mqtts": 8883}
MAX_MESSAGE = 240 << 10  # bytes; a broker that takes less closes the connection
# MQTT 3.1.1, table 3.1: the credentials are wrong, or the client may not connect.
_REFUSED = frozenset({4, 5, 134, 135})


class MqttSender:
    """Publishes events.

    Args:
        settings: address, user and certificates.
        device: the device's name; stands in the topic for ``{device}``.

    Raises:
        MissingExtraError: paho-mqtt isn't installed.
        ConfigurationError: a certificate can't be used.
    """

    max_bytes = MAX_MESSAGE
    unit_bytes = 1

    def __init__(self, settings: Settings, device: str) -> None:
        try:
            from paho.mqtt import client as paho  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise MissingExtraError(
                "events by MQTT need paho-mqtt",
                cure="install it with: pip install 'edgefleet-runtime[kubernetes]'",
            ) from error
        parts = urlsplit(settings.events or "")
        if parts.hostname is None:
            raise ConfigurationError("no address for events", cure="give the option events")
        self._paho, self._device = paho, device
        self._host, self._port = parts.hostname, parts.port or PORTS[parts.scheme]
        self._topic = (unquote(parts.path.strip("/")) or TOPIC).replace("{device}", device)
        self._login = settings.events_token
        self._tls = tls_context(settings) if parts.scheme == "mqtts" else None

    def send(self, events: Sequence[Event]) -> None:
        """Deliver events in their order; returns when the broker has acknowledged all of them."""
        client, refusals, connected = self._client()
        where = f"the broker at {self._host}:{self._port}"
        try:
            client.connect(self._host, self._port, keepalive=60)
            client.loop_start()
            if not connected.wait(TIMEOUT_S):
                raise UnavailableError(f"{where} gives no answer in {TIMEOUT_S:.0f} s")
            if refusals:
                _raise_refusal(refusals[0], where)
            told = [self._publish(client, event) for event in events]
            for info in told:
                if info is None:
                    continue
                info.wait_for_publish(TIMEOUT_S)
                if not info.is_published():  # waiting for each of the rest would take hours
                    raise UnavailableError(f"{where} doesn't acknowledge what is published")
        except EdgeFleetError:
            raise
        except (OSError, ValueError, RuntimeError) as error:
            raise UnavailableError(f"{where}: {error}") from error
        finally:
            with suppress(OSError, ValueError):
                client.disconnect()
            client.loop_stop()

    def _publish(self, client: Any, event: Event) -> Any:  # noqa: ANN401 - paho's
        data = encode(attributed(event, self._device))
        if len(data) > MAX_MESSAGE:  # it would be refused for ever, and all after it wait
            _log.warning("a hot event of %d bytes is dropped: too long", len(data))
            return None
        return client.publish(self._topic, data, qos=1)

    def _client(self) -> tuple[Any, list[int], threading.Event]:
        connected, refusals = threading.Event(), list[int]()

        def on_connect(*told: Any) -> None:  # noqa: ANN401 - the fourth is an int in 1.6
            reason = told[3]
            code = getattr(reason, "value", reason)
            if code:
                refusals.append(code)
            connected.set()

        name = f"edgefleet-{self._device}"
        versions = getattr(self._paho, "CallbackAPIVersion", None)
        client: Any
        if versions is None:  # 1.6
            client = self._paho.Client(client_id=name)
        else:
            client = self._paho.Client(versions.VERSION2, client_id=name)
        client.on_connect = on_connect
        if self._tls is not None:
            client.tls_set_context(self._tls())
        if self._login is not None:
            user, _, password = secret(self._login).partition(":")
            client.username_pw_set(user, password)
        return client, refusals, connected


def _raise_refusal(code: int, where: str) -> None:
    if code in _REFUSED:
        raise AccessDeniedError(
            f"{where} refuses this device ({code})",
            cure="renew the credential of events, or let the device connect",
        )
    raise UnavailableError(f"{where} refuses the connection ({code})")
