"""What a model's versions expect to see: the reference sketches in their bundles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.protocol import bundle as b
from edgefleet.protocol.sketch import read_sketch

if TYPE_CHECKING:
    from edgefleet.interfaces.registry import Registry
    from edgefleet.protocol.sketch import ClassSketch, NumberSketch


def reference_of(registry: Registry, digest: str) -> dict[str, NumberSketch | ClassSketch]:
    """Reference sketches of a bundle by feature; empty where it was made without calibration data.

    Variants share the sketches of their inputs; those of outputs are of the first that has any.

    Raises:
        NotFoundError: the bundle, or a part of it, is not in the registry.
        IntegrityError: a part is damaged.
        DocumentError: it is none of a bundle, or a sketch is malformed.
    """
    blobs = registry.blobs
    index = b.read_index(blobs.read_bytes(digest, max_bytes=b.MAX_INDEX_BYTES))
    for variant in b.variants_of(index):
        data = blobs.read_bytes(variant.manifest.digest, max_bytes=b.MAX_MANIFEST_BYTES)
        layer = b.details_descriptor(b.read_manifest(data))
        details = b.read_details(blobs.read_bytes(layer.digest, max_bytes=b.MAX_DETAILS_BYTES))
        if details.sketches:
            return {name: read_sketch(plain) for name, plain in details.sketches.items()}
    return {}
