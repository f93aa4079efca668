"""An ONNX model in KServe's Python server: ``kserve_server.py MODEL NAME HTTP GRPC …``."""

from __future__ import annotations

import sys
import uuid
from typing import Any

import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class OnnxModel(Model):  # type: ignore[misc] # KServe is in another environment
    """Runs a file with one session."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1 if name == "mlp" else 0
        self.session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self.ready = True

    async def get_input_types(self) -> list[dict[str, Any]]:
        """For the model's metadata."""
        return _types(self.session.get_inputs())

    async def get_output_types(self) -> list[dict[str, Any]]:
        """For the model's metadata."""
        return _types(self.session.get_outputs())

    async def predict(
        self, payload: InferRequest, headers: dict[str, str] | None = None, *_: object, **__: object
    ) -> InferResponse:
        """Run it."""
        given = {tensor.name: tensor.as_numpy() for tensor in payload.inputs}
        arrays = self.session.run(None, given)
        binary = payload.use_binary_outputs
        outputs = []
        for node, array in zip(self.session.get_outputs(), arrays, strict=True):
            output = InferOutput(node.name, [*array.shape], "FP32")
            output.set_data_from_numpy(array, binary_data=binary)
            outputs.append(output)
        return InferResponse(
            payload.id or str(uuid.uuid4()),  # without one its own server refuses the answer
            self.name,
            outputs,
            use_binary_outputs=binary,
            requested_outputs=payload.request_outputs,
        )


def _types(nodes: list[Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": node.name,
            "datatype": "FP32",
            "shape": [n if isinstance(n, int) else -1 for n in node.shape],
        }
        for node in nodes
    ]


if __name__ == "__main__":
    path, name, http, grpc, *_ = sys.argv[1:]
    ModelServer(http_port=int(http), grpc_port=int(grpc), workers=1, access_log_format=None).start(
        [OnnxModel(name, path)]
    )
