"""Recipes: every candidate that can be made, as data. What makes one, `makers` knows.

Recipes of one ladder are tried in order until one passes: the next rung costs more time, and
serves where the one before lost too much. `select` names what is tried for a list of targets.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from edgefleet.errors import NotFoundError
from edgefleet.optimization.artifact import ONNX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefleet.protocol.target import HardwareTarget

Kind = Literal[
    "graph", "fp16", "static", "dynamic", "mixed", "channels", "weights", "openvino", "tflite"
]
Option = str | int | float | bool
Activations = Literal["any", "unsigned", "signed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One way to make a candidate.

    Attributes:
        name: of the recipe, the candidate and the variant.
        kind: what makes it.
        precision: of the weights it leads to.
        format: of the file.
        ladder: recipes of one ladder are tried until one passes.
        activations: how int8 activations are laid out, which engines care about.
        base: ladder whose passed candidate this one starts from; empty for the model as given.
        needs_calibration: whether it can't be made without samples.
        about: one phrase, for lineage and reports.
        options: of the tool, by its own names.
    """

    name: str
    kind: Kind
    precision: str
    about: str
    format: str = ONNX
    ladder: str = ""
    activations: Activations = "any"
    base: str = ""
    needs_calibration: bool = False
    options: tuple[tuple[str, Option], ...] = ()

    def option(self, name: str, default: Option) -> Option:
        """The option of that name."""
        return dict(self.options).get(name, default)

    def digest(self) -> str:
        """Digest of everything that decides what it makes."""
        text = json.dumps(asdict(self), sort_keys=True)
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _static(
    name: str, ladder: str, method: str, activations: Activations, *options: tuple[str, Option]
) -> Recipe:
    sign = "uint8" if activations == "unsigned" else "int8"
    return Recipe(
        name=name,
        kind="static",
        precision="int8",
        ladder=ladder,
        activations=activations,
        needs_calibration=True,
        about=f"static, QDQ, {sign} activations, weights per channel, {method} ranges",
        options=(("method", method), *options),
    )


def _mixed(name: str, ladder: str, activations: Activations) -> Recipe:
    return Recipe(
        name=name,
        kind="mixed",
        precision="int8",
        ladder=ladder,
        activations=activations,
        needs_calibration=True,
        about="static int8, the nodes that lost most left in floats",
    )


RECIPES: tuple[Recipe, ...] = (
    _static("int8", "int8", "minmax", "unsigned"),
    _static("int8-percentile", "int8", "percentile", "unsigned"),
    _static("int8-entropy", "int8", "entropy", "unsigned"),
    _mixed("int8-mixed", "int8", "unsigned"),
    _static("int8-signed", "int8-signed", "minmax", "signed"),
    _static("int8-signed-percentile", "int8-signed", "percentile", "signed"),
    _static("int8-signed-entropy", "int8-signed", "entropy", "signed"),
    _mixed("int8-signed-mixed", "int8-signed", "signed"),
    Recipe(
        name="int8-dynamic",
        kind="dynamic",
        precision="int8",
        about="dynamic: weights in int8, ranges of activations found at every run",
    ),
    Recipe(name="fp16", kind="fp16", precision="fp16", about="floats of 16 bits"),
    Recipe(
        name="fp32-graph",
        kind="graph",
        precision="fp32",
        about="constants folded and nodes fused ahead of time",
    ),
    Recipe(
        name="channels-25",
        kind="channels",
        precision="fp32",
        about="a quarter of the channels removed, those of the smallest norm",
        options=(("share", 0.25),),
    ),
    Recipe(
        name="weights-50",
        kind="weights",
        precision="fp32",
        about="half of the weights set to zero, the smallest",
        options=(("share", 0.5),),
    ),
    Recipe(
        name="openvino-int8",
        kind="openvino",
        precision="int8",
        format="openvino",
        base="int8",
        needs_calibration=True,
        about="OpenVINO's format, of the int8 candidate",
    ),
    Recipe(
        name="openvino-fp16",
        kind="openvino",
        precision="fp16",
        format="openvino",
        about="OpenVINO's format, weights of 16 bits",
    ),
    Recipe(
        name="openvino",
        kind="openvino",
        precision="fp32",
        format="openvino",
        about="OpenVINO's format",
    ),
    Recipe(
        name="tflite-int8",
        kind="tflite",
        precision="int8",
        format="tflite",
        needs_calibration=True,
        about="LiteRT's format, 8 bits inside, floats outside",
    ),
    Recipe(
        name="tflite-fp16",
        kind="tflite",
        precision="fp16",
        format="tflite",
        about="LiteRT's format, weights of 16 bits",
    ),
    Recipe(
        name="tflite", kind="tflite", precision="fp32", format="tflite", about="LiteRT's format"
    ),
)
"""In the order in which they are tried."""

