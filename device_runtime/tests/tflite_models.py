"""Small TensorFlow Lite models for tests, written with the schema's own flatbuffer classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import flatbuffers
import numpy as np
import tflite

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def _vector(builder: Any, items: Sequence[int], start: Any, *, offsets: bool) -> Any:
    start(builder, len(items))
    for item in reversed(items):
        builder.PrependUOffsetTRelative(item) if offsets else builder.PrependInt32(item)
    return builder.EndVector()


def add(  # noqa: PLR0915 - one file, in its order
    path: Path,
    addend: float,
    *,
    length: int = 4,
    output: str = "y",
    version: int = 1,
    custom: str | None = None,
) -> Path:
    """``x`` FP32[1, length] to ``output`` = x + addend.

    By a version of the operator ADD, or by a custom operator.
    """
    b = flatbuffers.Builder(1024)
    text = {name: b.CreateString(name) for name in ("x", "k", "serving_default", "main")}
    text["y"] = b.CreateString(output)
    custom_code = b.CreateString(custom or "")

    data = b.CreateNumpyVector(np.array([addend], np.float32).view(np.uint8))
    tflite.BufferStart(b)
    buffers = [tflite.BufferEnd(b)]
    tflite.BufferStart(b)
    tflite.BufferAddData(b, data)
    buffers.append(tflite.BufferEnd(b))

    tensors = []
    for name, shape, buffer in (("x", [1, length], 0), ("k", [1], 1), ("y", [1, length], 0)):
        lengths = _vector(b, shape, tflite.TensorStartShapeVector, offsets=False)
        tflite.TensorStart(b)
        tflite.TensorAddShape(b, lengths)
        tflite.TensorAddType(b, tflite.TensorType.FLOAT32)
        tflite.TensorAddBuffer(b, buffer)
        tflite.TensorAddName(b, text[name])
        tensors.append(tflite.TensorEnd(b))

    tflite.AddOptionsStart(b)
    options = tflite.AddOptionsEnd(b)
    sources = _vector(b, [0, 1], tflite.OperatorStartInputsVector, offsets=False)
    results = _vector(b, [2], tflite.OperatorStartOutputsVector, offsets=False)
    tflite.OperatorStart(b)
    tflite.OperatorAddOpcodeIndex(b, 0)
    tflite.OperatorAddInputs(b, sources)
    tflite.OperatorAddOutputs(b, results)
    tflite.OperatorAddBuiltinOptionsType(b, tflite.BuiltinOptions.AddOptions)
    tflite.OperatorAddBuiltinOptions(b, options)
    operator = tflite.OperatorEnd(b)

    found = _vector(b, tensors, tflite.SubGraphStartTensorsVector, offsets=True)
    inputs = _vector(b, [0], tflite.SubGraphStartInputsVector, offsets=False)
    outputs = _vector(b, [2], tflite.SubGraphStartOutputsVector, offsets=False)
    operators = _vector(b, [operator], tflite.SubGraphStartOperatorsVector, offsets=True)
    tflite.SubGraphStart(b)
    tflite.SubGraphAddTensors(b, found)
    tflite.SubGraphAddInputs(b, inputs)
    tflite.SubGraphAddOutputs(b, outputs)
    tflite.SubGraphAddOperators(b, operators)
    tflite.SubGraphAddName(b, text["main"])
    graph = tflite.SubGraphEnd(b)

    maps = []
    for name, place in (("x", 0), ("y", 2)):
        tflite.TensorMapStart(b)
        tflite.TensorMapAddName(b, text[name])
        tflite.TensorMapAddTensorIndex(b, place)
        maps.append(tflite.TensorMapEnd(b))
    takes = _vector(b, maps[:1], tflite.SignatureDefStartInputsVector, offsets=True)
    gives = _vector(b, maps[1:], tflite.SignatureDefStartOutputsVector, offsets=True)
    tflite.SignatureDefStart(b)
    tflite.SignatureDefAddInputs(b, takes)
    tflite.SignatureDefAddOutputs(b, gives)
    tflite.SignatureDefAddSignatureKey(b, text["serving_default"])
    tflite.SignatureDefAddSubgraphIndex(b, 0)
    signature = tflite.SignatureDefEnd(b)

    tflite.OperatorCodeStart(b)
    kind = tflite.BuiltinOperator.CUSTOM if custom else tflite.BuiltinOperator.ADD
    tflite.OperatorCodeAddDeprecatedBuiltinCode(b, kind)
    tflite.OperatorCodeAddBuiltinCode(b, kind)
    tflite.OperatorCodeAddCustomCode(b, custom_code)
    tflite.OperatorCodeAddVersion(b, version)
    code = tflite.OperatorCodeEnd(b)

    codes = _vector(b, [code], tflite.ModelStartOperatorCodesVector, offsets=True)
    graphs = _vector(b, [graph], tflite.ModelStartSubgraphsVector, offsets=True)
    stored = _vector(b, buffers, tflite.ModelStartBuffersVector, offsets=True)
    signatures = _vector(b, [signature], tflite.ModelStartSignatureDefsVector, offsets=True)
    tflite.ModelStart(b)
    tflite.ModelAddVersion(b, 3)
    tflite.ModelAddOperatorCodes(b, codes)
    tflite.ModelAddSubgraphs(b, graphs)
    tflite.ModelAddBuffers(b, stored)
    tflite.ModelAddSignatureDefs(b, signatures)
    b.Finish(tflite.ModelEnd(b), file_identifier=b"TFL3")
    path.write_bytes(b.Output())
    return path
