"""Bundle: one model version, immutable, addressed by the digest of an OCI index.

The index names one manifest a variant. A manifest is a ModelPack artifact: its config is
ModelPack's closed configuration, its layers are the variant's files, raw, one blob each, and one
layer of our own media type (`Details`) holds what that configuration has no field for. What a
device needs to choose a variant is in the annotations of the index, so that it fetches two small
documents before any weights.

Specifications: OCI image-spec v1.1 (index, manifest, image layout), ModelPack model-spec (media
types and ``org.cncf.model.filepath``). This module does no IO.
"""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Annotated, Any, Literal

import msgspec

from edgefleet.errors import DocumentError, EdgeFleetError, InvalidInputError
from edgefleet.protocol.digest import Digest
from edgefleet.protocol.documents import Document, decode, parse, refuse_unknown
from edgefleet.protocol.names import check_path

INDEX_MEDIA_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT_TYPE = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_MEDIA_TYPE = "application/vnd.cncf.model.config.v1+json"
WEIGHT_MEDIA_TYPE = "application/vnd.cncf.model.weight.v1.raw"
DETAILS_MEDIA_TYPE = "application/vnd.edgefleet.model.details.v1+json"
FILEPATH = "org.cncf.model.filepath"

VARIANT_KEY = "dev.edgefleet.variant"
PRECISION_KEY = "dev.edgefleet.precision"
FORMAT_KEY = "dev.edgefleet.format"
TARGETS_KEY = "dev.edgefleet.targets"
BYTES_KEY = "dev.edgefleet.bytes"
OPSET_KEY = "dev.edgefleet.opset"
REQUIRES_KEY = "dev.edgefleet.requires"

MAX_INDEX_BYTES = 1 << 20
MAX_MANIFEST_BYTES = 1 << 20
MAX_CONFIG_BYTES = 1 << 20
MAX_DETAILS_BYTES = 32 << 20
MAX_VARIANTS = 64
MAX_FILES = 4096

Size = Annotated[int, msgspec.Meta(ge=0, le=1 << 50)]
Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "FP32", "FP64", "BF16", "BYTES",
]  # fmt: skip
"""Open Inference Protocol v2's names of element types."""

_ELEMENT_BYTES = {
    "BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8, "INT8": 1, "INT16": 2, "INT32": 4,
    "INT64": 8, "FP16": 2, "FP32": 4, "FP64": 8, "BF16": 2,
}  # fmt: skip


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """OCI content descriptor."""

    media_type: str
    digest: Digest
    size: Size
    artifact_type: str | None = None
    annotations: dict[str, str] = {}


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """OCI image manifest of one variant."""

    config: Descriptor
    layers: Annotated[tuple[Descriptor, ...], msgspec.Meta(min_length=1, max_length=MAX_FILES)]
    schema_version: Literal[2] = msgspec.field(default_factory=lambda: 2)
    media_type: str = msgspec.field(default_factory=lambda: MANIFEST_MEDIA_TYPE)
    artifact_type: str = msgspec.field(default_factory=lambda: ARTIFACT_TYPE)
    annotations: dict[str, str] = {}


