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
CLOSE_S = 0.1  # for each step of closing: a process that ends has promised to do so soon
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
        base = self._client_module.SubscribeToConfigurationUpdateStreamHandler
        handler = _stream(base, lambda _: changed(), self._lost)
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
        base = self._client_module.SubscribeToIoTCoreStreamHandler
        handler = _stream(base, lambda event: received(event.message.payload or b""), self._lost)
        self._call("subscribe_to_iot_core", request, handler)

    def announce_updates(self, announced: Callable[[str, bool], None]) -> bool:
        """Call back before each deployment: with its id, and whether the nucleus itself restarts.

        Each time the nucleus waits for `put_off`. The callback must not wait for the nucleus.

        Returns:
            False when this nucleus announces nothing: the light one doesn't know the operation
            (``modules/ggipcd`` at 326e992b).

        Raises:
            UnavailableError: the nucleus doesn't answer.
        """
        request = self._model.SubscribeToComponentUpdatesRequest()

        def event(news: Any) -> None:  # noqa: ANN401 - the SDK has no types
            coming = news.pre_update_event
            if coming is not None and coming.deployment_id:
                announced(coming.deployment_id, bool(coming.is_ggc_restarting))

        base = self._client_module.SubscribeToComponentUpdatesStreamHandler
        handler = _stream(base, event, self._lost)
        try:
            self._call("subscribe_to_component_updates", request, handler)
        except UnavailableError as error:
            if isinstance(error.__cause__, self._model.ServiceError):
                return False
            raise
        except self._model.ResourceNotFoundError:
            return False
        return True

    def put_off(self, deployment: str, wait_s: float) -> None:
        """Answer an announcement: ask again after so many seconds; after 0 go on.

        Raises:
            UnavailableError: the nucleus doesn't take it, or doesn't wait any more.
        """
        request = self._model.DeferComponentUpdateRequest(
            deployment_id=deployment, recheck_after_ms=round(wait_s * 1000)
        )
        self._call("defer_component_update", request)

    def close(self) -> None:
        """Disconnect, without waiting for a nucleus that doesn't answer; later calls fail."""
        self._closed = True
        # A call that connects holds the lock for as long as the nucleus lets it wait.
        if self._lock.acquire(timeout=CLOSE_S):
            try:
                self._drop(CLOSE_S)
            finally:
                self._lock.release()

    def _call(self, name: str, request: object, handler: Any = None) -> Any:  # noqa: ANN401
        try:
            client = self._connected()
            new = getattr(client, f"new_{name}")
            operation = new() if handler is None else new(handler)
            operation.activate(request)
            response = operation.get_response().result(self._timeout_s)
        except self._model.ResourceNotFoundError:
            raise
        except self._model.UnauthorizedError as error:
            raise AccessDeniedError(
                f"the nucleus refuses {name}", cure="deploy the runtime component's own recipe"
            ) from error
        except self._model.GreengrassCoreIPCError as error:  # it answers: the connection is good
            said = error.message or type(error).__name__
            raise UnavailableError(f"the nucleus refuses {name} now: {said}") from error
        except EdgeFleetError:
            raise
        except Exception as error:
            # The SDK raises its own, the C runtime's and futures' errors; to a device all mean
            # that the nucleus is away or being updated.
            with self._lock:
                self._drop()
            said = getattr(error, "message", None) or str(error) or type(error).__name__
            raise UnavailableError(f"the Greengrass nucleus doesn't answer: {said}") from error
        if handler is not None:
            handler.begin()
        return response

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

    def _drop(self, timeout_s: float | None = None) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                client.close().result(self._timeout_s if timeout_s is None else timeout_s)


def _stream(base: Any, event: Callable[[Any], None], lost: Callable[[], None]) -> Any:  # noqa: ANN401
    """A handler of a subscription, whose end is told when it had begun.

    The SDK closes the stream of a subscription that was refused as well.
    """

    class Stream(base):  # type: ignore[misc] # the SDK has no types
        begun = closed = False

        def on_stream_event(self, news: Any) -> None:  # noqa: ANN401
            event(news)

        def on_stream_error(self, error: Exception) -> bool:
            return True

        def on_stream_closed(self) -> None:
            self.closed = True
            if self.begun:
                lost()

        def begin(self) -> None:
            self.begun = True
            if self.closed:  # meanwhile
                lost()

    return Stream()
