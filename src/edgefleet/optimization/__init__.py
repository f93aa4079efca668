"""From a trained model to a bundle that suits its devices, with proof of what that cost.

`optimize` makes candidates by `recipes`, judges each on the caller's own data and packs what
passed; `bundle_from_onnx` packs one file as it is. The libraries that do the work (numpy, onnx,
onnxruntime) are imported when a function needs them, never with this package; its own modules when
a name is first used, so that the process that weighs a candidate loads a few of them only.

Modules, from what others build on: ``libraries``, ``external_data``, ``onnx_file`` (what a file
says of itself), ``samples`` (the caller's arrays), ``artifact`` (a candidate's files), ``session``
and ``sessions`` (running one here), ``self_test``, ``reference`` (sketches), ``packaging``;
``recipes`` (what can be made, as data), ``makers`` (who makes it) and a module a tool
(``quantize``, ``sensitivity``, ``float16``, ``graph``, ``pruning``, ``openvino``, ``litert``);
``elsewhere``, ``checking`` and ``adding`` (what vendors' tools made);
``evaluation``, ``classifying``, ``fingerprint`` with ``content`` and ``reach`` (what a function
computes with), ``closeness``, ``cache`` and ``results`` (what earlier calls found), ``footprint``,
``gate`` and ``choice`` (pure), ``trials``, ``report``, ``plot``, ``summary``, ``shipping``,
``bundle``, ``run``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgefleet.optimization.bundle import Bundle
    from edgefleet.optimization.classifying import classification
    from edgefleet.optimization.evaluation import Scores
    from edgefleet.optimization.onnx_file import OnnxFile
    from edgefleet.optimization.packaging import bundle_from_onnx
    from edgefleet.optimization.recipes import Recipe
    from edgefleet.optimization.report import (
        CandidateRow,
        OptimizationReport,
        TargetRow,
        load_report,
        report_of,
    )
    from edgefleet.optimization.run import optimize

_HOMES = {
    "Bundle": "bundle",
    "CandidateRow": "report",
    "OnnxFile": "onnx_file",
    "OptimizationReport": "report",
    "Recipe": "recipes",
    "Scores": "evaluation",
    "TargetRow": "report",
    "bundle_from_onnx": "packaging",
    "classification": "classifying",
    "load_report": "report",
    "optimize": "run",
    "report_of": "report",
}

__all__ = [
    "Bundle",
    "CandidateRow",
    "OnnxFile",
    "OptimizationReport",
    "Recipe",
    "Scores",
    "TargetRow",
    "bundle_from_onnx",
    "classification",
    "load_report",
    "optimize",
    "report_of",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
