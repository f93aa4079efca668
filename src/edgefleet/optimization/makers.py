"""Who makes what: a function a kind of recipe, imported when the first recipe of its kind is tried.

A maker is ``make(recipe, source, to, say) -> Artifact``. It writes below the folder ``to``, which
the caller removes, and the same recipe and source give the same bytes. Where it can't make the
candidate, it raises `NotMade` with a reason for the report; other candidates go on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from edgefleet.optimization.artifact import Artifact
    from edgefleet.optimization.gate import Verdict
    from edgefleet.optimization.onnx_file import OnnxFile
    from edgefleet.optimization.recipes import Recipe
    from edgefleet.optimization.samples import Samples

    Say = Callable[[str], object]
    """Shows what is being done."""

    Judge = Callable[[Artifact], Verdict]
    """Holds an artifact against the gate on the caller's whole evaluation data."""

FLOATS = "floats"
"""Key of an artifact's note that names what a search left in floats; the report tells it too."""

REMARK = "remark"
"""Key of an artifact's note that says what its maker left as it was; the report tells it too."""

MAX_BYTES = 1_800_000_000  # tools work on one protobuf, which ends at 2 GiB
MAX_REASON = 300  # characters of a tool's error in a report
MAX_NOTED = 20  # nodes that a note names


class NotMade(Exception):  # noqa: N818 - an outcome that becomes a row, never an error of the caller
    """Why a candidate can't be made, for the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a candidate is made of.

    Attributes:
        file: the model as given.
        samples: calibration data.
        seed: for whatever is drawn.
        exclude: names of nodes, or ``op:TYPE``, that stay in floats.
        base: the candidate that the recipe's ``base`` led to; None where it names none.
        tried: candidates of the recipe's ladder that lost too much, by name.
        judge: accuracy of an artifact against the gate: what a search may ask. None where there is
            no ``evaluate``.
    """

    file: OnnxFile
    samples: Samples | None = None
    seed: int = 0
    exclude: tuple[str, ...] = ()
    base: Artifact | None = None
    tried: Mapping[str, Artifact] = field(default_factory=dict)
    judge: Judge | None = None


class Maker(Protocol):
    """Makes candidates of one kind."""

    def __call__(self, recipe: Recipe, source: Source, to: Path, say: Say, /) -> Artifact:
        """Make the candidate below the empty folder ``to``.

        Raises:
            NotMade: it can't be made; the text says why.
        """
        ...


MAKERS: dict[str, str] = {
    "static": "edgefleet.optimization.quantize:make_static",
    "dynamic": "edgefleet.optimization.quantize:make_dynamic",
    "mixed": "edgefleet.optimization.sensitivity:make_mixed",
    "fp16": "edgefleet.optimization.float16:make_fp16",
    "graph": "edgefleet.optimization.graph:make_graph",
    "channels": "edgefleet.optimization.pruning:make_channels",
    "weights": "edgefleet.optimization.pruning:make_weights",
    "openvino": "edgefleet.optimization.openvino:make_openvino",
    "tflite": "edgefleet.optimization.litert:make_tflite",
}
"""Kind of a recipe -> module and function."""


def maker_of(recipe: Recipe) -> Maker:
    """The function that makes candidates of that recipe's kind."""
    module, _, name = MAKERS[recipe.kind].partition(":")
    found: Maker = getattr(import_module(module), name)
    return found


def check(file: OnnxFile) -> None:
    """Refuse models that tools for fp32 models can't start from.

    Raises:
        NotMade: it is in another precision, or larger than one protobuf.
    """
    if file.precision != "fp32":
        msg = f"the model given is {file.precision}: give the fp32 one"
        raise NotMade(msg)
    if file.size_bytes > MAX_BYTES:
        msg = f"{file.size_bytes} bytes are more than one protobuf holds ({MAX_BYTES})"
        raise NotMade(msg)


def listed(names: Sequence[str]) -> str:
    """Names of nodes for a note, the first `MAX_NOTED` of them."""
    more = f" and {len(names) - MAX_NOTED} more" if len(names) > MAX_NOTED else ""
    return ", ".join(names[:MAX_NOTED]) + more


def told(tool: str, error: BaseException) -> str:
    """A tool's failure as a reason."""
    text = " ".join(str(error).split())
    return f"{tool} failed: {type(error).__name__}: {text}"[:MAX_REASON]