class Index(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """OCI image index of a bundle."""

    manifests: Annotated[
        tuple[Descriptor, ...], msgspec.Meta(min_length=1, max_length=MAX_VARIANTS)
    ]
    schema_version: Literal[2] = msgspec.field(default_factory=lambda: 2)
    media_type: str = msgspec.field(default_factory=lambda: INDEX_MEDIA_TYPE)
    annotations: dict[str, str] = {}


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One input or output of a model.

    Attributes:
        name: as the model file has it.
        datatype: Open Inference Protocol v2's name.
        shape: lengths; -1 where any length fits.
    """

    name: str
    datatype: Datatype
    shape: tuple[Annotated[int, msgspec.Meta(ge=-1)], ...]


class Interface(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Inputs and outputs of a model, in the file's order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Tensor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A recorded tensor: little-endian, C order, base64 on the wire."""

    name: str
    datatype: Datatype
    shape: tuple[Annotated[int, msgspec.Meta(ge=0)], ...]
    data: bytes

    def __post_init__(self) -> None:
        """Refuse data that doesn't fill the shape; ``BYTES`` elements have lengths of their own."""
        due = math.prod(self.shape) * _ELEMENT_BYTES.get(self.datatype, 0)
        if self.datatype in _ELEMENT_BYTES and len(self.data) != due:
            msg = f"tensor {self.name!r} has {len(self.data)} bytes, its shape takes {due}"
            raise InvalidInputError(msg)


class Vector(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Recorded inputs and the outputs that the variant gave where it was made."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class Tolerance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An element passes when ``|seen - recorded| <= absolute + relative * |recorded|``.

    NaN passes for NaN and an infinity for the same one. Of integers only ``absolute`` counts, for a
    class index is not nearly right for being large; BOOL and BYTES must be equal.
    """

    absolute: float = 1e-3
    relative: float = 1e-3


class Details(Document, frozen=True, kw_only=True):
    """What ModelPack's closed configuration cannot hold, one document a variant.

    Attributes:
        variant: name, unique in the bundle.
        entry: file path of the layer that an engine opens.
        interface: inputs and outputs of the model proper, without the steps.
        labels: class names by index of the classifying output; empty when there are none.
        preprocessing: steps before the model, as plain data, which `edgefleet.protocol.steps`
            reads; empty when there are none.
        postprocessing: steps after it.
        self_test: recorded vectors that a device runs before it serves, of the model proper.
        tolerance: how far a device's outputs may lie from the recorded ones.
        sketches: reference sketches by feature, as `edgefleet.protocol.sketch` writes them.
        metrics: figures measured where the variant was made, such as ``accuracy``.
        lineage: where it came from: training run, data digest, parent's digest, tool versions.
    """

    variant: str
    entry: str
    interface: Interface
    labels: tuple[str, ...] = ()
    preprocessing: tuple[dict[str, Any], ...] = ()
    postprocessing: tuple[dict[str, Any], ...] = ()
    self_test: tuple[Vector, ...] = ()
    tolerance: Tolerance = Tolerance()
    sketches: dict[str, Any] = {}  # noqa: RUF012 - msgspec copies it
    metrics: dict[str, float] = {}  # noqa: RUF012
    lineage: dict[str, str] = {}  # noqa: RUF012


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """What the index says of one variant: all that choosing needs.

    Attributes:
        name: unique in the bundle.
        format: ``onnx``, ``tflite``, ``openvino``, …: decides the engine.
        precision: ``fp32``, ``fp16``, ``int8``, …
        targets: hardware targets it was made for; empty means any.
        bytes: size of its files together.
        opset: of the default ONNX domain; None for other formats.
        manifest: descriptor of its manifest.
        requires: features without which a device must not choose it.
    """

    name: str
    format: str
    precision: str
    targets: tuple[str, ...]
    bytes: int
    opset: int | None
    manifest: Descriptor
    requires: tuple[str, ...] = ()


def read_index(data: bytes) -> Index:
    """Decode and check a bundle's index.

    Raises:
        UnknownFeatureError: its annotations require a feature unknown here.
        DocumentError: it is malformed or names a variant twice.
    """
    _limit(data, MAX_INDEX_BYTES, "bundle index")
    index = parse(Index, data, "bundle index")
    _media_type(index.media_type, INDEX_MEDIA_TYPE, "bundle index")
    refuse_unknown(_required(index.annotations), "bundle")
    names = [variant.name for variant in variants_of(index)]
    if len(set(names)) != len(names):
        msg = f"the bundle names a variant twice: {', '.join(sorted(names))}"
        raise DocumentError(msg)
    return index


def variants_of(index: Index) -> tuple[Variant, ...]:
    """The variants an index offers, in its order."""
    return tuple(_variant(descriptor) for descriptor in index.manifests)


def _variant(descriptor: Descriptor) -> Variant:
    notes = descriptor.annotations
    _media_type(descriptor.media_type, MANIFEST_MEDIA_TYPE, "variant")
    name = notes.get(VARIANT_KEY, "")
    try:
        return Variant(
            name=check_path(name, what="variant name"),
            format=notes[FORMAT_KEY],
            precision=notes[PRECISION_KEY],
            targets=_split(notes.get(TARGETS_KEY)),
            bytes=_whole(notes[BYTES_KEY]),
            opset=_whole(notes[OPSET_KEY]) if OPSET_KEY in notes else None,
            manifest=descriptor,
            requires=_split(notes.get(REQUIRES_KEY)),
        )
    except KeyError as error:
        msg = f"the index describes variant {name[:200]!r} without {error}"
        raise DocumentError(msg) from error
    except ValueError as error:
        msg = f"the index describes variant {name[:200]!r} badly: {_message_of(error)}"
        raise DocumentError(msg) from error


def _whole(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,16}", text):
        msg = f"{text[:100]!r} is no whole number"
        raise DocumentError(msg)
    return int(text)


def _split(text: str | None) -> tuple[str, ...]:
    return tuple(filter(None, (text or "").split(",")))


def _message_of(error: Exception) -> str:
    return error.message if isinstance(error, EdgeFleetError) else str(error)


def annotations_of(
    name: str,
    *,
    model_format: str,
    precision: str,
    targets: tuple[str, ...],
    size: int,
    opset: int | None,
    requires: tuple[str, ...] = (),
) -> dict[str, str]:
    """The annotations from which `variants_of` reads a `Variant` back.

    Raises:
        InvalidInputError: a target or feature is empty or holds a comma, which separates them.
    """
    for part in (*targets, *requires):
        if not part or "," in part:
            msg = f"variant {name!r} names the target or feature {part!r}"
            raise InvalidInputError(msg, cure="name each by itself, without commas")
    notes = {
        VARIANT_KEY: name,
        FORMAT_KEY: model_format,
        PRECISION_KEY: precision,
        TARGETS_KEY: ",".join(targets),
        BYTES_KEY: str(size),
        OPSET_KEY: None if opset is None else str(opset),
        REQUIRES_KEY: ",".join(requires),
    }
    return {key: value for key, value in notes.items() if value}


def read_manifest(data: bytes) -> Manifest:
    """Decode and check a variant's manifest: known media types, safe and distinct file paths.

    Raises:
        UnknownFeatureError: its annotations require a feature unknown here.
        DocumentError: it is malformed; the message names the file.
    """
    _limit(data, MAX_MANIFEST_BYTES, "variant manifest")
    manifest = parse(Manifest, data, "variant manifest")
    _media_type(manifest.media_type, MANIFEST_MEDIA_TYPE, "variant manifest")
    refuse_unknown(_required(manifest.annotations), "variant")
    _media_type(manifest.artifact_type, ARTIFACT_TYPE, "variant's artifact type")
    _media_type(manifest.config.media_type, CONFIG_MEDIA_TYPE, "variant's config")
    files_of(manifest)
    details_descriptor(manifest)
    return manifest


def files_of(manifest: Manifest) -> dict[str, Descriptor]:
    """The variant's files: relative path -> blob.

    Raises:
        DocumentError: a path is unsafe, missing or given twice (also when only letter case or the
            composition of accents differs, because some devices' file systems fold them), or one
            path lies below another.
    """
    files: dict[str, Descriptor] = {}
    folded: set[str] = set()
    for layer in manifest.layers:
        if layer.media_type == DETAILS_MEDIA_TYPE:
            continue
        path = layer.annotations.get(FILEPATH, "")
        if layer.media_type != WEIGHT_MEDIA_TYPE:
            msg = f"file {path[:200]!r} has media type {layer.media_type[:100]!r}, unknown here"
            raise DocumentError(msg, cure="pack files raw, one layer each")
        try:
            check_path(path)
        except InvalidInputError as error:
            raise DocumentError(error.message, cure=error.cure) from error
        if _folded(path) in folded:
            msg = f"the variant holds the file {path!r} twice"
            raise DocumentError(msg)
        folded.add(_folded(path))
        files[path] = layer
    parents = {p.rsplit("/", depth)[0] for p in folded for depth in range(1, p.count("/") + 1)}
    for path in files:
        if _folded(path) in parents:
            msg = f"the variant holds {path!r} both as a file and as a folder"
            raise DocumentError(msg)
    if not files:
        msg = "the variant holds no file"
        raise DocumentError(msg)
    return files


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def entry_of(manifest: Manifest, details: Details) -> str:
    """Path of the file that an engine opens, safe to join to where the files were laid out.

    Raises:
        DocumentError: it is none of the variant's files.
    """
    if details.entry not in files_of(manifest):
        msg = f"entry {details.entry[:200]!r} is not among the variant's files"
        raise DocumentError(msg)
    return details.entry


def details_descriptor(manifest: Manifest) -> Descriptor:
    """The one layer that holds the variant's `Details`."""
    found = [layer for layer in manifest.layers if layer.media_type == DETAILS_MEDIA_TYPE]
    if len(found) != 1:
        msg = f"the variant has {len(found)} details layers, it needs one"
        raise DocumentError(msg)
    return found[0]


def read_details(data: bytes) -> Details:
    """Decode a variant's details; see `documents.decode` for the errors."""
    return decode(Details, data, max_bytes=MAX_DETAILS_BYTES)


def blobs_of(manifest: Manifest) -> tuple[Descriptor, ...]:
    """Every blob of a variant except its manifest: config, details, files; each digest once."""
    found = {descriptor.digest: descriptor for descriptor in (manifest.config, *manifest.layers)}
    return tuple(found.values())


def _required(annotations: dict[str, str]) -> tuple[str, ...]:
    return _split(annotations.get(REQUIRES_KEY))


def _media_type(seen: str, wanted: str, what: str) -> None:
    if seen != wanted:
        msg = f"the {what} has media type {seen[:100]!r}, not {wanted!r}"
        raise DocumentError(msg)


def _limit(data: bytes, limit: int, what: str) -> None:
    if len(data) > limit:
        msg = f"a {what} of {len(data)} bytes is over the limit of {limit}"
        raise DocumentError(msg)
