"""Options that execution providers of ONNX Runtime are opened with: pure functions.

Names and values: https://onnxruntime.ai/docs/execution-providers/, a page a provider. Whatever the
operator gives goes before what is chosen here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgefleet_runtime.engines.base import EngineOptions

_ON_CUDA = {"CUDAExecutionProvider", "TensorrtExecutionProvider"}


def options_for(
    provider: str, options: EngineOptions, kept: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The options that a provider is opened with.

    Args:
        provider: its name.
        options: of the operator.
        kept: where the provider keeps what it builds.
    """
    given = dict(options.provider_options) if options.providers[:1] == (provider,) else {}
    return {
        **_chosen(provider, options.memory_max_bytes, options.engine_cache),
        **(kept or {}),
        **given,
    }


def gpu_of(providers: tuple[str, ...], settings: Mapping[str, Mapping[str, str]]) -> int | None:
    """The GPU whose memory a session takes tensors from; None for one that runs on the host.

    Args:
        providers: that the session has, the one in use first.
        settings: options by provider, read back from the session.
    """
    if not providers or providers[0] not in _ON_CUDA:
        return None
    return int(settings.get(providers[0], {}).get("device_id", 0))


def _chosen(provider: str, memory_max_bytes: int, cache: Path | None) -> dict[str, str]:
    limit = str(memory_max_bytes) if memory_max_bytes else None
    match provider:
        case "CUDAExecutionProvider":
            # Growing by powers of two takes up to twice what is needed, of memory that a Jetson
            # shares with everything else.
            grows = {"arena_extend_strategy": "kSameAsRequested"}
            return {**grows, "gpu_mem_limit": limit} if limit else grows
        case "TensorrtExecutionProvider":
            return {"trt_max_workspace_size": limit} if limit else {}
        case "OpenVINOExecutionProvider":
            return {"cache_dir": str(cache / "openvino")} if cache else {}
        case "CoreMLExecutionProvider":
            # The older NeuralNetwork format knows fewer operators.
            return {"ModelFormat": "MLProgram", "MLComputeUnits": "ALL"}
        case _:
            return {}  # QNN's own choice is the NPU ('htp')
