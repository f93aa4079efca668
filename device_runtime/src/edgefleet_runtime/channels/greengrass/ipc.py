"""The nucleus as a component sees it: configuration, its changes, and messages to IoT Core.

A thin layer over the AWS IoT Device SDK's Greengrass client. It connects when it is needed, and
again after the nucleus restarted; each failure is one of `edgefleet.errors`.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any

from edgefleet.errors import (
    AccessDeniedError,
    ConfigurationError,
    EdgeFleetError,
    MissingExtraError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SOCKET_VARIABLE = "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT"
TOKEN_VARIABLE = "SVCUID"  # noqa: S105 - the name of a variable
TIMEOUT_S = 10.0  # of a call; the nucleus is on the same machine
AT_LEAST_ONCE = "1"  # MQTT's quality of service


class Nucleus:
    """The connection of this component; may be used by several threads.

    Args:
        socket: of the nucleus's IPC.
        token: that the nucleus gave this component at its start.
        lost: called when a connection or subscription ends that nobody closed.
        timeout_s: of one call.

    Raises:
        MissingExtraError: the AWS IoT Device SDK isn't installed.
    """

    def __init__(
        self,
        socket: str,
        token: str,
        *,
        lost: Callable[[], None],
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        try:
            from awsiot.greengrasscoreipc import client, model  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise MissingExtraError(
                "the channel greengrass needs the AWS IoT Device SDK",
                cure="install it with: pip install 'edgefleet-runtime[greengrass]'",
            ) from error
        self._client_module, self._model = client, model
        self._socket, self._token = socket, token
        self._lost = lost
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._client: Any = None
        self._closed = False

    @classmethod
    def from_environment(cls, *, lost: Callable[[], None]) -> Nucleus:
        """The nucleus that started this process.

        Raises:
            ConfigurationError: none did.
        """
        socket, token = (os.environ.get(name) for name in (SOCKET_VARIABLE, TOKEN_VARIABLE))
        if not socket or not token:
            raise ConfigurationError(
                f"{SOCKET_VARIABLE} or {TOKEN_VARIABLE} is not set: no Greengrass nucleus started "
                "this process",
                cure="let the component's recipe run it, or use another channel",
            )
        return cls(socket, token, lost=lost)

    def configuration(self, component: str) -> Mapping[str, Any] | None:
        """A component's configuration; None while it isn't installed.

        Raises:
            UnavailableError: the nucleus doesn't answer.
        """
        request = self._model.GetConfigurationRequest(component_name=component, key_path=[])
        try:
            found: Mapping[str, Any] = self._call("get_configuration", request).value or {}
        except self._model.ResourceNotFoundError:
            return None
        return found

    def watch(self, component: str, changed: Callable[[], None]) -> bool:
        """Call back on changes of a component's configuration, until the connection ends.

        Returns:
            False when the component isn't installed: there is nothing to watch yet.

        Raises:
            UnavailableError: the nucleus doesn't answer.
        """
        request = self._model.SubscribeToConfigurationUpdateRequest(
            component_name=component, key_path=[]
        )
        handler = _watcher(self._client_module, changed, self._lost)
        try:
            self._call("subscribe_to_configuration_update", request, handler)
        except self._model.ResourceNotFoundError:
            return False
        return True

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish to IoT Core, at least once. The nucleus keeps it while it is offline.

        Raises:
            AccessDeniedError: the component's recipe doesn't allow the topic.
            UnavailableError: the nucleus doesn't take it now.
        """
        request = self._model.PublishToIoTCoreRequest(
            topic_name=topic, qos=AT_LEAST_ONCE, payload=payload
        )
        self._call("publish_to_iot_core", request)

    def subscribe(self, topic: str, received: Callable[[bytes], None]) -> None:
        """Call back with each message on a topic of IoT Core, until the connection ends.

        Raises:
            AccessDeniedError: the component's recipe doesn't allow the topic.
            UnavailableError: the nucleus doesn't answer.
        """
        request = self._model.SubscribeToIoTCoreRequest(topic_name=topic, qos=AT_LEAST_ONCE)
        handler = _receiver(self._client_module, received, self._lost)
        self._call("subscribe_to_iot_core", request, handler)

    def close(self) -> None:
        """Disconnect; later calls fail."""
        with self._lock:
            self._closed = True
            self._drop()

    def _call(self, name: str, request: object, handler: object = None) -> Any:  # noqa: ANN401
        try:
            client = self._connected()
            new = getattr(client, f"new_{name}")
            operation = new() if handler is None else new(handler)
            operation.activate(request)
            return operation.get_response().result(self._timeout_s)
        except self._model.ResourceNotFoundError:
            raise
        except self._model.UnauthorizedError as error:
            raise AccessDeniedError(
                f"the nucleus refuses {name}", cure="deploy the runtime component's own recipe"
            ) from error
        except EdgeFleetError:
            raise
        except Exception as error:
            # The SDK raises its own, the C runtime's and futures' errors; to a device all mean
            # that the nucleus is away or being updated.
            with self._lock:
                self._drop()
            said = getattr(error, "message", None) or str(error) or type(error).__name__
            raise UnavailableError(f"the Greengrass nucleus doesn't answer: {said}") from error

    def _connected(self) -> Any:  # noqa: ANN401
        import awsiot.greengrasscoreipc as greengrass  # noqa: PLC0415
        from awsiot.eventstreamrpc import LifecycleHandler  # noqa: PLC0415

        with self._lock:
            if self._closed:
                raise UnavailableError("the channel is closed", retryable=False)
            if self._client is None:
                lost = self._lost

                class Handler(LifecycleHandler):  # type: ignore[misc] # the SDK has no types
                    def on_disconnect(self, reason: Exception | None) -> None:
                        lost()

                self._client = greengrass.connect(
                    ipc_socket=self._socket,
                    authtoken=self._token,
                    lifecycle_handler=Handler(),
                    timeout=self._timeout_s,
                )
            return self._client

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                client.close().result(self._timeout_s)


def _watcher(client: Any, changed: Callable[[], None], lost: Callable[[], None]) -> object:  # noqa: ANN401
    class Watcher(client.SubscribeToConfigurationUpdateStreamHandler):  # type: ignore[misc]
        def on_stream_event(self, event: object) -> None:
            changed()

        def on_stream_error(self, error: Exception) -> bool:
            return True

        def on_stream_closed(self) -> None:
            lost()

    return Watcher()


def _receiver(client: Any, received: Callable[[bytes], None], lost: Callable[[], None]) -> object:  # noqa: ANN401
    class Receiver(client.SubscribeToIoTCoreStreamHandler):  # type: ignore[misc]
        def on_stream_event(self, event: Any) -> None:  # noqa: ANN401
            received(event.message.payload or b"")

        def on_stream_error(self, error: Exception) -> bool:
            return True

        def on_stream_closed(self) -> None:
            lost()

    return Receiver()
