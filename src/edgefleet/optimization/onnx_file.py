"""What an ONNX file says of itself, read without its external data, refused early where unfit.

A file that passes here can be packed: every problem that would otherwise show on a device (an opset
that the runtime can't load, outputs that no tensor can hold, data files that lie elsewhere) is an
error here, with its cure.
"""

from __future__ import annotations

import logging
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.errors import InvalidModelError
from edgefleet.optimization.external_data import ExternalFile, external_files, nodes_of, tensors_of
from edgefleet.optimization.libraries import require
from edgefleet.protocol.bundle import Datatype, Interface, TensorSpec
from edgefleet.protocol.target import ORT_IR_CEILING, ORT_OPSET_CEILING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx

log = logging.getLogger(__name__)

MAX_PROTOBUF_BYTES = (2 << 30) - 1  # protobuf's own limit on a message

STANDARD_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Operator domains that onnxruntime brings along."""

_DATATYPES: dict[str, Datatype] = {
    "BOOL": "BOOL",
    "UINT8": "UINT8",
    "UINT16": "UINT16",
    "UINT32": "UINT32",
    "UINT64": "UINT64",
    "INT8": "INT8",
    "INT16": "INT16",
    "INT32": "INT32",
    "INT64": "INT64",
    "FLOAT16": "FP16",
    "FLOAT": "FP32",
    "DOUBLE": "FP64",
    "BFLOAT16": "BF16",
    "STRING": "BYTES",
}
_PRECISIONS = {"FLOAT": "fp32", "FLOAT16": "fp16", "DOUBLE": "fp64", "BFLOAT16": "bf16"}
_WEIGHT_BYTES = {"FLOAT": 4, "FLOAT16": 2, "DOUBLE": 8, "BFLOAT16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxFile:
    """What is known of an ONNX file.

    Attributes:
        path: the file.
        interface: inputs and outputs, in the file's order; initializers are no inputs.
        opset: version of the default domain.
        ir_version: version of the file format.
        producer: the tool that wrote it, with its version; empty where the file doesn't say.
        domains: operator domains in use and their versions; the default domain is ``ai.onnx``.
        custom_domains: those of them that onnxruntime doesn't bring along: a device needs a
            library.
        external: files beside it that hold tensors.
        precision: ``fp32``, ``fp16``, ``int8``, ``fp64``, ``bf16`` or ``int4``: what most weights
            are.
        size_bytes: of the file and its external files together.
    """

    path: Path
    interface: Interface
    opset: int
    ir_version: int
    producer: str
    domains: dict[str, int]
    custom_domains: tuple[str, ...]
    external: tuple[ExternalFile, ...]
    precision: str
    size_bytes: int


def inspect(path: str | os.PathLike[str]) -> OnnxFile:
    """Read what an ONNX file says of itself. Its external data is checked, not read.

    Raises:
        InvalidModelError: it isn't an ONNX file, is cut short, is a link, is too new for the
            runtime, has inputs or outputs that are no tensors, or its external data isn't as it
            should be.
        MissingExtraError: onnx isn't installed.
    """
    require("onnx")
    file = Path(path)
    data = _read(file)
    model = _parse(data, file)
    size_bytes = len(data)
    del data
    domains = {opset.domain or "ai.onnx": opset.version for opset in model.opset_import}
    _check_versions(model.ir_version, domains, file)
    external = external_files(model, file)
    used = {node.domain or "ai.onnx" for node in nodes_of(model)}
    own = {function.domain for function in model.functions}
    return OnnxFile(
        path=file,
        interface=_interface(model, file),
        opset=domains["ai.onnx"],
        ir_version=model.ir_version,
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        domains=domains,
        custom_domains=tuple(sorted(used - STANDARD_DOMAINS - own)),
        external=external,
        precision=_precision(model),
        size_bytes=size_bytes + sum(part.size_bytes for part in external),
    )


def _read(path: Path) -> bytes:
    try:
        info = path.lstat()
    except OSError as error:
        raise InvalidModelError(f"there is no model file {path}", cure="check the path") from error
    if stat.S_ISLNK(info.st_mode):
        raise InvalidModelError(
            f"{path} is a symbolic link", cure="give the file that it points to"
        )
    if not stat.S_ISREG(info.st_mode):
        raise InvalidModelError(f"{path} is no file", cure="give the path of an .onnx file")
    if info.st_size == 0:
        raise InvalidModelError(f"{path} is empty", cure="export the model again")
    if info.st_size > MAX_PROTOBUF_BYTES:
        raise InvalidModelError(
            f"{path} has {info.st_size} bytes; an ONNX file ends at 2 GiB",
            cure="save it with onnx.save(model, path, save_as_external_data=True)",
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidModelError(f"cannot read {path}: {error}", cure="check its mode") from error


def _parse(data: bytes, path: Path) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    cure = _ELSEWHERE.get(path.suffix.lower(), "export or copy it again: it may be cut short")
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise InvalidModelError(f"{path} is not an ONNX file", cure=cure) from error
    # Bytes of another kind may parse as a message of unknown fields, and a file cut at a field's
    # end parses.
    if not model.ir_version or not model.opset_import or not model.graph.output:
        raise InvalidModelError(f"{path} is not a whole ONNX model", cure=cure)
    return model


_FROM_PYTORCH = "export it where it was trained, with torch.onnx.export"
_FROM_TENSORFLOW = "convert it with tf2onnx"
_PICKLED = "nothing is unpickled here: give the fitted estimator to edgefleet.convert in Python"
_ADDED = "optimize the ONNX file that it was made of, and add this one with Bundle.add_variant"
_ELSEWHERE = {
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".safetensors"), _FROM_PYTORCH),
    **dict.fromkeys((".h5", ".keras", ".pb"), _FROM_TENSORFLOW),
    **dict.fromkeys((".pkl", ".pickle", ".joblib"), _PICKLED),
    **dict.fromkeys((".tflite", ".engine", ".plan", ".xml"), _ADDED),
}
"""Endings of files that people bring, and how an ONNX file comes of them."""


def _check_versions(ir_version: int, domains: dict[str, int], path: Path) -> None:
    opset = domains.get("ai.onnx")
    if opset is None:
        raise InvalidModelError(
            f"{path} imports no opset of the default domain", cure="export it with opset 17"
        )
    if opset > ORT_OPSET_CEILING:
        raise InvalidModelError(
            f"{path} uses opset {opset}; the runtime loads up to {ORT_OPSET_CEILING}",
            cure=f"export it with opset {ORT_OPSET_CEILING} or lower, or "
            f"onnx.version_converter.convert_version(model, {ORT_OPSET_CEILING})",
        )
    if ir_version > ORT_IR_CEILING:
        raise InvalidModelError(
            f"{path} is written in ONNX file format {ir_version}; "
            f"the runtime loads up to {ORT_IR_CEILING}",
            cure=f"set model.ir_version = {ORT_IR_CEILING} and save it again",
        )


def _interface(model: onnx.ModelProto, path: Path) -> Interface:
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {sparse.values.name for sparse in model.graph.sparse_initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    outputs: Iterable[onnx.ValueInfoProto] = model.graph.output
    if not inputs:
        raise InvalidModelError(f"{path} has no input", cure="export it with its inputs")
    if any(_rank_unknown(value) for value in outputs):
        outputs = _inferred_outputs(model)
    return Interface(
        inputs=tuple(_spec(value, "input", path) for value in inputs),
        outputs=tuple(_spec(value, "output", path) for value in outputs),
    )


def _rank_unknown(value: onnx.ValueInfoProto) -> bool:
    return value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape")


def _inferred_outputs(model: onnx.ModelProto) -> Iterable[onnx.ValueInfoProto]:
    import onnx

    try:
        model = onnx.shape_inference.infer_shapes(model)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        log.debug("shape inference failed", exc_info=True)  # what lacks a shape is named later
    outputs: Iterable[onnx.ValueInfoProto] = model.graph.output
    return outputs


def _spec(value: onnx.ValueInfoProto, role: str, path: Path) -> TensorSpec:
    import onnx

    what = f"{path}: {role} {value.name!r}"
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        name = (kind or "untyped").removesuffix("_type")
        raise InvalidModelError(
            f"{what} is a {name}, and a device serves tensors only",
            cure="export with options={'zipmap': False} if it comes from skl2onnx, "
            "or leave that output out",
        )
    tensor = value.type.tensor_type
    elements = onnx.TensorProto.DataType.Name(tensor.elem_type)
    datatype = _DATATYPES.get(elements)
    if datatype is None:
        raise InvalidModelError(
            f"{what} holds {elements} elements, which the inference protocol has no name for",
            cure="cast it to float32 inside the model",
        )
    if not tensor.HasField("shape"):
        raise InvalidModelError(
            f"{what} has no shape, not even a number of dimensions",
            cure="declare it, with None for any length, and export again",
        )
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else -1
        for dim in tensor.shape.dim
    )
    return TensorSpec(name=value.name, datatype=datatype, shape=shape)


def _precision(model: onnx.ModelProto) -> str:
    import onnx

    operators = {node.op_type for node in nodes_of(model)}
    if any(
        name == "QuantizeLinear" or name.startswith("QLinear") or name.endswith("Integer")
        for name in operators
    ):
        return "int8"
    if "MatMulNBits" in operators:
        return "int4"
    elements: dict[str, int] = {}
    for tensor in tensors_of(model):
        kind = onnx.TensorProto.DataType.Name(tensor.data_type)
        if kind in _WEIGHT_BYTES:
            count = 1
            for length in tensor.dims:
                count *= length
            elements[kind] = elements.get(kind, 0) + count
    if not elements:
        return "fp32"
    return _PRECISIONS[max(sorted(elements), key=lambda kind: elements[kind])]
