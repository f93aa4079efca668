"""Redaction: hooks that take out of an input what must not be stored, before it is.

Rules kept here:

- What isn't redacted as the policy says isn't stored: a hook that is unknown, fails, or gives back
  no array takes the input out of the sample. That is counted, and told once a release.
- Hooks are named in the policy as ``NAME`` or ``NAME:NUMBER``, and run in its order.
- Of a picture the last two axes count, or those before a last one of 1, 3 or 4 channels. Where the
  model's interface has the shape, it decides; what is no picture, ``blur`` and ``pixelate`` refuse.
"""

from __future__ import annotations

import logging
import threading
from fnmatch import fnmatchcase
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import numpy as np

from edgefleet.errors import EdgeFleetError, InvalidInputError, NotFoundError
from edgefleet.protocol.event import HealthEvent
from edgefleet.protocol.policy import TelemetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from edgefleet.protocol.bundle import TensorSpec
    from edgefleet.protocol.event import EventData

    Hook = Callable[[NDArray[Any], TensorSpec | None, float | None], NDArray[Any] | None]
    """Called with an input that it must not write to, what the interface says of it, and the number
    in the policy, if there is one. Gives the redacted input of the same dtype and shape, or None
    to have it not stored. It may raise anything: the input then isn't stored either."""

_log = logging.getLogger(__name__)

GROUP = "edgefleet_runtime.redactions"
"""Entry points by which a device's own hooks are found: name -> `Hook`."""
CHANNELS = frozenset({1, 3, 4})
PARTS = 16  # into which ``blur`` and ``pixelate`` part a picture's shorter side, unless told


def blur(array: NDArray[Any], spec: TensorSpec | None, number: float | None) -> NDArray[Any]:
    """A picture averaged over squares around each point, twice; ``number`` is their side.

    Who knows the method may win some of it back: `pixelate` and `drop` take away for good.
    """
    rows, columns = _picture(array, spec)
    side = _side(array, rows, columns, number)
    result = array.astype(np.float64)
    for axis in (rows, columns) * 2:
        result = _averaged(result, axis, side)
    return _like(result, array)


def pixelate(array: NDArray[Any], spec: TensorSpec | None, number: float | None) -> NDArray[Any]:
    """A picture in squares of their mean; ``number`` is their side."""
    rows, columns = _picture(array, spec)
    side = _side(array, rows, columns, number)
    result = array.astype(np.float64)
    for axis in (rows, columns):
        starts = np.arange(0, array.shape[axis], side)
        counts = np.diff(np.append(starts, array.shape[axis]))
        sums = np.add.reduceat(result, starts, axis=axis)
        lengths = counts.reshape([-1 if at == axis else 1 for at in range(array.ndim)])
        result = np.repeat(sums / lengths, counts, axis=axis)
    return _like(result, array)


def noise(array: NDArray[Any], spec: TensorSpec | None, number: float | None) -> NDArray[Any]:
    """Numbers with normal noise; ``number`` is its deviation, of the input's own, 1 by default."""
    del spec
    if array.dtype.kind not in "fiu":
        raise InvalidInputError(f"noise needs numbers, not {array.dtype}")
    values = array.astype(np.float64)
    # Where all are alike, or infinite, there is no deviation to go by.
    spread = float(np.std(values[np.isfinite(values)])) if np.isfinite(values).any() else 0.0
    scale = (1.0 if number is None else number) * (spread or 1.0)
    return _like(values + np.random.default_rng().normal(0.0, scale, array.shape), array)


def drop(array: NDArray[Any], spec: TensorSpec | None, number: float | None) -> None:
    """Nothing: the input isn't stored."""
    del array, spec, number


BUILT_IN: dict[str, Hook] = {"blur": blur, "pixelate": pixelate, "noise": noise, "drop": drop}


