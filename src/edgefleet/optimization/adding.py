"""A file that was made elsewhere, as one more variant of a bundle.

The new variant has the interface, steps and self-test vectors of the bundle's first one: it is the
same model in another form, and a device proves that before it serves. It has no metrics: nothing
was measured here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edgefleet.errors import InvalidInputError
from edgefleet.optimization.packaging import CHOSEN_PRECISIONS
from edgefleet.protocol.layout import BundleWriter
from edgefleet.protocol.names import check_name

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet.protocol.layout import BundleLayout


def add_variant(
    bundle: BundleLayout,
    file: Path,
    to: Path,
    *,
    model: str,
    target: str,
    model_format: str,
    precision: str = "fp32",
    name: str | None = None,
) -> BundleLayout:
    """A new bundle in the folder ``to``: the variants there are, and the file as one more.

    Args:
        bundle: what to start from; it stays as it is.
        file: what an engine opens.
        to: a folder that doesn't exist yet; it appears whole or not at all.
        model: the model's name.
        target: the hardware target that the file was made for.
        model_format: decides the engine; only devices that have one for it choose the variant.
        precision: what targets are asked for: ``fp32``, ``fp16`` or ``int8``.
        name: of the variant; None for target and format.

    Raises:
        InvalidInputError: there is no such file, no such precision, or a variant of that name.
    """
    chosen = name or f"{target}-{model_format}"
    check_name("model", model)
    if not file.is_file():
        raise InvalidInputError(f"no file at {file}", cure="give the one file that an engine opens")
    if precision not in CHOSEN_PRECISIONS:
        known = ", ".join(CHOSEN_PRECISIONS)
        raise InvalidInputError(f"no target asks for {precision}", cure=f"choose one of {known}")
    if chosen in {variant.name for variant in bundle.variants}:
        msg = f"the bundle has a variant {chosen!r}"
        raise InvalidInputError(msg, cure="give the new one another name")
    first = bundle.details(bundle.variants[0].name)
    details = msgspec.structs.replace(
        first,
        variant=chosen,
        entry=file.name,
        metrics={},
        lineage={**first.lineage, "added_to": bundle.digest},
    )
    with BundleWriter(to) as writer:
        for variant in bundle.variants:
            writer.adopt(bundle, variant.name)
        writer.add_variant(
            details,
            {file.name: file},
            model_name=model,
            model_format=model_format,
            precision=precision,
            targets=(target,),
        )
        return writer.finish()
