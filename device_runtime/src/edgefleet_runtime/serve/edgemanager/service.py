"""Answers the calls of SageMaker Edge Manager's agent from the models of a table.

What each call does, and the statuses it ends with, is AWS's:
https://docs.aws.amazon.com/sagemaker/latest/dg/edge-manage-model.html. Rules kept here:

- Predictions run one after another, as that agent's do; loading a model holds up none of them.
- A prediction leases its model, so that a swap neither loses nor mixes one.
- An id that isn't known is a status of GetCaptureDataStatus, not an error: AWS's page has both.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from edgefleet.errors import ConflictError, InvalidInputError
from edgefleet_runtime.serve.capture import Capture, npy
from edgefleet_runtime.serve.edgemanager import agent_pb2 as pb
from edgefleet_runtime.serve.edgemanager.captures import (
    MAX_PARTS,
    capture_id,
    is_future,
    moment_of,
)
from edgefleet_runtime.serve.edgemanager.models import MAX_NAME, check_name
from edgefleet_runtime.serve.edgemanager.tensors import (
    Allowance,
    array_of,
    check_parts,
    data_of,
    describe,
    inputs_of,
    tensors_of,
)
from edgefleet_runtime.serve.edgemanager.turns import Turns
from edgefleet_runtime.serve.grpc.calls import answered, parse, serialized
from edgefleet_runtime.serve.runs import observe
from edgefleet_runtime.serve.trace import HEADER, trace_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edgefleet_runtime.serve.edgemanager.captures import Captures
    from edgefleet_runtime.serve.edgemanager.models import AgentModels
    from edgefleet_runtime.serve.messages import Limits
    from edgefleet_runtime.serve.table import ModelTable, ServedModel

_log = logging.getLogger(__name__)

SERVICE = "AWS.SageMaker.Edge.Agent"
MAX_LOADS = 16  # calls to load or unload that run or wait
MAX_PART_NAME = 128  # characters
_ENDINGS = {pb.CSV: ".csv", pb.JSON: ".json", pb.NONE: ".bin", pb.BASE64: ".b64"}


class AgentService:
    """Answers calls. Made on its event loop.

    Args:
        table: the models.
        models: decides what is loaded.
        captures: takes captures in; None to refuse them.
        limits: how much is taken in.
    """

    def __init__(
        self,
        table: ModelTable,
        *,
        models: AgentModels,
        captures: Captures | None,
        limits: Limits,
    ) -> None:
        self._table = table
        self._models = models
        self._captures = captures
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        held = limits.max_held_bytes
        self._turns = Turns("edgefleet-agent", max_calls=limits.max_requests, max_bytes=held)
        self._loads = Turns("edgefleet-agent-load", max_calls=MAX_LOADS, max_bytes=held)

    def handlers(self) -> grpc.GenericRpcHandler:
        """What a gRPC server takes."""
        calls: dict[str, tuple[type[Any], Callable[[Any], Any]]] = {
            "LoadModel": (pb.LoadModelRequest, self._load),
            "UnLoadModel": (pb.UnLoadModelRequest, self._unload),
            "ListModels": (pb.ListModelsRequest, self._list),
            "DescribeModel": (pb.DescribeModelRequest, self._describe),
            "GetCaptureDataStatus": (pb.GetCaptureDataStatusRequest, self._status),
        }
        methods = {
            name: grpc.unary_unary_rpc_method_handler(
                partial(answered, call, kind), None, serialized
            )
            for name, (kind, call) in calls.items()
        }
        for name, call in (("Predict", self._predict), ("CaptureData", self._capture)):
            methods[name] = grpc.unary_unary_rpc_method_handler(call, None, serialized)
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def close(self) -> None:
        """Begin nothing more."""
        self._turns.close()
        self._loads.close()

    # -- models

    async def _load(self, asked: pb.LoadModelRequest) -> pb.LoadModelResponse:
        name = check_name(asked.name)
        served = await self._loads.run(partial(self._models.load, asked.url, name))
        return pb.LoadModelResponse(model=self._model(served))

    async def _unload(self, asked: pb.UnLoadModelRequest) -> pb.UnLoadModelResponse:
        await self._loads.run(partial(self._models.unload, asked.name))
        return pb.UnLoadModelResponse()

    async def _list(self, _: object) -> pb.ListModelsResponse:
        return pb.ListModelsResponse(models=map(self._model, self._table))

    async def _describe(self, asked: pb.DescribeModelRequest) -> pb.DescribeModelResponse:
        return pb.DescribeModelResponse(model=self._model(self._table.get(_short(asked.name))))

    def _model(self, served: ServedModel) -> pb.Model:
        url = self._models.url_of(served.name)
        return describe(served.model.interface, name=served.name, url=url)

    # -- predictions

    async def _predict(self, data: bytes, context: Any) -> pb.PredictResponse:  # noqa: ANN401
        trace = _trace(context)

        async def predict(asked: pb.PredictRequest) -> pb.PredictResponse:
            self._table.get(_short(asked.name))
            call = partial(self._answer, asked, trace)
            response, after = await self._turns.run(call, len(data))
            if after is not None:
                self._loop.call_soon(after)
            return response

        return await answered(predict, pb.PredictRequest, data, context)

    def _answer(
        self, asked: pb.PredictRequest, trace: str | None
    ) -> tuple[pb.PredictResponse, Callable[[], None] | None]:
        """Decode, run, encode; on the predictions' thread."""
        began = time.perf_counter()
        allowance = Allowance(self._limits.max_body_bytes)
        with self._table.lease(asked.name) as served:
            try:
                inputs = inputs_of(served.model.interface, asked.tensors, allowance)
                read_us = (time.perf_counter() - began) * 1e6
                outputs, run_us = served.infer(inputs)
                response = pb.PredictResponse(tensors=tensors_of(outputs))
            except Exception:
                served.requests.failed()
                raise
        took_us = (time.perf_counter() - began) * 1e6
        served.requests.answered(1, took_us, 0.0, read_us, run_us)
        if not self._table.observers:
            return response, None
        seen = (served, outputs, run_us, None, trace)
        return response, partial(observe, self._table.observers, *seen)

    # -- captures

    async def _capture(self, data: bytes, context: Any) -> pb.CaptureDataResponse:  # noqa: ANN401
        with suppress(InvalidInputError):  # told below
            if is_future(parse(pb.CaptureDataRequest, data).inference_timestamp):
                await context.abort(
                    grpc.StatusCode.OUT_OF_RANGE, "inference_timestamp is in the future"
                )
        return await answered(partial(self._taken, len(data)), pb.CaptureDataRequest, data, context)

    async def _taken(self, size: int, asked: pb.CaptureDataRequest) -> pb.CaptureDataResponse:
        captures = self._captures
        if captures is None:
            raise ConflictError(
                "captures are off here", cure="ask the owner to serve with --capture-dir",
                retryable=False,
            )  # fmt: skip
        identity = capture_id(asked.capture_id)
        served = self._table.get(_short(asked.model_name))
        capture = await self._turns.run(partial(self._read, asked, identity, served), size)
        captures.take(capture)
        return pb.CaptureDataResponse()

    def _read(self, asked: pb.CaptureDataRequest, identity: str, served: ServedModel) -> Capture:
        """Decode; on the predictions' thread, because shared memory may hold the tensors."""
        parts = (asked.input_tensors, asked.inputs, asked.output_tensors, asked.outputs)
        check_parts([part for some in parts for part in some], MAX_PARTS)
        allowance = Allowance(self._limits.max_body_bytes)
        return Capture(
            id=identity,
            model=served.name,
            version=served.version,
            time=moment_of(asked),
            inputs=_files(asked.input_tensors, asked.inputs, allowance),
            outputs=_files(asked.output_tensors, asked.outputs, allowance),
        )

    async def _status(
        self, asked: pb.GetCaptureDataStatusRequest
    ) -> pb.GetCaptureDataStatusResponse:
        identity = capture_id(asked.capture_id)
        status = pb.NOT_FOUND if self._captures is None else self._captures.status(identity)
        return pb.GetCaptureDataStatusResponse(status=status)


