"""Reference sketches: how inputs and answers were distributed when the model was judged.

Devices tell drift by them.

A KLL sketch of more numbers than its parameter compacts at random, and a bundle must have the same
digest twice. So each feature is first reduced to `POINTS` quantiles, evenly spaced in rank, which
the sketch holds exactly: off by 0.4 % in rank, where a sketch of everything may be off by 0.9 %.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from edgefleet.optimization.libraries import available
from edgefleet.optimization.sessions import open_session
from edgefleet.protocol.documents import to_builtins
from edgefleet.protocol.scores import best_of
from edgefleet.protocol.sketch import MAX_CLASSES, sketch_classes, sketch_numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgefleet.optimization.artifact import Artifact
    from edgefleet.optimization.samples import Samples

log = logging.getLogger(__name__)

POINTS = 128  # fewer than the sketch's K, so that it keeps every one
MAX_FEATURES = 64
"""An input of up to this many values a sample is sketched by feature, a larger one as a whole."""
MAX_ANSWERED = 512  # calls of the model for the sketches of its answers
MAX_VALUES = 1 << 20
"""Values of a large input that are looked at: sorting all takes long and adds nothing."""


def reference_sketches(samples: Samples, *, seed: int) -> dict[str, Any]:
    """Sketches of numeric inputs: ``name[i]`` by flat index for small ones, ``name`` for large.

    Empty where the datasketches library isn't installed. The counts in them are of quantiles.
    """
    if not available("datasketches"):
        log.info("no reference sketches: the datasketches library is not installed")
        return {}
    found: dict[str, Any] = {}
    for name, array in samples.arrays.items():
        if array.dtype.kind not in "fiub" or not array.size:
            continue
        features = array.reshape(len(array), -1)
        if features.shape[1] <= MAX_FEATURES:
            for index in range(features.shape[1]):
                found[f"{name}[{index}]"] = _sketch(features[:, index])
        else:
            found[name] = _sketch(_some(features, seed))
    return found


def answer_sketches(artifact: Artifact, samples: Samples) -> dict[str, Any]:
    """Sketches of what a model answers: ``OUTPUT:score`` and ``OUTPUT:top``, where it gives scores.

    Each sample is a request of its own, or as many together as the model wants; of many, up to
    `MAX_ANSWERED` evenly spread ones are run. Empty where the datasketches library isn't installed.

    Raises:
        InvalidModelError: its engine can't load it.
        InvalidInputError: it fails on a sample.
    """
    if not available("datasketches"):
        return {}
    import numpy as np

    session = open_session(artifact)
    starts = samples.starts()
    found: dict[str, tuple[list[int], list[float]]] = {}
    for start in starts[:: -(-len(starts) // MAX_ANSWERED) or 1]:
        for name, array in session.run(samples.smallest(start)).items():
            best = best_of(array)
            if best is not None:
                tops, scores = found.setdefault(name, ([], []))
                tops.extend(best[0].tolist())
                scores.extend(best[1].tolist())
    sketches: dict[str, Any] = {}
    for name, (tops, scores) in found.items():
        sketches[f"{name}:score"] = _sketch(np.asarray(scores))
        if max(tops) < MAX_CLASSES:
            sketches[f"{name}:top"] = to_builtins(sketch_classes(tops))
    return sketches


def _some(values: NDArray[Any], seed: int) -> NDArray[Any]:
    import numpy as np

    flat = values.reshape(-1)
    if flat.size <= MAX_VALUES:
        return flat
    picked: NDArray[Any] = flat[np.random.default_rng(seed).integers(0, flat.size, MAX_VALUES)]
    return picked


def _sketch(values: NDArray[Any]) -> dict[str, Any]:
    import numpy as np

    ordered = np.sort(values.astype(np.float32))
    if ordered.size > POINTS:
        ordered = ordered[((np.arange(POINTS) + 0.5) * ordered.size / POINTS).astype(np.int64)]
    return to_builtins(sketch_numbers(ordered))
