"""The module's connection to its edgeHub: azure-iot-device's client, with an end to every wait.

The client connects when it is needed, and again by itself after edgeHub restarted. Two habits of
the library are made up for by a new client: it waits for an answer to a twin request for ever, so a
client whose call got none in time is given up; and it subscribes once, so one that connected again
is replaced: an edgeHub that was made anew knows no old subscriptions. Each failure is one of
`edgefleet.errors`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from edgefleet.errors import (
    AccessDeniedError,
    ConfigurationError,
    MissingExtraError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

T = TypeVar("T")

DEVICE_VARIABLE = "IOTEDGE_DEVICEID"
CONNECTION_VARIABLE = "EdgeHubConnectionString"  # of a module that is started by hand
_ENVIRONMENT = (
    DEVICE_VARIABLE,
    "IOTEDGE_MODULEID",
    "IOTEDGE_MODULEGENERATIONID",
    "IOTEDGE_IOTHUBHOSTNAME",
    "IOTEDGE_GATEWAYHOSTNAME",
    "IOTEDGE_WORKLOADURI",
    "IOTEDGE_APIVERSION",
)
TIMEOUT_S = 30.0  # of a call; edgeHub may have to ask IoT Hub over a slow link
RECONNECT_S = 5.0  # between the library's own tries; edgeHub is on the same machine
CLOSE_S = 0.3  # a process that ends has promised to do so soon


class Module:
    """The connection of this module; may be used by several threads.

    Args:
        changed: called when desired properties changed.
        connected: called when the connection is there again.
        asked: answers a direct method: given its name, its payload and whoever takes status and
            payload of the answer. Returns at once.
        timeout_s: of one call.
        reconnect_s: between tries to connect again.

    Raises:
        MissingExtraError: azure-iot-device isn't installed.
        ConfigurationError: no edgeAgent started this process.
    """

    def __init__(
        self,
        *,
        changed: Callable[[], None],
        connected: Callable[[], None],
        asked: Callable[[str, Any, Callable[[int, Any], None]], None],
        timeout_s: float = TIMEOUT_S,
        reconnect_s: float = RECONNECT_S,
    ) -> None:
        try:
            from azure.iot.device import Message, MethodResponse, exceptions  # noqa: PLC0415
            from azure.iot.device.aio import IoTHubModuleClient  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise MissingExtraError(
                "the channel iotedge needs azure-iot-device",
                cure="install it with: pip install 'edgefleet-runtime[iotedge]'",
            ) from error
        missing = sorted(name for name in _ENVIRONMENT if not os.environ.get(name))
        if missing and not os.environ.get(CONNECTION_VARIABLE):
            raise ConfigurationError(
                f"{', '.join(missing)} not set: no IoT Edge agent started this process",
                cure="let a deployment run it as a module, or use another channel",
            )
        # It tells of each publication, topics included, at its info level.
        for name in ("azure.iot.device", "paho"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self._client_type, self._errors = IoTHubModuleClient, exceptions
        self._message_type, self._response_type = Message, MethodResponse
        self._changed, self._connected, self._asked = changed, connected, asked
        self._timeout_s = timeout_s
        self._reconnect_s = reconnect_s
        self._client: Any = None
        self._closed = False
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._making = asyncio.Lock()
        self._running: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._run, name="iotedge", daemon=True)
        self._thread.start()

    def desired(self) -> Mapping[str, Any]:
        """All desired properties of the module's twin.

        Raises:
            UnavailableError: edgeHub doesn't answer.
            AccessDeniedError: it doesn't take this module's credentials.
        """
        found: Mapping[str, Any] = self._call(lambda client: client.get_twin()).get("desired", {})
        return found

    def report(self, patch: Mapping[str, Any]) -> None:
        """Change reported properties; edgeHub keeps the patch while it is offline.

        Raises:
            UnavailableError, AccessDeniedError: as `desired`.
        """
        self._call(lambda client: client.patch_twin_reported_properties(dict(patch)))

    def send(self, payload: bytes, output: str) -> None:
        """Send a message of JSON to an output; edgeHub has it on its disk when this returns.

        Raises:
            UnavailableError, AccessDeniedError: as `desired`.
        """
        message = self._message_type(  # type: ignore[no-untyped-call]
            payload, content_encoding="utf-8", content_type="application/json"
        )
        self._call(lambda client: client.send_message_to_output(message, output))

    def close(self) -> None:
        """Disconnect, without waiting for an edgeHub that doesn't answer; later calls fail."""
        if self._closed:
            return
        self._closed = True
        client, self._client = self._client, None
        ended = asyncio.run_coroutine_threadsafe(self._end(client), self._loop)
        with contextlib.suppress(TimeoutError):
            ended.result(CLOSE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self) -> None:
        """Run the loop until `close`, then end what still waits in it, its threads and itself."""
        self._loop.run_forever()
        self._runner.close()

    def _call(self, work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
        errors = self._errors
        if self._closed:
            raise UnavailableError("the channel is closed", retryable=False)
        try:
            return asyncio.run_coroutine_threadsafe(self._bounded(work), self._loop).result()
        except errors.CredentialError as error:
            raise AccessDeniedError(
                "edgeHub doesn't take this module's credentials",
                cure="see on the device: iotedge check",
            ) from error
        except TimeoutError as error:
            raise UnavailableError(f"edgeHub gives no answer in {self._timeout_s:.0f} s") from error
        except Exception as error:
            # The library raises its own, the service's and requests' errors; to a device all mean
            # that edgeHub is away or being updated.
            said = str(error) or type(error).__name__
            raise UnavailableError(f"edgeHub doesn't answer: {said}") from error

    async def _bounded(self, work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
        client, task = None, asyncio.current_task()
        try:
            async with asyncio.timeout(self._timeout_s):
                client = await self._connection()
                if task is not None:
                    self._running.add(task)
                return await work(client)
        except TimeoutError:
            if client is not None and client is self._client:
                self._client = None
                self._ending = asyncio.create_task(self._end(client))
            raise
        finally:
            if task is not None:
                self._running.discard(task)

    async def _connection(self) -> Any:  # noqa: ANN401 - the library's client
        async with self._making:
            if self._client is None:
                self._client = await self._made()
            return self._client

    async def _made(self) -> Any:  # noqa: ANN401
        """A client that is connected and listens; made in a thread, because it blocks there."""
        made: asyncio.Future[Any] = self._loop.create_future()

        def give(client: Any, error: Exception | None) -> None:  # noqa: ANN401
            if made.cancelled():
                if client is not None:
                    self._ending = asyncio.ensure_future(self._end(client))
            elif error is not None:
                made.set_exception(error)
            else:
                made.set_result(client)

        def make() -> None:
            client, failure = None, None
            try:
                client = self._client_type.create_from_edge_environment(
                    connection_retry_interval=self._reconnect_s, ensure_desired_properties=False
                )
                client.on_twin_desired_properties_patch_received = lambda _: self._changed()
                client.on_method_request_received = self._received
                # Last, so that it isn't told of the first connection.
                client.on_connection_state_change = partial(self._state, client)
            except Exception as error:  # noqa: BLE001 - told to whoever waits
                failure = error
                if client is not None:
                    with contextlib.suppress(RuntimeError):  # likewise
                        asyncio.run_coroutine_threadsafe(self._end(client), self._loop)
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(give, client, failure)

        threading.Thread(target=make, name="iotedge-connect", daemon=True).start()
        return await made

    def _state(self, client: Any) -> None:  # noqa: ANN401
        """The connection came or went; called by a thread of the library's."""
        if client.connected and client is self._client:
            asyncio.run_coroutine_threadsafe(self._replace(client), self._loop)

    async def _replace(self, client: Any) -> None:  # noqa: ANN401
        """Have the next call make a new client, once those in progress have ended."""
        async with self._making:
            if self._running:
                await asyncio.wait(self._running, timeout=self._timeout_s)
            if self._client is client:
                self._client = None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._timeout_s):
                        await self._end(client)
        self._connected()

    def _received(self, request: Any) -> None:  # noqa: ANN401 - the library's
        def answer(status: int, payload: Any) -> None:  # noqa: ANN401 - JSON
            response = self._response_type.create_from_method_request(request, status, payload)
            self._call(lambda client: client.send_method_response(response))

        self._asked(request.name, request.payload, answer)

    async def _end(self, client: Any) -> None:  # noqa: ANN401
        if client is not None:
            with contextlib.suppress(Exception):
                await client.shutdown()
