"""The extensions of one server, shared by REST and gRPC: what is on, and who answers.

REST asks `Extensions` for the paths that Open Inference Protocol v2 alone doesn't know.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import re
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec

from edgefleet.errors import (
    AccessDeniedError,
    EdgeFleetError,
    InvalidInputError,
    NotFoundError,
)
from edgefleet.protocol.typed import UNREADABLE, decoder
from edgefleet_runtime.serve.extensions.cuda_memory import CudaRegion, CudaRegions
from edgefleet_runtime.serve.extensions.describe import configuration_of, statistics_of
from edgefleet_runtime.serve.extensions.errors import message_of, status_of
from edgefleet_runtime.serve.extensions.repository import (
    ControlQueue,
    LoadRequest,
    ModelControl,
    load_request,
    refused,
    rows_of,
    unload_dependents,
)
from edgefleet_runtime.serve.extensions.shared_memory import Region
from edgefleet_runtime.serve.extensions.wire import MARK, Wire, coding_of
from edgefleet_runtime.serve.lanes import Lanes
from edgefleet_runtime.serve.messages import Request, Response, json_response, refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.protocol.bundle import Interface
    from edgefleet_runtime.serve.extensions.memory import SharedMemory
    from edgefleet_runtime.serve.extensions.readings import Hear
    from edgefleet_runtime.serve.table import ModelTable

_log = logging.getLogger(__name__)

READINGS = "/v2/edgefleet/readings"
_RETRY_AFTER_S = "5"  # loading a model takes seconds
_CONTROL = ("model_repository", "model_repository(unload_dependents)")  # as Triton tells them
_Bytes = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_T = TypeVar("_T")
_ABOUT = re.compile(
    r"/v2/models/(?:(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?/)?(?P<verb>config|stats)"
)
_REPOSITORY = re.compile(
    r"/v2/repository/(?:(?P<index>index)|models/(?P<name>[^/]+)/(?P<verb>load|unload))"
)
_MEMORY = re.compile(
    r"/v2/systemsharedmemory(?:/region/(?P<name>[^/]+))?/(?P<verb>status|register|unregister)"
)


class _Placed(msgspec.Struct):
    key: str
    byte_size: _Bytes
    offset: _Bytes = 0


_CUDA = re.compile(
    r"/v2/cudasharedmemory(?:/region/(?P<name>[^/]+))?/(?P<verb>status|register|unregister)"
)


class _Base64(msgspec.Struct):
    b64: str


class _OnGpu(msgspec.Struct):
    raw_handle: _Base64
    device_id: Annotated[int, msgspec.Meta(ge=0, le=(1 << 31) - 1)]
    byte_size: _Bytes


class _Index(msgspec.Struct):
    ready: bool = False


class _Change(msgspec.Struct):
    parameters: dict[str, Any] = {}


class Extensions:
    """Answers what goes beyond Open Inference Protocol v2.

    Args:
        table: the models.
        control: loads and unloads models on request; None to refuse that.
        regions: shared memory; None where the system has none.
        remote_control: callers on other machines may use the control too.
        lanes: the way of inference requests to the models; those of callers on other machines too.
        hear: takes readings; None where nobody watches.

    Attributes:
        afar: the same for callers on other machines: without shared memory, and without a control
            that isn't for them.
    """

    def __init__(
        self,
        table: ModelTable,
        *,
        control: ModelControl | ControlQueue | None = None,
        regions: SharedMemory | None = None,
        remote_control: bool = False,
        lanes: Lanes | None = None,
        hear: Hear | None = None,
    ) -> None:
        self.table = table
        self._hear = hear
        self.lanes = lanes or Lanes(table)
        self.regions = regions
        if control is not None and not isinstance(control, ControlQueue):
            control = ControlQueue(control)
        self._control = control
        self._servers = 0
        self.afar = self
        if regions is not None or (control is not None and not remote_control):
            kept = control if remote_control else None
            self.afar = Extensions(
                table, control=kept, remote_control=True, lanes=self.lanes, hear=hear
            )

    @property
    def names(self) -> tuple[str, ...]:
        """What server metadata lists: the extensions that are on."""
        return (
            "binary_tensor_data",
            "model_configuration",
            *(_CONTROL if self._control else ()),
            "statistics",
            *(("system_shared_memory",) if self.regions else ()),
            *(("cuda_shared_memory",) if self.regions and self.regions.has_cuda else ()),
            *(("edgefleet_readings",) if self._hear else ()),
        )

    def enter(self) -> None:
        """Serve them: each server that does calls this when it starts and `leave` at its end."""
        self.lanes.open()
        self._servers += 1

    def leave(self) -> None:
        """Forget regions and stop what waits, once no server is left that needs them."""
        self.lanes.close()
        self._servers -= 1
        if self._servers:
            return
        if self.regions is not None:
            self.regions.close()
        if self._control is not None:
            self._control.close()

    # -- both

    def statistics(self, name: str = "", version: str | None = None) -> list[dict[str, Any]]:
        """The statistics of one model, or of all without a name.

        Raises:
            NotFoundError: no such model.
        """
        models = [self.table.get(name, version)] if name else list(self.table)
        return [statistics_of(served) for served in models]

    def memory(self) -> SharedMemory:
        """The shared memory.

        Raises:
            InvalidInputError: it is off here.
        """
        if self.regions is None:
            raise InvalidInputError(
                "shared memory is off here",
                cure="serve on loopback or a Unix socket, on Linux; no web page may use it",
            )
        return self.regions

    def cuda_memory(self) -> CudaRegions:
        """The shared memory on GPUs.

        Raises:
            InvalidInputError: shared memory is off here.
        """
        regions = self.memory().cuda
        if regions is None:
            raise InvalidInputError("CUDA shared memory is off here", cure="send plain tensors")
        return regions

    async def index(self, *, ready: bool) -> list[dict[str, str]]:
        """What the model control lists."""
        states = await self._controlled(lambda control: control.index())
        return rows_of(states, ready=ready)

    async def load(self, request: LoadRequest) -> None:
        """Load a model and wait until it serves."""
        await self._controlled(lambda control: control.load(request))

    async def unload(self, name: str, *, dependents: bool) -> None:
        """Unload a model."""
        await self._controlled(lambda control: control.unload(name, dependents=dependents))

    async def _controlled(self, call: Callable[[ModelControl], _T]) -> _T:
        if self._control is None:
            raise refused()
        return await self._control.run(call)

    # -- REST

    def wire_for(
        self, request: Request, body: bytes, header_length: int | None, interface: Interface
    ) -> Wire | None:
        """What decodes this request and encodes its answer; None for one without extensions.

        Args:
            request: with its headers.
            body: decompressed.
            header_length: of the JSON header in ``body``.
            interface: of the model that is asked.
        """
        accepted = request.headers.get(b"accept-encoding")
        coding = None if accepted is None else coding_of(accepted)
        end = len(body) if header_length is None else header_length
        if coding is None and header_length != 0 and body.find(MARK, 0, end) < 0:
            return None
        return Wire(interface=interface, regions=self.regions, coding=coding)

    def answer(self, request: Request, path: str) -> Response | asyncio.Future[Response] | None:
        """Answer a request for one of the extensions' paths; None for every other path."""
        if path == READINGS:
            return self._heard(request)
        for pattern, method, handler in (
            (_ABOUT, "GET", self._about),
            (_MEMORY, None, self._memory),
            (_CUDA, None, self._cuda_memory),
            (_REPOSITORY, "POST", self._repository),
        ):
            found = pattern.fullmatch(path)
            if found is None:
                continue
            wanted = method or ("GET" if found["verb"] == "status" else "POST")
            if request.method != wanted and (request.method, wanted) != ("HEAD", "GET"):
                return refusal(
                    405,
                    f"{request.method} is not allowed here, use {wanted}",
                    headers=(("Allow", wanted),),
                )
            try:
                return handler(request, found)
            except EdgeFleetError as error:
                return _failure(error)
        return None

    def _heard(self, request: Request) -> Response | None:
        if self._hear is None:
            return None
        if request.method != "POST":
            return refusal(405, "send readings with POST", headers=(("Allow", "POST"),))
        from edgefleet_runtime.serve.extensions.readings import Readings  # noqa: PLC0415 - not of a start

        try:
            return Readings(self._hear).answer(request)
        except EdgeFleetError as error:
            return _failure(error)

    def _about(self, _: Request, route: re.Match[str]) -> Response:
        name, version = route["name"], route["version"]
        if route["verb"] == "stats":
            return json_response(200, {"model_stats": self.statistics(name or "", version)})
        if name is None:
            raise NotFoundError("no model is named", cure="ask for /v2/models/NAME/config")
        return json_response(200, configuration_of(self.table.get(name, version)))

    def _memory(self, request: Request, route: re.Match[str]) -> Response:
        regions, name = self.memory(), route["name"] or ""
        if route["verb"] == "status":
            return json_response(200, list(regions.status(name).values()))
        if route["verb"] == "unregister":
            regions.unregister(name)
        else:
            told = _read(request, _Placed)
            regions.register(
                Region(name=name, key=told.key, offset=told.offset, byte_size=told.byte_size)
            )
        return Response(200)

    def _cuda_memory(self, request: Request, route: re.Match[str]) -> Response:
        regions, name = self.cuda_memory(), route["name"] or ""
        if route["verb"] == "status":
            held = regions.status(name).values()
            told = [
                {"name": r.name, "device_id": r.device_id, "byte_size": r.byte_size} for r in held
            ]
            return json_response(200, told)
        if route["verb"] == "unregister":
            regions.unregister(name)
            return Response(200)
        given = _read(request, _OnGpu)
        try:
            handle = base64.b64decode(given.raw_handle.b64, validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidInputError(f"the handle of region {name!r} is no base64") from error
        region = CudaRegion(
            name=name, handle=handle, device_id=given.device_id, byte_size=given.byte_size
        )
        self.memory().register(region)
        return Response(200)

    def _repository(self, request: Request, route: re.Match[str]) -> asyncio.Future[Response]:
        name, verb = route["name"], route["verb"]
        if verb and b"origin" in request.headers:  # as of `Request.local`, but said in words
            raise AccessDeniedError(f"no web page may {verb} models", cure="use a client program")
        if self._control is None:
            raise refused()
        if verb is None:
            return _promise(partial(self.index, ready=_read(request, _Index).ready))
        parameters = _read(request, _Change).parameters
        if verb == "load":
            return _promise(partial(self.load, load_request(name, parameters)))
        return _promise(partial(self.unload, name, dependents=unload_dependents(parameters)))


def _promise(call: Callable[[], Any]) -> asyncio.Future[Response]:
    async def answer() -> Response:
        try:
            content = await call()
        except EdgeFleetError as error:
            return _failure(error)
        return Response(200) if content is None else json_response(200, content)

    return asyncio.ensure_future(answer())


def _read(request: Request, kind: type[_T]) -> _T:
    try:
        return decoder(kind).decode(request.body or b"{}")
    except UNREADABLE as error:
        raise InvalidInputError(f"malformed request: {error}") from error


def _failure(error: EdgeFleetError) -> Response:
    status = status_of(error).http
    if status == 503:
        return refusal(status, message_of(error), headers=(("Retry-After", _RETRY_AFTER_S),))
    if status >= 500:
        _log.warning("a request failed: %s", message_of(error))
    return refusal(status, message_of(error))
