"""int8 by onnxruntime's own quantizer: options that suit every CPU, and what needs mending.

Weights are quantized to 7 bits (``reduce_range``) and activations are unsigned. CPUs with AVX2 but
without VNNI add pairs of products in 16 bits, which overflow with 8-bit weights: the accuracy
measured on one CPU would not be the accuracy on the other. With 7 bits every CPU computes the same
sums (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "When and why
do I need to try U8U8"). Signed activations are for ARM and TensorRT, and get weights of 8 bits.
"""

from __future__ import annotations

import contextlib
import io
import logging
from typing import TYPE_CHECKING

from edgefleet.optimization.artifact import made_onnx
from edgefleet.optimization.external_data import nodes_of
from edgefleet.optimization.makers import NotMade, check, told
from edgefleet.optimization.ranges import NOTHING, calibrate, calibration_method

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import onnx

    from edgefleet.optimization.artifact import Artifact
    from edgefleet.optimization.makers import Say, Source
    from edgefleet.optimization.onnx_file import OnnxFile
    from edgefleet.optimization.ranges import Ranges
    from edgefleet.optimization.recipes import Recipe

log = logging.getLogger(__name__)

MIN_OPSET = 13  # DequantizeLinear takes an axis from here on; older models are converted first
PREPARED = "prepared.onnx"


def make_static(recipe: Recipe, source: Source, to: Path, say: Say) -> Artifact:
    """An int8 model whose ranges are set by calibration data.

    Raises:
        NotMade: this model can't be quantized.
    """
    _check(source.file)
    say("preparing")
    prepared = prepare(source.file, to)
    ranges = calibrated(prepared, recipe, source, to, say)
    return quantized(prepared, ranges, recipe, source, to)


def make_dynamic(recipe: Recipe, source: Source, to: Path, say: Say) -> Artifact:
    """A model with weights of int8 that finds the ranges of its activations at every run.

    It needs no calibration data. Weights are unsigned: onnxruntime's integer convolution took no
    others for long, and a device's may be old.

    Raises:
        NotMade: this model can't be quantized.
    """
    _check(source.file)
    say("preparing")
    prepared, made = prepare(source.file, to), to / "int8.onnx"
    with _quantizer():
        from onnxruntime.quantization import QuantType, quantize_dynamic

        excluded = excluded_nodes(prepared, source.exclude)
        quantize_dynamic(
            str(prepared),
            str(made),
            weight_type=QuantType.QUInt8,
            per_channel=True,
            reduce_range=True,
            extra_options={"EnableSubgraph": True},
            # It first writes each Gemm as a MatMul of that name.
            nodes_to_exclude=[*excluded, *(f"{name}_MatMul" for name in excluded)],
        )
    return _finished(made, recipe, source)


def prepare(file: OnnxFile, to: Path) -> Path:
    """The model as the quantizer takes it, in a file of the folder ``to``.

    Raises:
        NotMade: onnxruntime can't prepare it.
    """
    prepared = to / PREPARED
    with _quantizer():
        prepared_model(file, prepared)
    return prepared


def prepared_beside(quantized: Artifact, file: OnnxFile) -> Path:
    """The prepared model that a candidate was quantized from: made anew where it is gone.

    Raises:
        NotMade: onnxruntime can't prepare it.
    """
    found = quantized.path.with_name(PREPARED)
    return found if found.is_file() else prepare(file, found.parent)


def calibrated(prepared: Path, recipe: Recipe, source: Source, to: Path, say: Say) -> Ranges:
    """Ranges of a prepared model's activations, in a file of the folder ``to``.

    Raises:
        NotMade: there is no calibration data, or the model can't be calibrated.
    """
    samples = source.samples
    if samples is None:
        msg = "needs calibration data"
        raise NotMade(msg)
    seen = 0

    def progress(count: int) -> None:
        nonlocal seen
        seen += count
        say(f"calibrating, {seen} of {samples.count} samples")

    with _quantizer():
        return calibrate(prepared, recipe, samples, to, progress)


def quantized(prepared: Path, ranges: Ranges, recipe: Recipe, source: Source, to: Path) -> Artifact:
    """An int8 model made of one that is prepared and calibrated, in the folder ``to``.

    Raises:
        NotMade: this model can't be quantized.
    """
    made = to / "int8.onnx"
    with _quantizer():
        _quantize(prepared, ranges, made, recipe, source.exclude)
    return _finished(made, recipe, source, ranges.some)


@contextlib.contextmanager
def _quantizer() -> Iterator[None]:
    """Turn what the quantizer raises, which may be anything, into a reason: others still ship."""
    try:
        with quiet():
            yield
    except NotMade:
        raise
    except Exception as error:
        log.info("onnxruntime's quantizer failed", exc_info=True)
        raise NotMade(told("onnxruntime's quantizer", error)) from error


