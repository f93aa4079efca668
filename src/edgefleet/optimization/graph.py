"""The model's graph, simplified ahead of time by onnxruntime: folded constants, merged nodes.

Only what suits any engine is done (onnxruntime's basic level): the nodes that its higher levels
write are its own. A device's engine does the same when it loads the model, so this gains time to
load and bytes, seldom time to run.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from edgefleet.optimization.artifact import made_onnx
from edgefleet.optimization.makers import NotMade, told

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet.optimization.artifact import Artifact
    from edgefleet.optimization.makers import Say, Source
    from edgefleet.optimization.recipes import Recipe

log = logging.getLogger(__name__)

_FATAL_ONLY = 4


def make_graph(recipe: Recipe, source: Source, to: Path, say: Say) -> Artifact:
    """The model with its graph simplified.

    Raises:
        NotMade: it can't be loaded, or holds more than one file may.
    """
    import onnx
    import onnxruntime

    made = to / "graph.onnx"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(made)
    say("simplifying")
    try:
        onnxruntime.InferenceSession(
            str(source.file.path), options, providers=["CPUExecutionProvider"]
        )
        model = onnx.load(made)
    except Exception as error:  # its errors share no base class but Exception
        log.info("%s of %s failed", recipe.name, source.file.path, exc_info=True)
        raise NotMade(told("onnxruntime", error)) from error
    made.write_bytes(model.SerializeToString(deterministic=True))
    notes = {"conversion": recipe.about}
    return made_onnx(made, source.file.interface, precision=recipe.precision, notes=notes)
