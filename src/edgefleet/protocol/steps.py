"""Steps before and after a model: the vocabulary of ``preprocessing`` and ``postprocessing``.

A step reads one tensor, named by ``tensor``, and its result takes that tensor's place, under the
name ``into`` where one is given. Without ``tensor`` it reads what the step before it gave; the
first one reads the only tensor that there is.

Rules kept here:

- A step says all that its result depends on, so that every device gives the same.
- A step, or a field of one, that is unknown here is refused and never skipped: skipping it would
  give other answers.
- This is plain data: nothing here computes. A device's kernels are in
  ``edgefleet_runtime.ensemble.kernels``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import msgspec

from edgefleet.errors import DocumentError, InvalidInputError, UnknownFeatureError
from edgefleet.protocol.bundle import Datatype
from edgefleet.protocol.typed import convert, decoder

if TYPE_CHECKING:
    from collections.abc import Sequence

FEATURE = "steps"
"""What a document requires that has steps: who doesn't know them would give other answers."""

MAX_STEPS = 32
MAX_RANK = 8
MAX_LENGTH = 16_384  # of a resized side
_MAX_CHANNELS = 4096
_MAX_LABELS = 1 << 20

Axis = Annotated[int, msgspec.Meta(ge=-MAX_RANK, lt=MAX_RANK)]
_Lengths = Annotated[
    tuple[Annotated[int, msgspec.Meta(ge=-1, le=1 << 31)], ...], msgspec.Meta(max_length=MAX_RANK)
]
_Side = Annotated[int, msgspec.Meta(ge=1, le=MAX_LENGTH)]
_PerChannel = Annotated[tuple[float, ...], msgspec.Meta(min_length=1, max_length=_MAX_CHANNELS)]
_Name = Annotated[str, msgspec.Meta(max_length=256)]


class StepBase(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag_field="step",
):
    """What all steps have.

    Attributes:
        tensor: what the step reads; empty for what the step before it gave.
        into: what its result is called; empty to take the place of ``tensor``.
    """

    tensor: _Name = ""
    into: _Name = ""


class Given(StepBase, frozen=True, kw_only=True, tag="input"):
    """Says what clients send, where that differs from what the model takes; computes nothing.

    Attributes:
        datatype: Open Inference Protocol v2's name.
        shape: lengths; -1 where any length fits.
    """

    datatype: Datatype
    shape: _Lengths


class Cast(StepBase, frozen=True, kw_only=True, tag="cast"):
    """The same numbers in another datatype.

    Into an integer, numbers are rounded toward zero and held within what the datatype takes; NaN
    becomes 0. Into BOOL, all but 0 is true. BYTES can't be cast.

    Attributes:
        datatype: of the result.
    """

    datatype: Datatype


class Rescale(StepBase, frozen=True, kw_only=True, tag="rescale"):
    """``x * scale + offset`` in the datatype of ``x``, in FP32 where ``x`` has integers.

    Attributes:
        scale: such as 1/255.
        offset: added after that.
    """

    scale: float
    offset: float = 0.0


class Normalize(StepBase, frozen=True, kw_only=True, tag="normalize"):
    """``(x - mean) / std``, channel by channel; datatypes as of `Rescale`.

    Attributes:
        mean: one number, or one a channel.
        std: likewise; none is 0.
        axis: of the channels.
    """

    mean: _PerChannel
    std: _PerChannel
    axis: Axis = -1

    def __post_init__(self) -> None:
        """Refuse figures that don't fit together."""
        if 0.0 in self.std:
            raise InvalidInputError("step normalize divides by a std of 0")
        if len({len(self.mean), len(self.std)} - {1}) > 1:
            msg = f"step normalize has {len(self.mean)} means and {len(self.std)} stds"
            raise InvalidInputError(msg, cure="give one of each, or one a channel")


class Transpose(StepBase, frozen=True, kw_only=True, tag="transpose"):
    """The axes in another order; HWC to CHW is ``(2, 0, 1)``.

    Attributes:
        axes: for each axis of the result, which axis of ``x`` it was.
    """

    axes: Annotated[tuple[int, ...], msgspec.Meta(min_length=1, max_length=MAX_RANK)]

    def __post_init__(self) -> None:
        """Refuse what isn't a permutation."""
        if sorted(self.axes) != list(range(len(self.axes))):
            raise InvalidInputError(
                f"step transpose has the axes {list(self.axes)}",
                cure=f"name each of 0 to {len(self.axes) - 1} once",
            )


class Reshape(StepBase, frozen=True, kw_only=True, tag="reshape"):
    """The same elements in another shape.

    Attributes:
        shape: lengths; -1 at most once, for what remains.
    """

    shape: _Lengths

    def __post_init__(self) -> None:
        """Refuse what can't be worked out."""
        if self.shape.count(-1) > 1:
            msg = f"step reshape has more than one -1 in its shape {list(self.shape)}"
            raise InvalidInputError(msg)


class ExpandDims(StepBase, frozen=True, kw_only=True, tag="expand_dims"):
    """With one more axis, of length 1.

    Attributes:
        axis: where it stands in the result.
    """

    axis: Axis = 0


class Squeeze(StepBase, frozen=True, kw_only=True, tag="squeeze"):
    """Without an axis that has length 1.

    Attributes:
        axis: the one to leave out.
    """

    axis: Axis = 0


