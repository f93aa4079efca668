"""Model configuration and statistics in the words of Triton's clients.

Rules kept here:

- Shapes are whole: ``max_batch_size`` is 0, because a model's first dimension is in its shape.
- Durations count for each request: one that ran in a batch has all of the batch's run.
- What isn't measured has count 0: failed requests have no duration, and there is no cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgefleet.protocol.bundle import TensorSpec
    from edgefleet_runtime.serve.table import ServedModel

# An ensemble is run by Triton's scheduler and ours, not by a backend.
_BACKENDS = {"onnxruntime_onnx": "onnxruntime", "ensemble": ""}
_NS = 1000  # in a microsecond


def platform_of(served: ServedModel) -> str:
    """Framework and format of a model."""
    return served.model.platform or served.model.engine.partition(" ")[0]


def configuration_of(served: ServedModel) -> dict[str, Any]:
    """A model's configuration, as ``inference.ModelConfig`` names its fields."""
    platform = platform_of(served)
    interface = served.model.interface
    return {
        "name": served.name,
        "platform": platform,
        "backend": _BACKENDS.get(platform, platform.partition("_")[0]),
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": 0,
        "input": [_tensor(spec) for spec in interface.inputs],
        "output": [_tensor(spec) for spec in interface.outputs],
        "parameters": {
            "execution_providers": {"string_value": ",".join(served.model.providers)},
            "variant": {"string_value": served.variant},
        },
        **served.model.configuration,
    }


def statistics_of(served: ServedModel) -> dict[str, Any]:
    """A model's counters since it was loaded, as ``inference.ModelStatistics`` names its fields."""
    figures, requests = served.figures(), served.requests.totals()
    count = requests.answered
    return {
        "name": served.name,
        "version": served.version,
        "last_inference": figures.last_ms,
        "inference_count": figures.inferences,
        "execution_count": figures.executions,
        "inference_stats": {
            "success": _duration(count, requests.duration_us),
            "fail": _duration(requests.failed),
            "queue": _duration(count, requests.queue_us),
            "compute_input": _duration(count, requests.input_us),
            "compute_infer": _duration(count, requests.infer_us),
            "compute_output": _duration(count, requests.output_us),
            "cache_hit": _duration(),
            "cache_miss": _duration(),
        },
        "batch_stats": [],
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    kind = "STRING" if spec.datatype == "BYTES" else spec.datatype
    return {"name": spec.name, "data_type": f"TYPE_{kind}", "dims": list(spec.shape)}


def _duration(count: int = 0, us: float = 0.0) -> dict[str, int]:
    return {"count": count, "ns": round(us * _NS)}
