"""Floats of 16 bits, by the converter that comes with onnxruntime. Inputs and outputs stay fp32.

Sixteen bits end at 65,504. The converter writes that in place of a larger weight and says nothing,
and a larger activation becomes infinite on the device. So nodes with such weights, and nodes that
write or read such values on calibration samples, keep their 32 bits, and the note says which.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from edgefleet.optimization.artifact import made_onnx
from edgefleet.optimization.external_data import nodes_of, tensors_of
from edgefleet.optimization.makers import FLOATS, NotMade, check, listed, told
from edgefleet.optimization.quantize import name_nodes, quiet
from edgefleet.optimization.ranges import activations, some_feeds

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from edgefleet.optimization.artifact import Artifact
    from edgefleet.optimization.makers import Say, Source
    from edgefleet.optimization.recipes import Recipe
    from edgefleet.optimization.samples import Samples

log = logging.getLogger(__name__)

LARGEST = 65504.0  # of IEEE 754's binary16


def make_fp16(recipe: Recipe, source: Source, to: Path, say: Say) -> Artifact:
    """The model with weights and sums of 16 bits, cast at its inputs and outputs.

    Raises:
        NotMade: this model can't be converted, or has nothing to gain from it.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    check(source.file)
    say("converting")
    model = onnx.load(source.file.path)
    name_nodes(model)
    large = _large_constants(model)
    try:
        with quiet():
            if source.samples is not None:
                large |= _large_values(model, to, source.samples)
            wide = [n.name for n in nodes_of(model) if large & {*n.input, *n.output}]
            given = {node.name for node in model.graph.node}
            model = convert_float_to_float16(model, keep_io_types=True, node_block_list=wide)
    except Exception as error:  # the converter raises anything, and others still ship
        log.info("fp16 of %s failed", source.file.path, exc_info=True)
        raise NotMade(told("onnxruntime's converter", error)) from error
    _join(model, given)
    if not any(t.data_type == onnx.TensorProto.FLOAT16 for t in tensors_of(model)):
        said = f": {listed(wide)} reach beyond {LARGEST:.0f}" if wide else ""
        msg = f"it has no weights that 16 bits can hold{said}"
        raise NotMade(msg)
    made = to / "fp16.onnx"
    made.write_bytes(model.SerializeToString(deterministic=True))
    notes = {"conversion": recipe.about}
    if wide:
        notes[FLOATS] = f"in fp32, for their values reach beyond {LARGEST:.0f}: {listed(wide)}"
    return made_onnx(made, source.file.interface, precision="fp16", notes=notes)


def _join(model: onnx.ModelProto, given: set[str]) -> None:
    """Take out casts to 16 bits and back, which the converter leaves between nodes of 32 bits.

    Values that need 32 bits would become infinite there. Casts of the model as given stay.
    """
    casts = [n for n in model.graph.node if n.op_type == "Cast" and n.name not in given]
    written = {node.output[0]: node for node in casts}
    for node in casts:
        above = written.get(node.input[0])
        if above is not None:
            node.input[0] = above.input[0]
    read = {name for node in nodes_of(model) for name in node.input}
    read |= {value.name for value in model.graph.output}
    for node in casts:
        if node.output[0] not in read:
            model.graph.node.remove(node)


def _large_constants(model: onnx.ModelProto) -> set[str]:
    """Names of the constants with a finite value that 16 bits can't hold."""
    found = {t.name for t in tensors_of(model) if _is_large(t)}
    for node in nodes_of(model):
        if node.op_type == "Constant" and any(_is_large(a.t) for a in node.attribute):
            found.update(node.output)
        if any(_beyond([attribute.f, *attribute.floats]) for attribute in node.attribute):
            found.update(node.output)
    return found - {""}


def _is_large(tensor: onnx.TensorProto) -> bool:
    import onnx
    from onnx import numpy_helper

    floats = tensor.data_type == onnx.TensorProto.FLOAT
    return floats and _beyond(numpy_helper.to_array(tensor))


def _beyond(values: object) -> bool:
    import numpy as np

    array = np.asarray(values)
    return bool((np.isfinite(array) & (np.abs(array) > LARGEST)).any())


def _large_values(model: onnx.ModelProto, to: Path, samples: Samples) -> set[str]:
    """Names of what the model computes beyond 16 bits on some of the samples."""
    file = to / "given.onnx"
    file.write_bytes(model.SerializeToString(deterministic=True))
    try:
        seen = activations(file, some_feeds(samples))
    finally:
        file.unlink()
    found = {name for name, arrays in seen.items() if any(map(_beyond, arrays))}
    given = {n for n, array in samples.arrays.items() if array.dtype == "f4" and _beyond(array)}
    return found | given