UNASKED_NEVER = frozenset({"channels", "weights", "graph", "dynamic"})
"""Kinds that are made only when they are named, or everything is: they seldom pay by themselves."""


def select(
    targets: Sequence[HardwareTarget],
    *,
    given: str,
    asked: Sequence[str | Recipe] | None = None,
    thorough: bool = False,
) -> tuple[Recipe, ...]:
    """The recipes to try, in order.

    Args:
        targets: those asked for. A recipe is tried when one of them would take its precision and
            format rather than the model as given.
        given: precision of the model as given.
        asked: names of recipes, with ``*`` for any part (``int8*``), or recipes; ``all`` for all.
            None leaves it to the targets.
        thorough: try also what is seldom worth it.

    Raises:
        NotFoundError: no recipe has that name; the message lists those there are.
    """
    if asked is not None:
        chosen = tuple(dict.fromkeys(found for name in asked for found in _named(name)))
        return (*_with_bases(chosen), *(recipe for recipe in chosen if recipe not in RECIPES))
    chosen = tuple(
        recipe
        for recipe in RECIPES
        if (thorough or recipe.kind not in UNASKED_NEVER)
        and ((recipe.precision, recipe.format) != (given, ONNX) or recipe.kind in UNASKED_NEVER)
        and any(_suits(recipe, target, given, thorough=thorough) for target in targets)
    )
    return _with_bases(chosen)


def _with_bases(chosen: Sequence[Recipe]) -> tuple[Recipe, ...]:
    """Those that are ours, in our order, with the ladders that some of them start from."""
    ladders = {recipe.base for recipe in chosen if recipe.base}
    return tuple(r for r in RECIPES if r in chosen or (r.ladder and r.ladder in ladders))


def _named(name: str | Recipe) -> tuple[Recipe, ...]:
    if isinstance(name, Recipe):
        return (name,)
    found = tuple(r for r in RECIPES if name == "all" or fnmatchcase(r.name, name))
    if not found:
        msg = f"no candidate is called {name!r}"
        known = ", ".join(recipe.name for recipe in RECIPES)
        raise NotFoundError(msg, cure=f"choose of {known}, or write all, or int8*")
    return found


def _suits(recipe: Recipe, target: HardwareTarget, given: str, *, thorough: bool) -> bool:
    """Whether a target would take such a candidate rather than the model as given.

    Formats that a target opens beside ONNX, and likes less, are for what is only to be had in them.
    """
    forms = target.formats
    if ONNX in forms and not thorough:
        forms = forms[: forms.index(ONNX) + 1]
    pairs = [(precision, form) for precision in target.precisions for form in forms]
    own = (given, ONNX)
    pairs = pairs[: pairs.index(own) + 1] if own in pairs else pairs
    liked = {"unsigned": {"unsigned"}, "signed": {"signed"}, "any": {"unsigned"}}
    fits = recipe.activations in {"any", *liked[target.activations]} or thorough
    return fits and (recipe.precision, recipe.format) in pairs
