"""What a request asks for: its inputs, whom it may run with, and how its answer is written.

Rules kept here:

- Nothing here knows a protocol: a `Plan` reads inputs, its `Writer` makes the answer of whichever
  protocol the request came by. Plans with equal keys may run together, however they came.
- Inputs are ordered by name, so that the order in which a client names them tells no plans apart.
- A `SlicedPlan` says where tensors lie in bytes that clients repeat: it is made once and followed
  by every request like it. A `ReadPlan` is one request's own.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np

from edgefleet_runtime.serve.queueing import DEFAULT_PRIORITY

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from numpy.typing import NDArray

    from edgefleet_runtime.serve.table import ServedModel

    Arrays = Mapping[str, NDArray[Any]]
    Parameters = Mapping[str, str | int | float | bool]

A = TypeVar("A")
Description = tuple[str, "np.dtype[Any]", tuple[int, ...]]  # name, dtype and shape of an input

NO_FIXED_BYTES = frozenset({"BYTES", "BOOL"})  # of any length; or with bytes to be looked at
HEEDED = frozenset({"priority", "timeout"})  # parameters that change nothing but a request's turn
_VIEWED_FROM = 1 << 16  # bytes; of smaller outputs a copy is cheaper than views


class Slice(NamedTuple):
    """An input, and where its raw bytes start and stop."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    stop: int


class Column(NamedTuple):
    """An output of a batch: shape of a row, bytes of all rows, bytes of one."""

    row: tuple[int, ...]
    data: bytes | memoryview
    row_bytes: int