def _check(file: OnnxFile) -> None:
    check(file)
    if file.custom_domains:
        msg = f"operators of {', '.join(file.custom_domains)} can't be run here"
        raise NotMade(msg)


def _finished(made: Path, recipe: Recipe, source: Source, more: str = "") -> Artifact:
    import onnx

    model = onnx.ModelProto.FromString(made.read_bytes())
    if not any("quantizel" in node.op_type.lower() for node in nodes_of(model)):
        raise NotMade(NOTHING)
    _clean(model)
    made.write_bytes(model.SerializeToString(deterministic=True))
    notes = {"quantization": recipe.about + more}
    return made_onnx(made, source.file.interface, precision="int8", notes=notes)


def prepared_model(file: OnnxFile, to: Path) -> None:
    """Write the model as the quantizer takes it: every node named, shapes told, biases flat."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    whole = onnx.load(file.path)  # in one piece: the optimizer loses the way to external data
    _keep_constants(whole)
    if file.opset < MIN_OPSET:
        whole = onnx.version_converter.convert_version(whole, MIN_OPSET)
    source = to.with_name("source.onnx")
    onnx.save(whole, source)
    del whole
    # Symbolic shape inference would need sympy, and serves transformers with shapes that vary.
    quant_pre_process(str(source), str(to), skip_symbolic_shape=True)
    model = onnx.ModelProto.FromString(to.read_bytes())
    _flatten_biases(model)
    _forget_shapes(model)
    name_nodes(model)
    to.write_bytes(model.SerializeToString(deterministic=True))


def _quantize(
    prepared: Path, ranges: Ranges, to: Path, recipe: Recipe, exclude: tuple[str, ...]
) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    signed = recipe.activations == "signed"
    quantize_static(
        str(prepared),
        str(to),
        calibration_cache_path=ranges.path,
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8 if signed else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=not signed,
        calibrate_method=calibration_method(ranges.method),
        nodes_to_exclude=excluded_nodes(prepared, exclude),
        extra_options={"ActivationSymmetric": signed, "WeightSymmetric": True},
    )


def excluded_nodes(path: Path, exclude: tuple[str, ...]) -> list[str]:
    """Names of the nodes that stay in floats: those named, and of ``op:TYPE`` all of that type.

    Raises:
        NotMade: the model has no such node.
    """
    import onnx

    if not exclude:
        return []
    nodes = onnx.load(path, load_external_data=False).graph.node
    found: list[str] = []
    for name in exclude:
        matching = [n.name for n in nodes if name in {n.name, f"op:{n.op_type}"}]
        if not matching:
            msg = f"it has no node {name!r} to leave in floats"
            raise NotMade(msg)
        found += matching
    return found


def _keep_constants(model: onnx.ModelProto) -> None:
    """Take constants off the list of inputs, where old files have them and callers may change them.

    https://github.com/onnx/onnx/blob/main/docs/IR.md: from format 4 on they need not be listed.
    """
    model.ir_version = max(model.ir_version, 4)
    constants = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(kept)


def _flatten_biases(model: onnx.ModelProto) -> None:
    """Give Gemm's constant biases of shape [1, n] the shape [n], which broadcasts alike.

    The quantizer takes a bias by its first axis and fails on [1, n], which skl2onnx's networks have
    (https://github.com/microsoft/onnxruntime/issues/24815).
    """
    biases = {
        node.input[2]
        for node in model.graph.node
        if node.op_type == "Gemm" and len(node.input) > 2 and node.input[2]
    }
    others = {
        name
        for node in model.graph.node
        for place, name in enumerate(node.input)
        if node.op_type != "Gemm" or place != 2
    }
    for tensor in model.graph.initializer:
        if tensor.name in biases - others and len(tensor.dims) == 2 and tensor.dims[0] == 1:
            length = tensor.dims[1]
            del tensor.dims[:]
            tensor.dims.append(length)


def _forget_shapes(model: onnx.ModelProto) -> None:
    """Drop what is noted of constants that were folded: their own shape says it.

    The quantizer turns a Gemm's weights and not the note, and then fails on the difference.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.value_info if value.name not in constants]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)


def name_nodes(model: onnx.ModelProto) -> None:
    """Give every node a name that no other has, by which it can be left out."""
    seen: set[str] = set()
    for place, node in enumerate(nodes_of(model)):
        if not node.name or node.name in seen:
            node.name = f"{node.name or node.op_type}_{place}"
        seen.add(node.name)


def _clean(model: onnx.ModelProto) -> None:
    """Drop what the tools left and other engines may stumble over: unused domains, notes."""
    used = {node.domain for node in nodes_of(model)} | {"", "ai.onnx"}
    kept = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    del model.metadata_props[:]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the quantizer from printing, and from configuring the caller's root logger."""
    root, guard = logging.getLogger(), logging.NullHandler()
    root.addHandler(guard)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.removeHandler(guard)
