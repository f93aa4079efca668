"""Answers the calls of Open Inference Protocol v2 and Triton's extensions over gRPC.

Rules kept here:

- The same models, leases, limits and extensions as REST; a short run stays on the event loop.
- Each call answers, or ends with the status of its error; on a stream an error is one message, and
  the stream goes on. What failed inside is logged and told as "internal error".
- The answers of a stream come in the order of its requests.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from edgefleet.errors import NotFoundError, ThrottledError
from edgefleet_runtime import __version__
from edgefleet_runtime.serve.extensions.cuda_memory import CudaRegion
from edgefleet_runtime.serve.extensions.describe import configuration_of, platform_of
from edgefleet_runtime.serve.extensions.placement import run_placed
from edgefleet_runtime.serve.extensions.repository import load_request, unload_dependents
from edgefleet_runtime.serve.extensions.shared_memory import Region
from edgefleet_runtime.serve.grpc import inference_pb2 as pb
from edgefleet_runtime.serve.grpc.calls import (
    Received,
    answered,
    checked,
    parsed,
    refuse,
    serialized,
    told,
)
from edgefleet_runtime.serve.grpc.tensors import inputs_of, outputs_of, response_of, values_of
from edgefleet_runtime.serve.lanes import INLINE_BODY_BYTES, INLINE_RUN_US

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from concurrent.futures import Executor

    from edgefleet_runtime.serve.extensions.service import Extensions
    from edgefleet_runtime.serve.messages import Limits

    _Answer = tuple[pb.ModelInferResponse, Callable[[], None] | None]

_log = logging.getLogger(__name__)
SERVICE = "inference.GRPCInferenceService"


class GrpcService:
    """Answers calls from the models of a table. Made on its event loop.

    Args:
        extensions: with the table of models; shared with REST.
        ready: whether the owner wants requests sent here.
        limits: how much is taken in.
        pool: threads for what runs long.
    """

    def __init__(
        self, extensions: Extensions, *, ready: Callable[[], bool], limits: Limits, pool: Executor
    ) -> None:
        self._extensions = extensions
        self._table = extensions.table
        self._ready = ready
        self._limits = limits
        self._pool = pool
        self._pooled = 0  # requests in the pool, running or waiting
        self._held = 0  # their bytes
        self._loop = asyncio.get_running_loop()

    def handlers(self) -> grpc.GenericRpcHandler:
        """What a gRPC server takes."""
        calls: dict[str, tuple[type[Any], Callable[[Any], Any]]] = {
            "ServerLive": (pb.ServerLiveRequest, self._live),
            "ServerReady": (pb.ServerReadyRequest, self._is_ready),
            "ServerMetadata": (pb.ServerMetadataRequest, self._server),
            "ModelReady": (pb.ModelReadyRequest, self._model_ready),
            "ModelMetadata": (pb.ModelMetadataRequest, self._model),
            "ModelConfig": (pb.ModelConfigRequest, self._config),
            "ModelStatistics": (pb.ModelStatisticsRequest, self._statistics),
            "RepositoryIndex": (pb.RepositoryIndexRequest, self._index),
            "RepositoryModelLoad": (pb.RepositoryModelLoadRequest, self._load),
            "RepositoryModelUnload": (pb.RepositoryModelUnloadRequest, self._unload),
            "CudaSharedMemoryStatus": (pb.CudaSharedMemoryStatusRequest, self._cuda_memory),
            "CudaSharedMemoryRegister": (pb.CudaSharedMemoryRegisterRequest, self._cuda_register),
            "CudaSharedMemoryUnregister": (
                pb.CudaSharedMemoryUnregisterRequest,
                self._cuda_unregister,
            ),
            "SystemSharedMemoryStatus": (pb.SystemSharedMemoryStatusRequest, self._memory),
            "SystemSharedMemoryRegister": (pb.SystemSharedMemoryRegisterRequest, self._register),
            "SystemSharedMemoryUnregister": (
                pb.SystemSharedMemoryUnregisterRequest,
                self._unregister,
            ),
        }
        methods = {
            name: grpc.unary_unary_rpc_method_handler(
                partial(answered, call), partial(parsed, kind), serialized
            )
            for name, (kind, call) in calls.items()
        }
        parse = partial(parsed, pb.ModelInferRequest)
        methods["ModelInfer"] = grpc.unary_unary_rpc_method_handler(self._unary, parse, serialized)
        methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
            self._stream, parse, serialized
        )
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    # -- inference

    async def _unary(self, received: Received, context: Any) -> pb.ModelInferResponse:  # noqa: ANN401
        try:
            return await self._infer(received)
        except Exception as error:  # noqa: BLE001 - an answer is due, whatever failed
            await refuse(context, error)

    async def _stream(
        self, requests: AsyncIterator[Received], _: object
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        async for received in requests:
            try:
                response = await self._infer(received)
                # Models answer each request once: Triton marks the last answer to a request.
                response.parameters["triton_final_response"].bool_param = True
                answer = pb.ModelStreamInferResponse(infer_response=response)
            except Exception as error:  # noqa: BLE001 - the stream outlives one request
                known = pb.ModelInferResponse()
                if received.message is not None:
                    known.id = received.message.id
                answer = pb.ModelStreamInferResponse(
                    error_message=told(error)[1], infer_response=known
                )
            yield answer

    async def _infer(self, received: Received) -> pb.ModelInferResponse:
        request = checked(received)
        run_us = self._table.get(request.model_name, request.model_version).recent_p50_us
        if run_us is not None and run_us < INLINE_RUN_US and received.size <= INLINE_BODY_BYTES:
            response, after = self._answer(request)
        else:
            response, after = await self._in_pool(request, received.size)
        if after is not None:
            self._loop.call_soon(after)
        return response

    async def _in_pool(self, request: pb.ModelInferRequest, size: int) -> _Answer:
        limits = self._limits
        if self._pooled >= limits.max_requests or self._held + size > limits.max_held_bytes:
            raise ThrottledError(
                f"{self._pooled} requests of {self._held} bytes are being answered",
                cure="try again later",
            )
        self._pooled += 1
        self._held += size
        future = self._loop.run_in_executor(self._pool, self._answer, request)
        future.add_done_callback(partial(self._left_pool, size))
        # A caller that gives up doesn't take its request out of the pool, so it counts until then.
        return await asyncio.shield(future)

    def _left_pool(self, size: int, future: asyncio.Future[_Answer]) -> None:
        self._pooled -= 1
        self._held -= size
        if not future.cancelled():
            future.exception()  # seen, also when the caller is gone

    def _answer(self, request: pb.ModelInferRequest) -> _Answer:
        """Decode, run, encode; on whichever thread."""
        memory = self._extensions.memory
        inputs = inputs_of(request, memory)
        wanted = outputs_of(request)
        began = time.perf_counter()
        with self._table.lease(request.model_name, request.model_version) as served:
            try:
                if self._extensions.regions is None:
                    outputs, run_us = served.infer(inputs, tuple(wanted) if wanted else None)
                else:
                    outputs, run_us = run_placed(
                        served,
                        inputs,
                        tuple(wanted) if wanted else None,
                        wanted or {},
                        self._extensions.regions,
                        watched=bool(self._table.observers),
                    )
                response = response_of(served, request, outputs, wanted, memory)
            except Exception:
                served.requests.failed()
                raise
        served.requests.answered((time.perf_counter() - began) * 1e6)
        if not self._table.observers:
            return response, None
        return response, partial(self._observe, served, outputs, run_us, request.id or None)

    def _observe(self, *seen: Any) -> None:  # noqa: ANN401 - passed on as it is
        for observer in tuple(self._table.observers):
            try:
                observer(*seen)
            except Exception:  # noqa: BLE001 - the answer is given, and others watch too
                _log.exception("an observer of inferences failed")

    # -- what is here

    async def _live(self, _: object) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def _is_ready(self, _: object) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._ready())

    async def _server(self, _: object) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(
            name="edgefleet-runtime", version=__version__, extensions=self._extensions.names
        )

    async def _model_ready(self, asked: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        try:
            self._table.get(asked.name, asked.version)
        except NotFoundError:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def _model(self, asked: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        served = self._table.get(asked.name, asked.version)
        response = pb.ModelMetadataResponse(
            name=served.name,
            versions=[served.version],
            platform=platform_of(served),
            properties={
                "bundle": served.bundle,
                "variant": served.variant,
                "engine": served.model.engine,
                "providers": ",".join(served.model.providers),
            },
        )
        for spec in served.model.interface.inputs:
            response.inputs.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
        for spec in served.model.interface.outputs:
            response.outputs.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
        return response

    async def _config(self, asked: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        fields = configuration_of(self._table.get(asked.name, asked.version))
        parameters = fields.pop("parameters")
        config = pb.ModelConfig(**fields)
        for key, value in parameters.items():
            config.parameters[key].string_value = value["string_value"]
        return pb.ModelConfigResponse(config=config)

    async def _statistics(self, asked: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
        return pb.ModelStatisticsResponse(
            model_stats=self._extensions.statistics(asked.name, asked.version)
        )

    # -- model repository

    async def _index(self, asked: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        return pb.RepositoryIndexResponse(models=await self._extensions.index(ready=asked.ready))

    async def _load(self, asked: pb.RepositoryModelLoadRequest) -> pb.RepositoryModelLoadResponse:
        request = load_request(asked.model_name, values_of(asked.parameters))
        await self._extensions.load(request)
        return pb.RepositoryModelLoadResponse()

    async def _unload(
        self, asked: pb.RepositoryModelUnloadRequest
    ) -> pb.RepositoryModelUnloadResponse:
        dependents = unload_dependents(values_of(asked.parameters))
        await self._extensions.unload(asked.model_name, dependents=dependents)
        return pb.RepositoryModelUnloadResponse()

    # -- system shared memory

    async def _memory(
        self, asked: pb.SystemSharedMemoryStatusRequest
    ) -> pb.SystemSharedMemoryStatusResponse:
        response = pb.SystemSharedMemoryStatusResponse()
        for name, region in self._extensions.memory().status(asked.name).items():
            told = response.regions[name]
            told.name, told.key = region.name, region.key
            told.offset, told.byte_size = region.offset, region.byte_size
        return response

    async def _register(
        self, asked: pb.SystemSharedMemoryRegisterRequest
    ) -> pb.SystemSharedMemoryRegisterResponse:
        region = Region(
            name=asked.name, key=asked.key, offset=asked.offset, byte_size=asked.byte_size
        )
        self._extensions.memory().register(region)
        return pb.SystemSharedMemoryRegisterResponse()

    async def _unregister(
        self, asked: pb.SystemSharedMemoryUnregisterRequest
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        self._extensions.memory().unregister(asked.name)
        return pb.SystemSharedMemoryUnregisterResponse()

    # -- CUDA shared memory

    async def _cuda_memory(
        self, asked: pb.CudaSharedMemoryStatusRequest
    ) -> pb.CudaSharedMemoryStatusResponse:
        response = pb.CudaSharedMemoryStatusResponse()
        for name, region in self._extensions.cuda_memory().status(asked.name).items():
            told = response.regions[name]
            told.name, told.device_id = region.name, region.device_id
            told.byte_size = region.byte_size
        return response

    async def _cuda_register(
        self, asked: pb.CudaSharedMemoryRegisterRequest
    ) -> pb.CudaSharedMemoryRegisterResponse:
        region = CudaRegion(
            name=asked.name,
            handle=asked.raw_handle,
            device_id=asked.device_id,
            byte_size=asked.byte_size,
        )
        self._extensions.memory().register(region)
        return pb.CudaSharedMemoryRegisterResponse()

    async def _cuda_unregister(
        self, asked: pb.CudaSharedMemoryUnregisterRequest
    ) -> pb.CudaSharedMemoryUnregisterResponse:
        self._extensions.cuda_memory().unregister(asked.name)
        return pb.CudaSharedMemoryUnregisterResponse()
