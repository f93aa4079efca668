"""External data of an ONNX model: which files hold its tensors, checked before anything reads them.

A model that the caller didn't write names files by path, so a path is only followed when it stays
in the model's own folder: no ``..``, nothing absolute, no links on the way. Only sizes are looked
at, never
bytes: the tensors of a model may be larger than memory.

Specification: https://onnx.ai/onnx/repo-docs/ExternalData.html (``location``, ``offset``,
    ``length``).
"""

from __future__ import annotations

import math
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgefleet.errors import InvalidInputError, InvalidModelError
from edgefleet.protocol.names import check_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import onnx

_RESAVE = (
    "save it again with its data in the same folder: onnx.save(model, path, "
    "save_as_external_data=True, location='weights.bin')"
)

_BITS = {
    "BOOL": 8, "INT8": 8, "INT16": 16, "INT32": 32, "INT64": 64, "INT4": 4, "INT2": 2,
    "UINT8": 8, "UINT16": 16, "UINT32": 32, "UINT64": 64, "UINT4": 4, "UINT2": 2,
    "FLOAT16": 16, "BFLOAT16": 16, "FLOAT": 32, "DOUBLE": 64, "COMPLEX64": 64, "COMPLEX128": 128,
    "FLOAT8E4M3FN": 8, "FLOAT8E4M3FNUZ": 8, "FLOAT8E5M2": 8, "FLOAT8E5M2FNUZ": 8, "FLOAT8E8M0": 8,
    "FLOAT4E2M1": 4,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ExternalFile:
    """A file beside a model that holds some of its tensors.

    Attributes:
        location: path relative to the model's folder, as an engine will look for it.
        path: where it lies now.
        size_bytes: its size.
    """

    location: str
    path: Path
    size_bytes: int


def external_files(model: onnx.ModelProto, path: Path) -> tuple[ExternalFile, ...]:
    """The files that hold the model's external tensors, ordered by location.

    Args:
        model: loaded without external data.
        path: the model's file.

    Raises:
        InvalidModelError: a location leaves the folder, is a link, is missing or too short for a
            tensor in it; the message names model, tensor and location.
    """
    found: dict[str, ExternalFile] = {}
    for tensor in external_tensors(model):
        entries = {entry.key: entry.value for entry in tensor.external_data}
        what = f"{path}: tensor {tensor.name!r}"
        location = _location(entries.get("location", ""), what)
        if location not in found:
            found[location] = _file(path.parent, location, what)
        _check_extent(tensor, entries, found[location], what)
    return tuple(found[location] for location in sorted(found))


def external_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor whose bytes lie outside the file: in the graph, its subgraphs and functions."""
    import onnx

    for tensor in tensors_of(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            yield tensor


def tensors_of(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every constant tensor of a model."""
    yield from _in_graph(model.graph)
    for function in model.functions:
        yield from _in_nodes(function.node)


def nodes_of(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node of a model, those of subgraphs and functions included."""
    yield from _walk(model.graph.node)
    for function in model.functions:
        yield from _walk(function.node)


def _walk(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from _walk(attribute.g.node)
            for graph in attribute.graphs:
                yield from _walk(graph.node)


def _in_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    yield from _in_nodes(graph.node)


def _in_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _in_graph(attribute.g)
            for graph in attribute.graphs:
                yield from _in_graph(graph)


def _location(location: str, what: str) -> str:
    # onnxruntime reads the location */_ORT_MEM_ADDR_/* as an address in memory: no path has a *.
    relative = location.removeprefix("./").replace("*", "\0")
    try:
        return check_path(relative, what="external data location")
    except InvalidInputError as error:
        raise InvalidModelError(f"{what}: {error.message}", cure=_RESAVE) from error


def _file(folder: Path, location: str, what: str) -> ExternalFile:
    step = folder
    info = None
    for part in location.split("/"):
        step /= part
        try:
            info = step.lstat()
        except OSError as error:
            raise InvalidModelError(
                f"{what} lies in {location!r}, which is not there",
                cure=f"put {location} beside the model file, or {_RESAVE}",
            ) from error
        if stat.S_ISLNK(info.st_mode):
            raise InvalidModelError(
                f"{what} lies in {location!r}, which goes through a symbolic link",
                cure="put the file itself beside the model",
            )
    if info is None or not stat.S_ISREG(info.st_mode):
        raise InvalidModelError(
            f"{what} lies in {location!r}, which is no plain file", cure=_RESAVE
        )
    return ExternalFile(location=location, path=step, size_bytes=info.st_size)


def _check_extent(
    tensor: onnx.TensorProto, entries: dict[str, str], file: ExternalFile, what: str
) -> None:
    needed = _size_bytes(tensor, what)
    offset = _whole(entries.get("offset", "0"), "offset", what)
    length = _whole(entries.get("length", str(needed)), "length", what)
    if length != needed:
        raise InvalidModelError(
            f"{what} takes {needed} bytes by its shape, its external data says {length}",
            cure=_RESAVE,
        )
    if offset + length > file.size_bytes:
        raise InvalidModelError(
            f"{what} ends at byte {offset + length} of {file.location!r}, "
            f"which has {file.size_bytes}",
            cure=f"the file is cut short or another model's: copy it again, or {_RESAVE}",
        )


def _whole(text: str, key: str, what: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise InvalidModelError(
            f"{what}: the {key} of its external data is {text[:40]!r}, not a whole number",
            cure=_RESAVE,
        )
    return int(text)


def _size_bytes(tensor: onnx.TensorProto, what: str) -> int:
    import onnx

    kinds = {number: name for name, number in onnx.TensorProto.DataType.items()}
    kind = kinds.get(tensor.data_type, str(tensor.data_type))
    if kind not in _BITS or any(length < 0 for length in tensor.dims):
        raise InvalidModelError(
            f"{what} of type {kind} and shape {list(tensor.dims)} can't lie outside the model",
            cure="export the model again",
        )
    count: int = math.prod(tensor.dims)
    return -(-count * _BITS[kind] // 8)
