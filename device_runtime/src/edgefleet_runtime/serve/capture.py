"""A capture: one request's tensors as files, ready to be kept by a recorder."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from numpy.typing import NDArray

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
    """

    id: str
    model: str
    version: str
    time: datetime
    inputs: Mapping[str, bytes]
    outputs: Mapping[str, bytes]
    reason: str = BY_APPLICATION

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
