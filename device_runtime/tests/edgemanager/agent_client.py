"""A client of Edge Manager's agent, built from AWS's own definitions and from nothing of ours."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc
import numpy as np
from google.protobuf import descriptor_pool, message_factory

from device_runtime.tests.serving import WAIT_S
from device_runtime.tools.generate_pb2 import described

if TYPE_CHECKING:
    from numpy.typing import NDArray

PACKAGE = "AWS.SageMaker.Edge"
TYPES = {"u1": 0, "i2": 1, "i4": 2, "i8": 3, "f2": 4, "f4": 5, "f8": 6}
STATUS = {0: "FAILURE", 1: "SUCCESS", 2: "IN_PROGRESS", 3: "NOT_FOUND"}


@functools.cache
def messages(contract: Path) -> Any:
    """The contract's messages by name, and its methods' types."""
    pool = descriptor_pool.DescriptorPool()
    for file in described(contract).file:
        pool.Add(file)
    service = pool.FindServiceByName(f"{PACKAGE}.Agent")
    return {
        "types": lambda name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"{PACKAGE}.{name}")
        ),
        "methods": {m.name: (m.input_type, m.output_type) for m in service.methods},
    }


class AgentClient:
    """``client.Predict(name=…, tensors=[…])``, and so on for each call of the contract."""

    def __init__(self, contract: Path, address: str) -> None:
        self._about = messages(contract)
        self._channel = grpc.insecure_channel(
            address, options=(("grpc.max_receive_message_length", -1),)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def message(self, kind: str, /, **fields: Any) -> Any:
        return self._about["types"](kind)(**fields)

    def __getattr__(self, method: str) -> Any:
        if method not in self._about["methods"]:
            raise AttributeError(method)
        asked, answer = map(message_factory.GetMessageClass, self._about["methods"][method])
        call = self._channel.unary_unary(
            f"/{PACKAGE}.Agent/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )

        def ask(metadata: Any = None, **fields: Any) -> Any:
            return call(asked(**fields), timeout=WAIT_S, metadata=metadata)

        return ask

    def raw(self, method: str, data: bytes) -> bytes:
        answer: bytes = self._channel.unary_unary(f"/{PACKAGE}.Agent/{method}")(
            data, timeout=WAIT_S
        )
        return answer

    def tensor(self, name: str, array: NDArray[Any]) -> Any:
        kind = array.dtype.newbyteorder("=").str[1:]
        metadata = self.message(
            "TensorMetadata", name=name, data_type=TYPES[kind], shape=array.shape
        )
        return self.message("Tensor", tensor_metadata=metadata, byte_data=array.tobytes())

    def predict(self, name: str, *tensors: Any) -> dict[str, NDArray[Any]]:
        answer = self.Predict(name=name, tensors=tensors)
        kinds = {number: kind for kind, number in TYPES.items()}
        return {
            t.tensor_metadata.name: np.frombuffer(
                t.byte_data, kinds[t.tensor_metadata.data_type]
            ).reshape(tuple(t.tensor_metadata.shape))
            for t in answer.tensors
        }

    def status(self, capture: str) -> str:
        return STATUS[self.GetCaptureDataStatus(capture_id=capture).status]
