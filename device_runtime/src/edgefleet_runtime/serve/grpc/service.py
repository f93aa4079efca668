"""Answers the calls of Open Inference Protocol v2 and Triton's extensions over gRPC.

Rules kept here:

- The same models, limits and extensions as REST; inference goes the way of
  `edgefleet_runtime.serve.grpc.inference`.
- Each call answers, or ends with the status of its error. What failed inside is logged and told as
  "internal error".
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from edgefleet.errors import NotFoundError
from edgefleet_runtime import __version__
from edgefleet_runtime.serve.extensions.cuda_memory import CudaRegion
from edgefleet_runtime.serve.extensions.describe import configuration_of, platform_of
from edgefleet_runtime.serve.extensions.repository import load_request, unload_dependents
from edgefleet_runtime.serve.extensions.shared_memory import Region
from edgefleet_runtime.serve.grpc import inference_pb2 as pb
from edgefleet_runtime.serve.grpc.calls import answered, serialized
from edgefleet_runtime.serve.grpc.inference import GrpcRequests
from edgefleet_runtime.serve.grpc.tensors import values_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet_runtime.serve.extensions.service import Extensions
    from edgefleet_runtime.serve.messages import Limits

SERVICE = "inference.GRPCInferenceService"


class GrpcService:
    """Answers calls from the models of a table. Made on its event loop.

    Args:
        extensions: with the table of models; shared with REST.
        ready: whether the owner wants requests sent here.
        limits: how much is taken in.
    """

    def __init__(
        self, extensions: Extensions, *, ready: Callable[[], bool], limits: Limits
    ) -> None:
        self._extensions = extensions
        self._table = extensions.table
        self._ready = ready
        self._requests = GrpcRequests(extensions, limits)

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
                partial(answered, call, kind), None, serialized
            )
            for name, (kind, call) in calls.items()
        }
        infer = self._requests
        methods["ModelInfer"] = grpc.unary_unary_rpc_method_handler(infer.unary)
        methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(infer.stream)
        return grpc.method_handlers_generic_handler(SERVICE, methods)

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
