"""A broker on the local network: publishes an alarm by MQTT, acknowledged (QoS 1)."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from edgefleet.errors import MissingExtraError, UnavailableError
from edgefleet_runtime.watch.actions.addresses import allowed_address, resolved

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefleet_runtime.watch.actions.addresses import Resolve

PORT = 1883


def publish(
    url: str,
    body: bytes,
    *,
    timeout_s: float,
    hosts: Sequence[str] = (),
    resolve: Resolve = resolved,
) -> None:
    """Publish an event to ``mqtt://HOST:PORT/TOPIC``; returns when the broker has acknowledged it.

    Raises:
        AccessDeniedError: the address isn't one that this device may use.
        UnavailableError: no broker takes it there in time.
        MissingExtraError: paho-mqtt isn't installed.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or PORT
    address = allowed_address(host, port, hosts, resolve)
    client, connected = _client()
    where = f"the broker at {host}:{port}"
    try:
        client.connect(address, port, keepalive=60)
        client.loop_start()
        if not connected.wait(timeout_s):
            raise UnavailableError(f"{where} doesn't let this device in, in {timeout_s:g} s")
        told = client.publish(unquote(parts.path[1:]), body, qos=1)
        told.wait_for_publish(timeout_s)
        if not told.is_published():
            raise UnavailableError(f"{where} doesn't acknowledge what is published")
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, UnavailableError):
            raise
        raise UnavailableError(f"{where}: {error}") from error
    finally:
        with suppress(OSError, ValueError):
            client.disconnect()
        client.loop_stop()


def _client() -> tuple[Any, threading.Event]:
    try:
        from paho.mqtt import client as paho  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingExtraError(
            "alarms to a broker need paho-mqtt",
            cure="install it with: pip install 'edgefleet-runtime[mqtt]'",
        ) from error
    connected = threading.Event()

    def on_connect(*told: Any) -> None:  # noqa: ANN401 - the fourth is an int in 1.6
        if not getattr(told[3], "value", told[3]):
            connected.set()

    versions = getattr(paho, "CallbackAPIVersion", None)
    client: Any = paho.Client() if versions is None else paho.Client(versions.VERSION2)
    client.on_connect = on_connect
    return client, connected
