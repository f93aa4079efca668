"""A bundle's documents: what an index, a manifest and details may say."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.errors import DocumentError, InvalidInputError, UnknownFeatureError
from edgefleet.protocol import bundle as b
from edgefleet.protocol.documents import encode
from tests.contract import samples
from tests.protocol import strategies

DIGEST = samples.BLOB


def layer(path: str | None, media_type: str = b.WEIGHT_MEDIA_TYPE, size: int = 1) -> b.Descriptor:
    notes = {} if path is None else {b.FILEPATH: path}
    return b.Descriptor(media_type=media_type, digest=DIGEST, size=size, annotations=notes)


CONFIG = b.Descriptor(media_type=b.CONFIG_MEDIA_TYPE, digest=DIGEST, size=1)
DETAILS = layer(None, b.DETAILS_MEDIA_TYPE)


def manifest(*paths: str, **fields: Any) -> b.Manifest:
    made = b.Manifest(config=CONFIG, layers=(*(layer(path) for path in paths), DETAILS))
    return msgspec.structs.replace(made, **fields)


def descriptor(name: str = "fp32", **notes: str) -> b.Descriptor:
    plain = {b.VARIANT_KEY: name, b.FORMAT_KEY: "onnx", b.PRECISION_KEY: "fp32", b.BYTES_KEY: "1"}
    keys = {key: f"dev.edgefleet.{key}" for key in notes}
    return b.Descriptor(
        media_type=b.MANIFEST_MEDIA_TYPE,
        digest=DIGEST,
        size=1,
        annotations={**plain, **{keys[key]: value for key, value in notes.items()}},
    )


def index(*manifests: b.Descriptor) -> bytes:
    return encode(b.Index(manifests=manifests))


# ------------------------------------------------------------------------------------------- index

tags = st.text(st.characters(codec="utf-8", exclude_characters=","), min_size=1, max_size=8)


@given(
    st.from_regex(r"\A[a-z0-9]{1,8}\Z"),
    st.lists(tags, max_size=3).map(tuple),
    st.integers(0, 10**15),
    st.none() | st.integers(0, 99),
    st.lists(tags, max_size=2).map(tuple),
)
def test_variant_reads_back_as_annotated(
    name: str, targets: tuple[str, ...], size: int, opset: int | None, requires: tuple[str, ...]
) -> None:
    notes = b.annotations_of(
        name,
        model_format="onnx",
        precision="int8",
        targets=targets,
        size=size,
        opset=opset,
        requires=requires,
    )
    about = msgspec.structs.replace(descriptor(), annotations=notes)
    [seen] = b.variants_of(b.read_index(index(about)))
    assert seen == b.Variant(
        name=name,
        format="onnx",
        precision="int8",
        targets=targets,
        bytes=size,
        opset=opset,
        manifest=about,
        requires=requires,
    )


@pytest.mark.parametrize("targets", [("a,b",), ("",)])
def test_target_that_would_read_back_as_another_is_refused(targets: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInputError, match="'fp32' names the target or feature"):
        b.annotations_of(
            "fp32", model_format="onnx", precision="fp32", targets=targets, size=1, opset=None
        )


@pytest.mark.parametrize(
    "notes, why",
    [
        ({"variant": ""}, "unsafe variant name"),
        ({"variant": "../up"}, "unsafe variant name: '../up'"),
        ({"variant": "/abs"}, "unsafe variant name"),
        ({"bytes": "-1"}, "variant 'fp32' badly: '-1' is no whole number"),
        ({"bytes": "1e3"}, "no whole number"),
        ({"bytes": " 1"}, "no whole number"),
        ({"bytes": "1_000"}, "no whole number"),
        ({"bytes": "\u0661"}, "no whole number"),
        ({"bytes": "9" * 5000}, "no whole number"),
        ({"opset": "latest"}, "'latest' is no whole number"),
    ],
)
def test_badly_described_variant_is_refused(notes: dict[str, str], why: str) -> None:
    data = encode(b.Index(manifests=(descriptor(**notes),)))
    with pytest.raises(DocumentError, match=why):
        b.read_index(data)


@pytest.mark.parametrize("key", [b.FORMAT_KEY, b.PRECISION_KEY, b.BYTES_KEY])
def test_variant_without_what_choosing_needs_is_refused(key: str) -> None:
    about = descriptor()
    notes = {k: v for k, v in about.annotations.items() if k != key}
    with pytest.raises(DocumentError, match=f"variant 'fp32' without '{key}'"):
        b.read_index(index(msgspec.structs.replace(about, annotations=notes)))


def test_variant_named_twice_is_refused() -> None:
    with pytest.raises(DocumentError, match="names a variant twice: fp32, fp32, int8"):
        b.read_index(index(descriptor(), descriptor("int8"), descriptor()))


def test_index_of_another_kind_is_refused() -> None:
    plain = json.loads(index(descriptor())) | {"mediaType": "application/x"}
    with pytest.raises(DocumentError, match="bundle index has media type 'application/x'"):
        b.read_index(json.dumps(plain).encode())


def test_index_that_names_something_else_than_manifests_is_refused() -> None:
    about = msgspec.structs.replace(descriptor(), media_type=b.INDEX_MEDIA_TYPE)
    with pytest.raises(DocumentError, match="the variant has media type"):
        b.read_index(index(about))


def test_index_without_a_media_type_is_read_as_oci_allows() -> None:
    plain = json.loads(index(descriptor()))
    del plain["mediaType"]
    assert len(b.read_index(json.dumps(plain).encode()).manifests) == 1


@pytest.mark.parametrize("count", [0, b.MAX_VARIANTS + 1])
def test_number_of_variants_has_limits(count: int) -> None:
    about = json.loads(msgspec.json.encode(descriptor()))
    plain = {"schemaVersion": 2, "mediaType": b.INDEX_MEDIA_TYPE, "manifests": [about] * count}
    with pytest.raises(DocumentError, match="malformed bundle index"):
        b.read_index(json.dumps(plain).encode())


def test_index_over_its_limit_is_refused_before_parsing() -> None:
    with pytest.raises(DocumentError, match="bundle index of 1048577 bytes is over the limit"):
        b.read_index(b"[" * (b.MAX_INDEX_BYTES + 1))


@pytest.mark.parametrize("digest", ["sha256:abc", "sha512:" + "0" * 128, "../../etc/passwd"])
def test_descriptor_with_another_digest_is_refused(digest: str) -> None:
    plain = json.loads(index(descriptor()))
    plain["manifests"][0]["digest"] = digest
    with pytest.raises(DocumentError, match="malformed bundle index"):
        b.read_index(json.dumps(plain).encode())


@pytest.mark.parametrize("size", [-1, 1 << 51, "1", None])
def test_descriptor_with_an_impossible_size_is_refused(size: object) -> None:
    plain = json.loads(index(descriptor()))
    plain["manifests"][0]["size"] = size
    with pytest.raises(DocumentError, match="malformed bundle index"):
        b.read_index(json.dumps(plain).encode())


# ---------------------------------------------------------------------------------------- manifest


def test_manifest_gives_its_files_by_path() -> None:
    read = b.read_manifest(encode(manifest("model.onnx", "weights/model.onnx.data")))
    assert list(b.files_of(read)) == ["model.onnx", "weights/model.onnx.data"]


@pytest.mark.parametrize(
    "paths, why",
    [
        (["../model.onnx"], r"unsafe file path: '\.\./model\.onnx'"),
        (["a/../../model.onnx"], "unsafe file path"),
        (["/etc/passwd"], "unsafe file path: '/etc/passwd'"),
        (["a\\b"], "unsafe file path"),
        (["C:/model.onnx"], "unsafe file path"),
        ([""], "unsafe file path: ''"),
        (["a\0b"], "unsafe file path"),
        (["a", "a"], "the file 'a' twice"),
        (["weights/A.bin", "weights/a.bin"], "the file 'weights/a.bin' twice"),
        (["stra\u00dfe", "STRASSE"], "the file 'STRASSE' twice"),
        (["caf\u00e9", "cafe\u0301"], "twice"),
        (["a", "a/b"], "'a' both as a file and as a folder"),
        (["a/b/c", "A/B"], "'A/B' both as a file and as a folder"),
        (["a/b", "A"], "'A' both as a file and as a folder"),
        ([], "holds no file"),
    ],
)
def test_path_trick_in_a_manifest_is_refused_by_its_name(paths: list[str], why: str) -> None:
    with pytest.raises(DocumentError, match=why):
        b.read_manifest(encode(manifest(*paths)))


def test_layer_without_a_path_is_refused() -> None:
    bare = manifest(layers=(layer(None), DETAILS))
    with pytest.raises(DocumentError, match="unsafe file path: ''"):
        b.read_manifest(encode(bare))


@pytest.mark.parametrize("count", [0, 2])
def test_manifest_needs_one_details_layer(count: int) -> None:
    other = manifest(layers=(layer("a"), *[DETAILS] * count))
    with pytest.raises(DocumentError, match=f"has {count} details layers, it needs one"):
        b.read_manifest(encode(other))


def test_layer_of_an_unknown_kind_is_refused_by_its_file() -> None:
    tar = layer("model.onnx", "application/vnd.cncf.model.weight.v1.tar")
    why = r"file 'model\.onnx' has media type '.*tar', unknown here"
    with pytest.raises(DocumentError, match=why):
        b.read_manifest(encode(manifest(layers=(tar, DETAILS))))


@pytest.mark.parametrize(
    "change, what",
    [
        ({"media_type": b.INDEX_MEDIA_TYPE}, "variant manifest"),
        ({"artifact_type": "application/x"}, "artifact type"),
        ({"config": msgspec.structs.replace(CONFIG, media_type="application/x")}, "config"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_manifest_of_another_kind_is_refused(change: dict[str, object], what: str) -> None:
    with pytest.raises(DocumentError, match=f"{what} has media type"):
        b.read_manifest(encode(manifest("a", **change)))


def test_manifest_over_its_limit_is_refused_before_parsing() -> None:
    with pytest.raises(DocumentError, match="variant manifest of 1048577 bytes"):
        b.read_manifest(b"[" * (b.MAX_MANIFEST_BYTES + 1))


@pytest.mark.parametrize("read", [b.read_index, b.read_manifest])
def test_required_features_are_named(read: Any) -> None:
    data = index(descriptor()) if read is b.read_index else encode(manifest("a"))
    plain = json.loads(data) | {"annotations": {b.REQUIRES_KEY: "holograms"}}
    with pytest.raises(UnknownFeatureError, match="holograms"):
        read(json.dumps(plain).encode())


def test_blobs_are_listed_once_each() -> None:
    assert [d.digest for d in b.blobs_of(manifest("a", "b"))] == [DIGEST]


# ----------------------------------------------------------------------------------------- details


@given(strategies.details)
def test_details_read_back_the_same(details: b.Details) -> None:
    assert b.read_details(encode(details)) == details


@pytest.mark.parametrize("entry", ["other.onnx", "../model.onnx", "/etc/passwd", ""])
def test_entry_that_is_none_of_the_files_is_refused(entry: str) -> None:
    details = msgspec.structs.replace(samples.DETAILS, entry=entry)
    with pytest.raises(DocumentError, match=f"entry '{entry}' is not among"):
        b.entry_of(manifest("model.onnx"), details)


def test_entry_is_one_of_the_files() -> None:
    assert b.entry_of(manifest("model.onnx", "x"), samples.DETAILS) == "model.onnx"


@pytest.mark.parametrize(
    "datatype, shape, size",
    [
        ("FP32", (2, 3), 24),
        ("INT64", (), 8),
        ("FP16", (0, 5), 0),
        ("BOOL", (7,), 7),
        ("BF16", (1,), 2),
    ],
)
def test_recorded_tensor_fills_its_shape(datatype: Any, shape: tuple[int, ...], size: int) -> None:
    b.Tensor(name="x", datatype=datatype, shape=shape, data=bytes(size))
    why = f"'x' has {size + 1} bytes, its shape takes {size}"
    with pytest.raises(InvalidInputError, match=why):
        b.Tensor(name="x", datatype=datatype, shape=shape, data=bytes(size + 1))


def test_recorded_strings_have_lengths_of_their_own() -> None:
    b.Tensor(name="x", datatype="BYTES", shape=(1,), data=b"\x02\0\0\0hi")


def test_details_with_a_short_tensor_are_refused_by_its_name() -> None:
    plain = json.loads(encode(samples.DETAILS))
    plain["self_test"][0]["inputs"][0]["shape"] = [1, 3]
    with pytest.raises(DocumentError, match="malformed details: tensor 'x' has 8 bytes"):
        b.read_details(json.dumps(plain).encode())
