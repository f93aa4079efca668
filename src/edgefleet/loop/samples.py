"""A turn's samples as one file: what is trained on, and what is held back to compare on.

The same samples give the same bytes, so the file is addressed by its digest wherever it lies. Which
samples are held back depends on their ids alone: a sample that one turn holds back is held back by
every turn, and no candidate is ever compared on what it was trained on.
"""

from __future__ import annotations

import hashlib
import zipfile
from typing import TYPE_CHECKING, Any, NamedTuple

from edgefleet.errors import InvalidInputError
from edgefleet.protocol.files import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from edgefleet.loop.sources import Labelled

FILE = "samples.npz"
LABELS = "labels"
IDS = "ids"


class Arrays(NamedTuple):
    """Inputs by name, samples along the first axis, and a label each."""

    inputs: Mapping[str, NDArray[Any]]
    labels: NDArray[Any]

    def __len__(self) -> int:
        return len(self.labels)


def is_held_back(identity: str, share: float) -> bool:
    """Whether a sample is compared on rather than trained on."""
    number = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:4])
    return number < share * (1 << 32)


def write_samples(found: Labelled, path: Path) -> None:
    """Write samples with their ids; the same samples give the same bytes, in any order.

    Raises:
        InvalidInputError: an input has the name of what is written beside the inputs.
    """
    import numpy as np  # noqa: PLC0415 - an extra

    if taken := {LABELS, IDS} & {*found.inputs}:
        msg = f"an input is called {taken.pop()!r}, as the file's own arrays are"
        raise InvalidInputError(msg, cure="name the model's input otherwise")
    order = sorted(range(len(found.ids)), key=lambda index: found.ids[index])
    arrays = {name: array[order] for name, array in sorted(found.inputs.items())}
    arrays[LABELS] = found.labels[order]
    arrays[IDS] = np.array([found.ids[index] for index in order], dtype=np.str_)
    write_arrays(path, arrays)


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as ``numpy.load`` reads them, without a time of day in the file.

    Raises:
        StorageFullError: no room; the file that was there still is.
    """
    import numpy as np  # noqa: PLC0415 - an extra

    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        replacing(path) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # 1980-01-01
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)


def read_arrays(path: Path, *, labels: str = LABELS) -> Arrays:
    """Inputs and labels of a file.

    Raises:
        InvalidInputError: it holds no plain arrays, no labels, or not a label a sample.
    """
    import numpy as np  # noqa: PLC0415 - an extra

    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as held:
            arrays = {name: held[name] for name in held}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        msg = f"{path} holds no arrays by name: {error}"
        raise InvalidInputError(msg, cure="write it with numpy.savez") from error
    found = arrays.pop(labels, None)
    arrays.pop(IDS, None)
    if found is None or not arrays:
        msg = f"{path} holds {', '.join(arrays) or 'nothing'}: the inputs and {labels!r} are needed"
        raise InvalidInputError(msg, cure="write it with numpy.savez(path, INPUT=…, labels=…)")
    counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if set(counts.values()) != {len(found)} or not len(found):
        msg = f"{path} has {len(found)} labels for samples {counts}"
        raise InvalidInputError(msg, cure="give every input as many samples as there are labels")
    return Arrays(arrays, found)


def divided(path: Path, share: float, training: Path) -> Arrays:
    """Write what is trained on as `FILE` below ``training``, and return what is held back."""
    import numpy as np  # noqa: PLC0415 - an extra

    with np.load(path, allow_pickle=False) as held:
        arrays = {name: held[name] for name in held}
    back = np.array([is_held_back(str(one), share) for one in arrays[IDS]], dtype=bool)
    write_arrays(training / FILE, {name: array[~back] for name, array in arrays.items()})
    labels = arrays.pop(LABELS)[back]
    arrays.pop(IDS)
    return Arrays({name: array[back] for name, array in arrays.items()}, labels)