class Resize(StepBase, frozen=True, kw_only=True, tag="resize"):
    """An image in another size, as ONNX' ``Resize`` with ``half_pixel`` coordinates.

    Pixel ``i`` of ``new`` lies at ``(i + 0.5) * old / new - 0.5`` of ``old``. ``bilinear`` weighs
    the two neighbours of each axis, the edge repeated beyond it, without antialiasing; of integers
    the result is rounded, halves to even. ``nearest`` takes the nearest pixel, halves downward.

    Attributes:
        height: of the result.
        width: of the result.
        mode: how pixels between others come about.
        layout: where height and width stand: before the last axis, or last. Axes before them are
            kept.
    """

    height: _Side
    width: _Side
    mode: Literal["bilinear", "nearest"] = "bilinear"
    layout: Literal["HWC", "CHW"] = "HWC"


class Clip(StepBase, frozen=True, kw_only=True, tag="clip"):
    """Held between two bounds, in the datatype of ``x``; NaN stays.

    Attributes:
        min: None for no bound.
        max: likewise.
    """

    min: float | None = None
    max: float | None = None

    def __post_init__(self) -> None:
        """Refuse bounds that exclude each other."""
        if self.min is not None and self.max is not None and self.min > self.max:
            raise InvalidInputError(f"step clip has min {self.min} above max {self.max}")


class Threshold(StepBase, frozen=True, kw_only=True, tag="threshold"):
    """BOOL: where ``x`` is at least ``at``; NaN isn't."""

    at: float


class Softmax(StepBase, frozen=True, kw_only=True, tag="softmax"):
    """``exp(x - max) / sum(exp(x - max))`` along an axis; datatypes as of `Rescale`."""

    axis: Axis = -1


class ArgMax(StepBase, frozen=True, kw_only=True, tag="argmax"):
    """INT64: where along an axis the largest number is; the first of equal ones, or the first NaN.

    Attributes:
        axis: to search along.
        keep: keep it with length 1 instead of leaving it out.
    """

    axis: Axis = -1
    keep: bool = False


class TopK(StepBase, frozen=True, kw_only=True, tag="top_k"):
    """The largest numbers along an axis, largest first, and where they were.

    Of equal numbers the one that comes first goes first; NaN goes before all numbers. The first
    result has the numbers, the second their indices in INT64.

    Attributes:
        k: how many; not more than there are.
        axis: to search along.
        indices: what the second result is called.
    """

    k: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
    axis: Axis = -1
    indices: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] = "indices"


class Label(StepBase, frozen=True, kw_only=True, tag="label"):
    """BYTES: the name of each class index.

    Attributes:
        labels: names by index; empty for the labels of the bundle.
    """

    labels: Annotated[tuple[str, ...], msgspec.Meta(max_length=_MAX_LABELS)] = ()


Operation = (
    Cast
    | Rescale
    | Normalize
    | Transpose
    | Reshape
    | ExpandDims
    | Squeeze
    | Resize
    | Clip
    | Threshold
    | Softmax
    | ArgMax
    | TopK
    | Label
)
"""A step that computes something."""

Step = Given | Operation
"""One of the steps above, told apart on the wire by its field ``step``."""

STEP_NAMES: tuple[str, ...] = tuple(str(kind.__struct_config__.tag) for kind in get_args(Step))
"""What the field ``step`` may say."""


def step_name(step: Step) -> str:
    """What the field ``step`` says of it."""
    return str(type(step).__struct_config__.tag)


def read_steps(plain: Sequence[dict[str, Any]], *, what: str) -> tuple[Step, ...]:
    """The steps of a document's ``preprocessing`` or ``postprocessing``.

    Args:
        plain: as the document has them.
        what: how errors call them.

    Raises:
        UnknownFeatureError: a step is unknown here.
        DocumentError: a step is malformed, or there are more than `MAX_STEPS`.
    """
    if len(plain) > MAX_STEPS:
        msg = f"{what} has {len(plain)} steps, {MAX_STEPS} are allowed"
        raise DocumentError(msg)
    return tuple(_read(one, f"step {number} of {what}") for number, one in enumerate(plain, 1))


def _read(plain: dict[str, Any], where: str) -> Step:
    name = plain.get("step")
    if name not in STEP_NAMES:
        raise UnknownFeatureError(
            f"{where} is {str(name)[:100]!r}, which is unknown here",
            features=(f"step {str(name)[:100]}",),
            cure=f"upgrade this side, or use one of {', '.join(STEP_NAMES)}",
        )
    try:
        step: Step = convert(plain, Step)
    except (ValueError, TypeError) as error:
        refusal = error.__cause__
        reason = refusal.message if isinstance(refusal, InvalidInputError) else str(error)
        msg = f"{where} ({name}) is malformed: {reason}"
        raise DocumentError(msg) from error
    return step


def plain_steps(steps: Sequence[Step]) -> tuple[dict[str, Any], ...]:
    """Steps as `edgefleet.protocol.bundle.Details` holds them.

    Raises:
        DocumentError: a step says what no reader would accept, or there are too many.
    """
    written = read_steps(tuple(map(_plain, steps)), what="steps")
    return tuple(map(_plain, written))  # numbers as a reader takes them: 1 has become 1.0


def _plain(step: Step) -> dict[str, Any]:
    plain: dict[str, Any] = decoder(dict).decode(msgspec.json.encode(step))
    return plain
