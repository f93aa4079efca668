"""OpenVINO's own format, by its library: what an Intel gateway's engine opens quickest.

The file is read by ``Core.read_model`` rather than ``convert_model``, which reports its use to the
vendor. Layers get names by their place, for the library's own count them over a whole process.
Inputs and outputs keep the names that the model as given has, and no others.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

from edgefleet.optimization.artifact import Artifact
from edgefleet.optimization.libraries import available, versions
from edgefleet.optimization.makers import MAX_REASON, NotMade

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgefleet.optimization.makers import Say, Source
    from edgefleet.optimization.recipes import Recipe
    from edgefleet.protocol.bundle import TensorSpec

log = logging.getLogger(__name__)

ENTRY = "model.xml"
WEIGHTS = "model.bin"
MISSING = "needs OpenVINO: pip install 'edgefleet[openvino]'"
_UNKNOWN = re.compile(r"No conversion rule found for operations?: (.+)")
_PLACES = re.compile(r"Exception from |Check '|FrontEnd API failed|Summary:")
"""How lines of its messages begin that tell only where in its own source the trouble was."""


def make_openvino(recipe: Recipe, source: Source, to: Path, say: Say) -> Artifact:
    """The model, or the candidate that the recipe starts from, in OpenVINO's format.

    Raises:
        NotMade: OpenVINO isn't installed, or can't read the model.
    """
    if not available("openvino"):
        raise NotMade(MISSING)
    import openvino

    start = source.file.path if source.base is None else source.base.path
    interface = source.file.interface
    say("converting")
    try:
        model = openvino.Core().read_model(start)
        _name(model.inputs, interface.inputs)
        _name(model.outputs, interface.outputs)
        for place, operation in enumerate(model.get_ordered_ops()):
            operation.set_friendly_name(f"{operation.get_type_name()}_{place}")
        openvino.save_model(model, to / ENTRY, compress_to_fp16=recipe.precision == "fp16")
    except NotMade:
        raise
    except Exception as error:  # the library raises anything, and others still ship
        log.info("%s of %s failed", recipe.name, start, exc_info=True)
        raise NotMade(_reason(error)) from error
    files = {name: to / name for name in (ENTRY, WEIGHTS)}
    base = {} if source.base is None else source.base.notes
    return Artifact(
        format=recipe.format,
        precision=recipe.precision,
        entry=ENTRY,
        files=files,
        size_bytes=sum(path.stat().st_size for path in files.values()),
        interface=interface,
        notes={**base, "conversion": recipe.about, **versions("openvino")},
    )


def _name(ports: Sequence[Any], specs: Sequence[TensorSpec]) -> None:
    """Leave each input or output the one name that callers know."""
    for spec in specs:
        found = [port for port in ports if spec.name in port.get_names()]
        if len(found) != 1:
            raise NotMade(f"OpenVINO doesn't keep {spec.name!r} apart from others")
        found[0].get_tensor().set_names({spec.name})


def _reason(error: Exception) -> str:
    """What the library says, without the places in its source that it says it of."""
    unknown = _UNKNOWN.search(str(error))
    if unknown is not None:
        return f"OpenVINO has no operator {unknown[1].strip()}"[:MAX_REASON]
    lines = [line.strip() for line in str(error).splitlines()]
    said = " ".join(line for line in lines if line and not _PLACES.match(line))
    return f"OpenVINO can't convert it: {said or type(error).__name__}"[:MAX_REASON]
