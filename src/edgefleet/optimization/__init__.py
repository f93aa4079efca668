"""From a trained model to a bundle that suits its devices, with proof of what that cost.

`optimize` makes candidates (fp32, int8), judges each on the caller's own data and packs what
passed; `bundle_from_onnx` packs one file as it is. The libraries that do the work (numpy, onnx,
onnxruntime) are imported when a function needs them, never with this package.

Modules, from what others build on: ``libraries``, ``external_data``, ``onnx_file`` (what a file
says of itself), ``samples`` (the caller's arrays), ``session`` (running a model here),
``self_test``, ``reference`` (sketches), ``packaging``, ``quantize``, ``gate`` and ``choice``
(pure), ``trials``, ``report``, ``bundle``, ``run``.
"""

from edgefleet.optimization.bundle import Bundle
from edgefleet.optimization.onnx_file import OnnxFile
from edgefleet.optimization.packaging import bundle_from_onnx
from edgefleet.optimization.report import CandidateRow, OptimizationReport, TargetRow
from edgefleet.optimization.run import optimize

__all__ = [
    "Bundle",
    "CandidateRow",
    "OnnxFile",
    "OptimizationReport",
    "TargetRow",
    "bundle_from_onnx",
    "optimize",
]
