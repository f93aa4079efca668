"""The caller's arrays, held against a model's interface and cut into what one call takes.

Rules kept here:

- The first axis of every array counts samples, also where the model itself takes no batches.
- Dtypes are converted only where every value survives: numbers to floats, whole numbers to a
  narrower type that holds them. Never a float to a whole number.
- Wrong data is an `InvalidInputError` that names the input and what it should have been.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

from edgefleet.errors import InvalidInputError
from edgefleet.protocol.tensors import dtype_of, to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from edgefleet.protocol.bundle import Interface, TensorSpec

    Feed = dict[str, NDArray[Any]]
    """What one call of a model takes: input name -> array."""

MIN_CALIBRATION_SAMPLES = 10
"""Fewer say too little of an activation's range; some hundred are customary."""

BATCH = 32  # samples in one call while calibrating, where the model takes any number


@dataclass(frozen=True, slots=True)
class Samples:
    """Checked arrays of equal length.

    Attributes:
        arrays: input name -> array, in the model's dtypes.
        count: samples in each.
        step: samples that one call takes; None where any number fits.
        bare: inputs whose samples go in without a batch axis.
    """

    arrays: dict[str, NDArray[Any]]
    count: int
    step: int | None
    bare: frozenset[str]

    def feeds(self, batch: int = BATCH) -> Iterator[Feed]:
        """The samples in order, ``batch`` a call unless the model wants its own number of them."""
        step = self.step or batch
        for start in range(0, self.count, step):
            if start + step <= self.count or self.step is None:
                yield self.feed(start, start + step)

    def feed(self, start: int, stop: int) -> Feed:
        """The samples from ``start`` to ``stop`` as one call takes them."""
        return {
            name: array[start] if name in self.bare else array[start:stop]
            for name, array in self.arrays.items()
        }

    def starts(self) -> range:
        """Where calls of the smallest size may start."""
        step = self.step or 1
        return range(0, self.count - step + 1, step)

    def smallest(self, start: int) -> Feed:
        """The smallest call from ``start`` on: one sample, or as many as the model wants."""
        return self.feed(start, start + (self.step or 1))

    def digest(self) -> str:
        """Digest of names, dtypes, shapes and values."""
        hasher = hashlib.sha256()
        for name, array in sorted(self.arrays.items()):
            hasher.update(f"{name}\n{array.dtype.str}\n{array.shape}\n".encode())
            hasher.update(to_bytes(array, name=name))
        return "sha256:" + hasher.hexdigest()


def arrange(values: object, interface: Interface, *, what: str) -> Samples:
    """Hold arrays against an interface.

    Args:
        values: an array where the model has one input, else a mapping of input name to array.
        interface: of the model.
        what: names the data in messages, such as ``calibration``.

    Raises:
        InvalidInputError: wrong names, dtypes, shapes or lengths.
    """
    given = _by_name(values, interface, what)
    arrays: dict[str, NDArray[Any]] = {}
    bare: set[str] = set()
    steps: set[int] = set()
    for spec in interface.inputs:
        array = _as_array(given[spec.name], spec, what)
        if _fits(array.shape, (-1, *spec.shape)):
            bare.add(spec.name)
            steps.add(1)
        elif spec.shape and _fits(array.shape, (-1, *spec.shape[1:])):
            steps |= {spec.shape[0]} if spec.shape[0] > 0 else set()
        else:
            raise InvalidInputError(
                f"{what}[{spec.name!r}] has shape {array.shape}, "
                f"the model takes {_shape_text(spec)}",
                cure="the first axis counts samples, the others are as the model has them",
            )
        arrays[spec.name] = array
    counts = {len(array) for array in arrays.values()}
    if len(counts) != 1:
        raise InvalidInputError(
            f"{what}: the inputs have different numbers of samples: {sorted(counts)}",
            cure="give every input the same first axis",
        )
    if len(steps) > 1:
        raise InvalidInputError(
            f"{what}: the inputs take different numbers of samples in one call: {sorted(steps)}",
            cure="give one whole call a sample: an axis more in front of every input",
        )
    count, step = counts.pop(), steps.pop() if steps else None
    if count < (step or 1):
        raise InvalidInputError(f"{what} has {count} samples, one call takes {step or 1}")
    return Samples(arrays=arrays, count=count, step=step, bare=frozenset(bare))