def _files(
    tensors: Iterable[pb.Tensor], extras: Iterable[pb.AuxilaryData], allowance: Allowance
) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for tensor in tensors:
        name = tensor.tensor_metadata.name
        _add(files, name, npy(array_of(tensor, allowance)))
    for extra in extras:
        if extra.encoding not in _ENDINGS:
            raise InvalidInputError(f"no such encoding: {extra.encoding}")
        data = data_of(extra, None, allowance, what=f"auxiliary data {extra.name[:100]!r}")
        _add(files, f"{extra.name}{_ENDINGS[extra.encoding]}", data)
    return files


def _add(files: dict[str, bytes], name: str, data: bytes) -> None:
    if not 0 < len(name) <= MAX_PART_NAME or name in files:
        raise InvalidInputError(
            f"{name[:100]!r} is twice, or not a name of 1 to {MAX_PART_NAME} characters"
        )
    files[name] = data


def _short(name: str) -> str:
    if len(name) > MAX_NAME:
        raise InvalidInputError(f"a model's name has up to {MAX_NAME} characters")
    return name


def _trace(context: Any) -> str | None:  # noqa: ANN401 - grpc has no types
    for key, value in context.invocation_metadata() or ():
        if key == HEADER and isinstance(value, str):
            return trace_of({HEADER.encode(): value.encode("latin-1", "replace")})
    return None