class Redactor:
    """Redacts what is about to be stored; any thread may call it.

    Args:
        tell: takes health events.
        hooks: a device's own, by name; those of entry points besides.
    """

    def __init__(
        self, tell: Callable[[EventData], object], hooks: Mapping[str, Hook] | None = None
    ) -> None:
        self.withheld = 0
        """Inputs that weren't stored because they couldn't be redacted."""
        self._tell = tell
        self._hooks = {**BUILT_IN, **(hooks or {})}
        self._told: tuple[TelemetryPolicy, set[str]] = (TelemetryPolicy(), set())
        self._lock = threading.Lock()

    def redact(
        self,
        policy: TelemetryPolicy,
        model: str,
        inputs: Mapping[str, NDArray[Any]],
        specs: Mapping[str, TensorSpec],
    ) -> tuple[dict[str, NDArray[Any]], dict[str, tuple[str, ...]]]:
        """What may be stored of a model's inputs, and the hooks that changed each.

        Args:
            policy: under which the inputs were taken.
            model: its name.
            inputs: by name.
            specs: what the model's interface says of them.
        """
        kept: dict[str, NDArray[Any]] = {}
        changed: dict[str, tuple[str, ...]] = {}
        for name, array in inputs.items():
            if not policy.may_keep(model, name):
                continue
            hooks = _asked(policy, model, name)
            try:
                result = self._through(hooks, array, specs.get(name))
            except Exception as error:  # noqa: BLE001 - hooks are others' code
                self._withhold(policy, f"{model}/{name}", error)
                continue
            if result is not None:
                kept[name] = result
                if hooks:
                    changed[name] = hooks
        return kept, changed

    def _through(
        self, hooks: tuple[str, ...], array: NDArray[Any], spec: TensorSpec | None
    ) -> NDArray[Any] | None:
        result = array
        for asked in hooks:
            name, _, number = asked.partition(":")
            view = result.view()
            view.flags.writeable = False
            given: Any = self._hook(name)(view, spec, float(number) if number else None)
            if given is None:
                return None
            alike = isinstance(given, np.ndarray) and (given.dtype, given.shape) == (
                array.dtype,
                array.shape,
            )
            if not alike:
                raise InvalidInputError(f"{name!r} gave no array like the input")
            result = given
        return result

    def _hook(self, name: str) -> Hook:
        if name not in self._hooks:
            for entry in entry_points(group=GROUP, name=name):
                self._hooks[name] = entry.load()
                break
            else:
                known = ", ".join(sorted(self._hooks))
                raise NotFoundError(f"no redaction {name!r} here", cure=f"there are: {known}")
        return self._hooks[name]

    def _withhold(self, policy: TelemetryPolicy, what: str, error: Exception) -> None:
        with self._lock:
            self.withheld += 1
            if self._told[0] != policy:
                self._told = (policy, set())
            if what in self._told[1]:
                return
            self._told[1].add(what)
        said = error.message if isinstance(error, EdgeFleetError) else f"{type(error).__name__}"
        _log.warning("input %s isn't stored: %s", what, said)
        message = f"input {what} isn't stored, it can't be redacted: {said}"[:512]
        self._tell(HealthEvent(what="redaction-failed", message=message))


def _asked(policy: TelemetryPolicy, model: str, name: str) -> tuple[str, ...]:
    """The hooks of every pattern that fits an input, in the policy's order."""
    where = f"{model}/{name}"
    return tuple(
        hook
        for pattern, hooks in policy.redact.items()
        if fnmatchcase(where, pattern)
        for hook in hooks
    )


def _picture(array: NDArray[Any], spec: TensorSpec | None) -> tuple[int, int]:
    """The axes of rows and columns.

    Raises:
        InvalidInputError: it is no picture.
    """
    shape = spec.shape if spec is not None and len(spec.shape) == array.ndim else array.shape
    if array.dtype.kind not in "fiub" or array.ndim < 2 or not array.size:
        raise InvalidInputError(f"no picture of numbers: {array.dtype}, shape {array.shape}")
    last = array.ndim - 1
    channels_last = array.ndim > 2 and shape[last] in CHANNELS
    if channels_last and not (array.ndim > 3 and shape[last - 2] in CHANNELS and shape[last] == 1):
        last -= 1
    rows, columns = last - 1, last
    if min(array.shape[rows], array.shape[columns]) < 2 or (
        array.ndim == 2 and (spec is None or -1 in spec.shape[:1])
    ):
        raise InvalidInputError(f"no picture: shape {array.shape}")
    return rows, columns


def _side(array: NDArray[Any], rows: int, columns: int, number: float | None) -> int:
    """Side of the squares in points.

    Raises:
        InvalidInputError: it is less than two.
    """
    shorter = min(array.shape[rows], array.shape[columns])
    side = max(2, shorter // PARTS) if number is None else int(number)
    if side < 2:
        raise InvalidInputError(f"squares of {number:g} points hide nothing")
    return side


def _averaged(values: NDArray[Any], axis: int, side: int) -> NDArray[Any]:
    """Means over so many neighbours along an axis; fewer at the ends."""
    length = values.shape[axis]
    sums = np.cumsum(np.moveaxis(values, axis, 0), axis=0)
    sums = np.concatenate([np.zeros_like(sums[:1]), sums])
    at = np.arange(length)
    low, high = np.maximum(at - side // 2, 0), np.minimum(at - side // 2 + side, length)
    counts = (high - low).reshape(-1, *[1] * (values.ndim - 1))
    return np.moveaxis((sums[high] - sums[low]) / counts, 0, axis)


def _like(values: NDArray[Any], array: NDArray[Any]) -> NDArray[Any]:
    """The values in the dtype of the input."""
    if array.dtype.kind in "iu":
        limits = np.iinfo(array.dtype)
        values = np.rint(values).clip(limits.min, limits.max)
    elif array.dtype.kind == "b":
        values = values >= 0.5
    return values.astype(array.dtype)