def calibration_samples(values: object, interface: Interface) -> Samples:
    """Calibration data, also checked for missing values and for being enough.

    Raises:
        InvalidInputError: as `arrange`, or NaN, infinity, or fewer than `MIN_CALIBRATION_SAMPLES`.
    """
    import numpy as np

    samples = arrange(values, interface, what="calibration")
    for name, array in samples.arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InvalidInputError(
                f"calibration[{name!r}] holds NaN or infinity",
                cure="leave those samples out, or fill them as your preprocessing does",
            )
    if samples.count < MIN_CALIBRATION_SAMPLES:
        raise InvalidInputError(
            f"calibration has {samples.count} samples, {MIN_CALIBRATION_SAMPLES} are needed",
            cure="give some hundred that look like what devices will see",
        )
    return samples


def _by_name(values: object, interface: Interface, what: str) -> dict[str, object]:
    wanted = [spec.name for spec in interface.inputs]
    if not isinstance(values, Mapping):
        if len(wanted) == 1:
            return {wanted[0]: values}
        raise InvalidInputError(
            f"the model has {len(wanted)} inputs: {', '.join(wanted)}",
            cure=f"give {what} as a mapping of input name to array",
        )
    missing = [name for name in wanted if name not in values]
    unknown = [str(name) for name in values if name not in wanted]
    if missing or unknown:
        said = [f"lacks {', '.join(missing)}"] if missing else []
        said += [f"has {', '.join(unknown)}, which the model doesn't"] if unknown else []
        raise InvalidInputError(
            f"{what} {' and '.join(said)}", cure=f"the model's inputs are {', '.join(wanted)}"
        )
    return {name: values[name] for name in wanted}


def _as_array(value: object, spec: TensorSpec, what: str) -> NDArray[Any]:
    import numpy as np

    if isinstance(value, PathLike) or (isinstance(value, str) and spec.datatype != "BYTES"):
        raise InvalidInputError(
            f"{what}[{spec.name!r}] is a path, not data", cure="load it first, with numpy.load"
        )
    try:
        array = np.asarray(value)
    except ValueError as error:  # lists of unequal lengths
        raise InvalidInputError(f"{what}[{spec.name!r}] is no array: {error}") from error
    wanted = dtype_of(spec.datatype)
    if array.dtype == wanted:
        return array
    converted = _converted(array, wanted)
    if converted is None:
        raise InvalidInputError(
            f"{what}[{spec.name!r}] has dtype {array.dtype}, the model takes {spec.datatype}",
            cure=f"convert it: array.astype({wanted.name!r})",
        )
    return converted


def _converted(array: NDArray[Any], wanted: np.dtype[Any]) -> NDArray[Any] | None:
    """The array in another dtype; None where a value would not survive."""
    import numpy as np

    if wanted.kind == "O":
        return array.astype(object) if array.dtype.kind in "OSU" else None
    if wanted.kind == "f" and array.dtype.kind in "fiub":
        with np.errstate(over="ignore"):
            return array.astype(wanted)
    if wanted.kind in "iu" and array.dtype.kind in "iub":
        with np.errstate(all="ignore"):
            converted = array.astype(wanted)
        same = np.array_equal(converted, array) and np.array_equal(converted < 0, array < 0)
        return converted if same else None
    return None


def _fits(shape: tuple[int, ...], spec: tuple[int, ...]) -> bool:
    return len(shape) == len(spec) and all(
        due in {-1, length} for length, due in zip(shape, spec, strict=True)
    )


def _shape_text(spec: TensorSpec) -> str:
    lengths = ", ".join("any" if length < 0 else str(length) for length in spec.shape)
    return f"{spec.datatype}[{lengths}]"
