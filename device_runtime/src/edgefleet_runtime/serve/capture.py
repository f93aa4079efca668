"""A capture: one request's tensors as files, ready to be kept by a recorder."""

from __future__ import annotations

import io
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from numpy.typing import NDArray

    from edgefleet.protocol.event import OutputSummary

BY_APPLICATION = "captured by the application"


class Capture(NamedTuple):
    """One capture, ready to be kept.

    Attributes:
        id: its event's.
        model: the model's name.
        version: the version that served when it came.
        time: of the inference.
        inputs: the content of a file by the tensor's name: numpy's format; an application's
            auxiliary data is as it came, and its name has an ending that tells the encoding.
        outputs: likewise.
        reason: why it is kept.
        bundle: digest of the model's; empty where it isn't known.
        answers: the outputs in short.
        redacted: hooks that changed an input, by its name.
    """

    id: str
    model: str
    version: str
    time: datetime
    inputs: Mapping[str, bytes]
    outputs: Mapping[str, bytes]
    reason: str = BY_APPLICATION
    bundle: str = ""
    answers: tuple[OutputSummary, ...] = ()
    redacted: Mapping[str, tuple[str, ...]] = MappingProxyType({})

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(map(len, (*self.inputs.values(), *self.outputs.values())))


class Recorder(Protocol):
    """Keeps captures; called on a thread of its own, one at a time."""

    def record(self, capture: Capture, done: Callable[[bool], None], /) -> None:
        """Keep a capture, and call ``done`` once, on any thread: True when it outlives a crash.

        Raises:
            EdgeFleetError: it can't be kept; in place of the call.
            OSError: likewise.
        """


def npy(array: NDArray[Any]) -> bytes:
    """An array as a file that ``numpy.load`` reads, with its type and shape.

    Strings become numpy's of one length, which lose zero bytes at their ends.
    """
    if array.dtype.hasobject:
        array = array.astype(np.bytes_)
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def bytes_of(arrays: Mapping[str, NDArray[Any]]) -> int:
    """Bytes of arrays; of strings their own, too."""
    return sum(
        array.nbytes + (sum(len(item) for item in array.flat) if array.dtype.kind == "O" else 0)
        for array in arrays.values()
    )
