"""Stands in for Triton's ONNX Runtime backend, which PyTriton's Triton comes without.

A Python-based backend: Triton's Python backend runs it for every model that names ``onnxruntime``,
with the interface of the ONNX file as the real one completes it. EDGEFLEET_REPOSITORY is Triton's
model repository: a backend isn't told while it completes a configuration.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import onnxruntime
import triton_python_backend_utils as triton

TYPES = {"tensor(float)": "TYPE_FP32"}


def _session(config: dict[str, Any], folder: Path) -> Any:
    file = folder / "1" / (config["default_model_filename"] or "model.onnx")
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])


class TritonPythonModel:
    """A model of the repository."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        plain = config.as_dict()
        session = _session(plain, Path(os.environ["EDGEFLEET_REPOSITORY"], plain["name"]))
        config.set_max_batch_size(0)
        for nodes, add in (
            (session.get_inputs(), config.add_input),
            (session.get_outputs(), config.add_output),
        ):
            for node in nodes:
                dims = [n if isinstance(n, int) else -1 for n in node.shape]
                add({"name": node.name, "data_type": TYPES[node.type], "dims": dims})
        return config

    def initialize(self, about: dict[str, str]) -> None:
        folder = Path(about["model_repository"])
        self.session = _session(json.loads(about["model_config"]), folder)

    def execute(self, requests: list[Any]) -> list[Any]:
        names = [node.name for node in self.session.get_inputs()]
        answers = []
        for request in requests:
            feed = {n: triton.get_input_tensor_by_name(request, n).as_numpy() for n in names}
            outputs = self.session.run(None, feed)
            tensors = [
                triton.Tensor(node.name, array)
                for node, array in zip(self.session.get_outputs(), outputs, strict=True)
            ]
            answers.append(triton.InferenceResponse(tensors))
        return answers
