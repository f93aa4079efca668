"""An ONNX model in PyTriton: ``pytriton_server.py MODEL NAME HTTP GRPC METRICS FOLDER``."""

from __future__ import annotations

import signal
import sys
from typing import Any

import numpy as np
import onnxruntime
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

MAX_BATCH = 32


def main(path: str, name: str, ports: list[int], folder: str) -> None:
    """Serve until a signal comes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1 if name == "mlp" else 0
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (given,), (gives,) = session.get_inputs(), session.get_outputs()
    batches = not isinstance(given.shape[0], int)

    def run(**inputs: Any) -> list[Any]:  # noqa: ANN401 - arrays
        outputs: list[Any] = session.run(None, inputs)
        return outputs

    def run_one_by_one(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{gives.name: session.run(None, dict(request))[0]} for request in requests]

    def tensor(node: Any) -> Tensor:  # noqa: ANN401 - onnxruntime has no types
        shape = node.shape[1:] if batches else node.shape
        return Tensor(name=node.name, dtype=np.float32, shape=tuple(shape))

    config = ModelConfig(
        batching=batches,
        max_batch_size=MAX_BATCH if batches else 1,
        batcher=DynamicBatcher(max_queue_delay_microseconds=0),
    )
    http, grpc, metrics = ports
    addresses = TritonConfig(
        http_address="127.0.0.1",
        http_port=http,
        grpc_address="127.0.0.1",
        grpc_port=grpc,
        metrics_port=metrics,
    )
    with Triton(config=addresses, workspace=f"{folder}/workspace") as triton:
        triton.bind(
            model_name=name,
            infer_func=batch(run) if batches else run_one_by_one,
            inputs=[tensor(given)],
            outputs=[tensor(gives)],
            config=config,
            strict=False,
        )
        triton.serve()


if __name__ == "__main__":
    # Blocks end, and with them the server that this has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    main(sys.argv[1], sys.argv[2], [*map(int, sys.argv[3:6])], sys.argv[6])
