"""An ONNX model in MLServer: a runtime of its own, as its documentation tells to write one."""

from __future__ import annotations

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse, MetadataTensor

DATATYPES = {"tensor(float)": "FP32", "tensor(double)": "FP64", "tensor(int64)": "INT64"}


class OnnxModel(MLModel):  # type: ignore[misc] # MLServer is in another environment
    """Runs a file with one session."""

    async def load(self) -> bool:
        """Open the file, and say what the model takes and gives."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1 if self.name == "mlp" else 0
        self.session = onnxruntime.InferenceSession(
            self.settings.parameters.uri, options, providers=["CPUExecutionProvider"]
        )
        self.inputs, self.outputs = (
            [
                MetadataTensor(
                    name=node.name,
                    datatype=DATATYPES[node.type],
                    shape=[n if isinstance(n, int) else -1 for n in node.shape],
                )
                for node in nodes
            ]
            for nodes in (self.session.get_inputs(), self.session.get_outputs())
        )
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run it."""
        given = {tensor.name: NumpyCodec.decode_input(tensor) for tensor in payload.inputs}
        arrays = self.session.run(None, given)
        outputs = [
            NumpyCodec.encode_output(node.name, array)
            for node, array in zip(self.session.get_outputs(), arrays, strict=True)
        ]
        return InferenceResponse(id=payload.id, model_name=self.name, outputs=outputs)
