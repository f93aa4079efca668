"""Static int8 by onnxruntime's own quantizer: options that suit every CPU, and what needs mending.

Weights are quantized to 7 bits (``reduce_range``) and activations are unsigned. CPUs with AVX2 but
without VNNI add pairs of products in 16 bits, which overflow with 8-bit weights: the accuracy
measured on one CPU would not be the accuracy on the other. With 7 bits every CPU computes the same
sums (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "When and why
do I need to try U8U8").
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from edgefleet.optimization.external_data import nodes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import onnx

    from edgefleet.optimization.onnx_file import OnnxFile
    from edgefleet.optimization.samples import Feed, Samples

log = logging.getLogger(__name__)

MIN_OPSET = 13  # DequantizeLinear takes an axis from here on; older models are converted first
MAX_BYTES = 1_800_000_000  # the quantizer works on one protobuf, which ends at 2 GiB
MAX_REASON = 300  # characters of a quantizer's error in a report

RECIPE = "static, QDQ, uint8 activations, 7-bit weights per channel, MinMax"
"""What lineage says of an int8 variant."""


def refusal(file: OnnxFile, samples: Samples | None) -> str | None:
    """Why the quantizer cannot take this model; None when it can."""
    if samples is None:
        return "needs calibration data: give calibration="
    if file.precision != "fp32":
        return f"the model given is {file.precision}: give the fp32 one"
    if file.size_bytes > MAX_BYTES:
        return f"{file.size_bytes} bytes are more than the quantizer takes ({MAX_BYTES})"
    if file.custom_domains:
        return f"operators of {', '.join(file.custom_domains)} can't be run here"
    return None


def quantize(
    file: OnnxFile,
    samples: Samples,
    to: Path,
    *,
    progress: Callable[[int], object] | None = None,
) -> str | None:
    """Write an int8 model to ``to``, or return why this model can't be quantized.

    The same model and samples give the same bytes. ``to`` lies in a folder that the caller
    removes: the quantizer leaves files beside it.

    Args:
        file: a model for which `refusal` gives None.
        samples: calibration data.
        to: the file to write.
        progress: called with the number of samples of each calibration step.
    """
    import onnx

    prepared = to.with_name("prepared.onnx")
    try:
        with _handled_root_logger():
            _prepare(file, prepared)
            _quantize(prepared, samples, to, progress)
    except Exception as error:  # the quantizer raises anything, and fp32 still ships
        log.info("int8 of %s failed", file.path, exc_info=True)
        return f"onnxruntime's quantizer failed: {type(error).__name__}: {error}"[:MAX_REASON]
    model = onnx.ModelProto.FromString(to.read_bytes())
    if not any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        return "it has no operator that gains from int8"
    _clean(model)
    to.write_bytes(model.SerializeToString(deterministic=True))
    return None


def _prepare(file: OnnxFile, to: Path) -> None:
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
    to.write_bytes(model.SerializeToString(deterministic=True))


def _quantize(
    prepared: Path,
    samples: Samples,
    to: Path,
    progress: Callable[[int], object] | None,
) -> None:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc] # onnxruntime ships no types
        def __init__(self) -> None:
            self._feeds: Iterator[Feed] = samples.feeds()

        def get_next(self) -> Feed | None:
            feed = next(self._feeds, None)
            if feed is not None and progress is not None:
                progress(len(next(iter(feed.values()))) if not samples.bare else 1)
            return feed

    quantize_static(
        str(prepared),
        str(to),
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=True,
        calibrate_method=CalibrationMethod.MinMax,
    )


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


def _clean(model: onnx.ModelProto) -> None:
    """Drop what the tools left and other engines may stumble over: unused domains, notes."""
    used = {node.domain for node in nodes_of(model)} | {"", "ai.onnx"}
    kept = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    del model.metadata_props[:]


@contextlib.contextmanager
def _handled_root_logger() -> Iterator[None]:
    """Keep ``logging.warning()`` of the quantizer from configuring the caller's root logger."""
    root, guard = logging.getLogger(), logging.NullHandler()
    root.addHandler(guard)
    try:
        yield
    finally:
        root.removeHandler(guard)
