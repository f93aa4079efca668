"""Holds what a caller feeds a model against the model's interface, before the engine sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgefleet.errors import InvalidInputError
from edgefleet.protocol.names import several
from edgefleet.protocol.tensors import datatype_of, dtype_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from edgefleet.protocol.bundle import Interface


class FeedCheck:
    """The checks of one model; may be used by several threads.

    Args:
        interface: the model's.
        text: turn BYTES into ``str``; else they are handed on as they are.
    """

    def __init__(self, interface: Interface, *, text: bool = True) -> None:
        self._text = text
        self._inputs = {
            spec.name: (spec.datatype, dtype_of(spec.datatype), spec.shape, _fixed(spec.shape))
            for spec in interface.inputs
        }
        self._outputs = frozenset(spec.name for spec in interface.outputs)

    def feed(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The inputs as an engine takes them.

        Raises:
            InvalidInputError: an input is missing, unknown, no array, or of another datatype or
                shape.
        """
        feed: dict[str, NDArray[Any]] = {}
        try:
            for name, (datatype, dtype, shape, fixed) in self._inputs.items():
                array = inputs.get(name)
                if array is None:
                    msg = f"input {name!r} is missing"
                    raise InvalidInputError(msg, cure=self._cure())
                if array.dtype is not dtype and array.dtype != dtype:
                    seen = datatype_of(array.dtype)
                    if seen != datatype:
                        msg = f"input {name!r} takes {datatype}, not {seen}"
                        raise InvalidInputError(msg)
                # A model that doesn't tell an input's rank looks like one that takes a scalar.
                if shape and array.shape != shape and not _fits(array.shape, len(shape), fixed):
                    msg = f"input {name!r} takes shape {list(shape)}, not {list(array.shape)}"
                    raise InvalidInputError(msg, cure="-1 stands for any length")
                feed[name] = _text(array, name) if self._text and datatype == "BYTES" else array
        except AttributeError as error:  # asked for afterwards: this is on the way of every request
            msg = "the inputs are no mapping of names to NumPy arrays"
            raise InvalidInputError(msg, cure=self._cure()) from error
        if len(inputs) != len(feed):
            unknown = ", ".join(repr(name) for name in inputs if name not in feed)
            msg = f"the model has no input {unknown}"
            raise InvalidInputError(msg, cure=self._cure())
        return feed

    def wanted(self, outputs: Iterable[str]) -> list[str]:
        """The outputs asked for.

        Raises:
            InvalidInputError: the model has no such output, or one text is given for a list.
        """
        names = several(outputs, "outputs", '["scores"]')
        for name in names:
            if name not in self._outputs:
                msg = f"the model has no output {name!r}"
                raise InvalidInputError(msg, cure=f"it has {', '.join(sorted(self._outputs))}")
        return list(names)

    def _cure(self) -> str:
        return f"it takes {', '.join(f'{name} ({kind[0]})' for name, kind in self._inputs.items())}"


def _fixed(shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Index and length of the dimensions that can't have any length."""
    return tuple((index, length) for index, length in enumerate(shape) if length != -1)


def _fits(seen: tuple[int, ...], rank: int, fixed: tuple[tuple[int, int], ...]) -> bool:
    if len(seen) != rank:
        return False
    for index, length in fixed:  # noqa: SIM110 - a generator takes 1 µs to begin
        if seen[index] != length:
            return False
    return True


def _text(array: NDArray[Any], name: str) -> NDArray[Any]:
    """String tensors are UTF-8 text in ONNX (onnx.proto3: ``string_data``)."""
    text = np.empty(array.size, object)
    for index, element in enumerate(array.reshape(-1).tolist()):
        if isinstance(element, bytes):
            try:
                text[index] = element.decode()
            except UnicodeDecodeError as error:
                msg = f"element {index} of input {name!r} is not UTF-8"
                raise InvalidInputError(msg) from error
        elif isinstance(element, str):
            text[index] = element
        else:
            msg = f"element {index} of input {name!r} is {type(element).__name__}, not text"
            raise InvalidInputError(msg)
    return text.reshape(array.shape)