class Joined:
    """The outputs of a run that answers several requests.

    Args:
        outputs: by name.
        rows: how many each of them has.

    Attributes:
        columns: the outputs as bytes; None where they have no fixed size.
        writer: which of the writers answered the request before.
        each: how many rows that had.
        head: what stands before these rows; the same where both are.

    Raises:
        ValueError: an output has another number of rows.
    """

    __slots__ = ("columns", "each", "head", "outputs", "writer")

    def __init__(self, outputs: Arrays, rows: int) -> None:
        if any(array.shape[:1] != (rows,) for array in outputs.values()):
            raise ValueError("outputs don't have the rows of inputs")
        self.outputs = outputs
        self.writer: Writer[Any] | None = None
        self.each = 0
        self.head: Any = None
        self.columns: list[Column] | None = None
        fixed = all(array.dtype.kind not in "OSU" for array in outputs.values())
        if fixed and sys.byteorder == "little":
            self.columns = [
                Column(array.shape[1:], _bytes_of(array), array.nbytes // rows)
                for array in outputs.values()
            ]

    def rows(self, start: int, stop: int) -> dict[str, NDArray[Any]]:
        """The outputs of one request."""
        return {name: array[start:stop] for name, array in self.outputs.items()}


class Writer(ABC, Generic[A]):
    """Makes answers of one protocol."""

    __slots__ = ()

    @abstractmethod
    def answer(self, served: ServedModel, outputs: Arrays) -> A:
        """The answer with these outputs.

        Raises:
            EdgeFleetError: the protocol can't carry them.
        """

    def part(self, served: ServedModel, joined: Joined, start: int, stop: int) -> A:
        """The answer with these rows of a batch; errors as of `answer`."""
        return self.answer(served, joined.rows(start, stop))

    def parts(self, served: ServedModel, joined: Joined, rows: int, count: int) -> list[A]:
        """The first ``count`` answers of a batch, of so many rows each; errors as of `answer`."""
        starts = range(0, rows * count, rows)
        return [self.part(served, joined, start, start + rows) for start in starts]


class Plan(ABC, Generic[A]):
    """What one request asks for, or many alike.

    Args:
        inputs: what comes in; those of a request that can share a run have one first length.
        wanted: outputs asked for, in this order; None for all.
        request_id: to be repeated in the answer.
        parameters: of the request.
        writer: makes the answer.

    Attributes:
        columns: name, dtype and shape of a row of each input.
        key: equal for plans whose requests may run together.
        rows: length of the first dimension, which all inputs share; 0 where they don't.
        priority: lower goes first.
        timeout_us: how long the answer is of use; None for ever.
    """

    __slots__ = ("columns", "id", "key", "priority", "rows", "timeout_us", "wanted", "writer")

    def __init__(
        self,
        inputs: Sequence[Description],
        *,
        wanted: tuple[str, ...] | None,
        request_id: str | None,
        parameters: Parameters,
        writer: Writer[A],
    ) -> None:
        self.wanted = wanted
        self.id = request_id
        self.writer = writer
        self.priority, self.timeout_us = urgency(parameters)
        firsts = {shape[0] if shape else 0 for _, _, shape in inputs}
        self.rows = firsts.pop() if len(firsts) == 1 else 0
        self.columns = tuple((name, dtype, shape[1:]) for name, dtype, shape in inputs)
        self.key: Hashable = (wanted, self.columns)

    @abstractmethod
    def arrays(self, data: bytes) -> dict[str, NDArray[Any]]:
        """The inputs by name; views where alignment allows.

        Args:
            data: the request's bytes.
        """

    def run(
        self, served: ServedModel, inputs: Arrays, *, watched: bool
    ) -> tuple[dict[str, NDArray[Any]], float]:
        """Run the model for this request alone; gives what `ServedModel.infer` gives.

        Args:
            served: the model, leased.
            inputs: as `arrays` gave them.
            watched: whether somebody is told of outputs.
        """
        del watched
        return served.infer(inputs, self.wanted, lasting=True)

    @abstractmethod
    def raw(self, data: bytes, index: int) -> bytes | NDArray[Any]:
        """The bytes of an input, by its place among those of the key."""


class SlicedPlan(Plan[A]):
    """Where tensors lie in bytes that have come before; arguments as of `Plan`.

    Args:
        inputs: what comes in, and where.
    """

    __slots__ = ("_spans", "inputs")

    def __init__(self, inputs: Sequence[Slice], **more: Any) -> None:  # noqa: ANN401 - Plan's
        self.inputs = tuple(sorted(inputs))
        self._spans = [slice(found.start, found.stop) for found in self.inputs]
        super().__init__([(name, dtype, shape) for name, dtype, shape, _, _ in self.inputs], **more)

    def arrays(self, data: bytes) -> dict[str, NDArray[Any]]:
        arrays: dict[str, NDArray[Any]] = {}
        for name, dtype, shape, start, stop in self.inputs:
            if start % dtype.itemsize:  # a slice of bytes is a copy, aligned again
                array = np.frombuffer(data[start:stop], dtype)
            else:
                array = np.frombuffer(data, dtype, (stop - start) // dtype.itemsize, start)
            arrays[name] = array.reshape(shape)
        return arrays

    def raw(self, data: bytes, index: int) -> bytes:
        return data[self._spans[index]]


class ReadPlan(Plan[A]):
    """One request, its inputs decoded; arguments as of `Plan`.

    Args:
        inputs: by name.
    """

    __slots__ = ("_inputs",)

    def __init__(self, inputs: Arrays, **more: Any) -> None:  # noqa: ANN401 - Plan's
        self._inputs = dict(sorted(inputs.items()))
        described = [(name, array.dtype, array.shape) for name, array in self._inputs.items()]
        super().__init__(described, **more)

    def arrays(self, data: bytes) -> dict[str, NDArray[Any]]:
        return self._inputs

    def raw(self, data: bytes, index: int) -> NDArray[Any]:
        return np.ascontiguousarray([*self._inputs.values()][index])


def urgency(parameters: Parameters) -> tuple[int, float | None]:
    """Priority and time limit in microseconds of a request, as Triton's parameters give them.

    What isn't a whole number above 0 counts as not given, as 0 does in Triton.
    """
    timeout = _count(parameters.get("timeout"))
    return (
        _count(parameters.get("priority")) or DEFAULT_PRIORITY,
        None if timeout is None else float(timeout),
    )


def _count(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    return None


def _bytes_of(array: NDArray[Any]) -> bytes | memoryview:
    if array.nbytes < _VIEWED_FROM:
        return array.tobytes()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
