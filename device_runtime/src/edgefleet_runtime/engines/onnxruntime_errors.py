"""What ONNX Runtime's exceptions mean: whose fault it is, in words that tell what to do.

Its exceptions have no common base, and their messages hold source lines; both end here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgefleet.errors import EdgeFleetError, InferenceError, InvalidInputError, InvalidModelError
from edgefleet_runtime.engines.custom_ops import how_to_allow

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet_runtime.engines.base import EngineOptions

# core/graph/model_load_utils.h, core/graph/model.cc and core/graph/graph.cc of onnxruntime
_NEW_OPSET = re.compile(
    r"Opset (\d+) is under development.*support for domain (\S+) is till opset (\d+)", re.DOTALL
)
_NEW_IR = re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)")
_NEW_OPERATOR = re.compile(
    r"No Op registered for (\S+) with domain_version of (\d+)|(\S+)\(-?\d+\) is not a registered"
)
_NO_MODEL = re.compile(r"INVALID_PROTOBUF|No graph was found in the protobuf")
_COPY_AGAIN = "copy it again, whole: this is no ONNX model, or a part of one"
_BRING_LIBRARY = (
    "put the library that has the operator beside the model and name its digest with "
    "--allow-custom-ops, or export without the operator, or upgrade onnxruntime"
)
_MODELS_FAULT = ("InvalidProtobuf", "InvalidGraph", "NoSuchFile", "NoModel")
_CALLERS_FAULT = re.compile(r"INVALID_ARGUMENT : (Invalid rank|Got invalid dimensions|Unexpected)")


def is_models_fault(error: Exception) -> bool:
    """Whether a session couldn't be opened because of the model, whatever the provider."""
    return type(error).__name__ in _MODELS_FAULT or _too_new(error) is not None


def load_error(entry: Path, error: Exception, options: EngineOptions) -> InvalidModelError:
    """The error of a model that can't be opened."""
    reason = _too_new(error)
    if reason is not None:
        if found := _NEW_OPERATOR.search(str(error)):
            cure = how_to_allow(entry, options.custom_ops)
            if cure is None and found[3]:  # of a domain whose operators have no versions here
                cure = _BRING_LIBRARY
            if cure is not None:
                return InvalidModelError(f"{entry.name} can't be opened: {reason}", cure=cure)
        msg = f"{entry.name} is too new for this onnxruntime: {reason}"
        return InvalidModelError(msg, cure="export with an older opset, or upgrade onnxruntime")
    msg = f"onnxruntime can't load {entry.name}: {brief(error)}"
    return InvalidModelError(msg, cure=_COPY_AGAIN if _NO_MODEL.search(str(error)) else None)


def run_error(error: Exception) -> EdgeFleetError:
    """The error of a run that failed."""
    if _CALLERS_FAULT.search(str(error)):
        return InvalidInputError(brief(error))
    return InferenceError(f"the model failed: {brief(error)}")


def brief(error: Exception) -> str:
    """The message without onnxruntime's own prefix and source lines, on one line."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : ", "", str(error))
    text = re.sub(r"/onnxruntime_src/\S+ .*?\) ", "", text, flags=re.DOTALL)
    return " ".join(text.split())[:1000]


def _too_new(error: Exception) -> str | None:
    """What onnxruntime lacks, when that is why it refuses a model."""
    text = str(error)
    if found := _NEW_OPSET.search(text):
        opset, domain, newest = found.groups()
        return f"it uses opset {opset} of {domain}, the newest known here is {newest.rstrip('.')}"
    if found := _NEW_IR.search(text):
        return f"its IR version is {found[1]}, the newest known here is {found[2]}"
    if found := _NEW_OPERATOR.search(text):
        if found[1]:
            return f"it uses the operator {found[1]}, unknown in opset {found[2]}"
        return f"it uses the operator {found[3]}, which is not built in"
    return None
