"""Ranges of a model's activations on calibration samples, found by onnxruntime's calibrators.

MinMax ranges are of all samples, whatever their number. Histograms (percentile, entropy) are made
of all activations at once, so as many samples are used as `HISTOGRAM_BYTES` hold. Their number of
bins is set here: ``quantize_static`` gives entropy as many as there are steps, 128, which leaves
nothing to choose, and its ranges are MinMax's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgefleet.optimization.makers import NotMade
from edgefleet.optimization.samples import BATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from edgefleet.optimization.recipes import Recipe
    from edgefleet.optimization.samples import Feed, Samples

NOTHING = "it has no operator that gains from int8"
HISTOGRAM_BYTES = 1 << 29  # of activations that the calibrator may hold at once
PERCENTILE = 99.99  # of a tensor's values that a range holds, where the recipe names no other
ENTROPY_BINS, ENTROPY_STEPS = 1025, 128  # a search over the first, so its time grows with them
PERCENTILE_BINS = 16384  # one rare value 1,000 times the others leaves these some 30


@dataclass(frozen=True, slots=True)
class Ranges:
    """Where the ranges lie, and what they are made of.

    Attributes:
        path: as ``quantize_static`` takes it for ``calibration_cache_path``.
        method: minmax, percentile or entropy.
        some: how many of the samples were used, as a phrase; empty for all.
    """

    path: Path
    method: str
    some: str


def calibrate(
    prepared: Path, recipe: Recipe, samples: Samples, to: Path, progress: Callable[[int], object]
) -> Ranges:
    """Ranges of what a prepared model computes, in a file of the folder ``to``.

    Args:
        prepared: the model.
        recipe: names the method and its options.
        samples: calibration data.
        to: a folder.
        progress: told how many samples were taken, a call.

    Raises:
        NotMade: there is nothing to calibrate.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        create_calibrator,
        save_tensors_data,
    )

    method = str(recipe.option("method", "minmax"))
    operators = _calibrated(prepared)
    feeds = samples.feeds(even(samples.count)) if method == "minmax" else few(prepared, samples)
    seen = 0

    class Reader(CalibrationDataReader):  # type: ignore[misc] # onnxruntime ships no types
        def get_next(self) -> Feed | None:
            nonlocal seen
            feed = next(feeds, None)
            if feed is not None:
                count = len(next(iter(feed.values()))) if not samples.bare else 1
                seen += count
                progress(count)
            return feed

    augmented = to / "augmented.onnx"
    percentile = float(recipe.option("percentile", PERCENTILE))
    options: dict[str, dict[str, Any]] = {
        "minmax": {},
        "entropy": {"num_bins": ENTROPY_BINS, "num_quantized_bins": ENTROPY_STEPS},
        "percentile": {"num_bins": PERCENTILE_BINS, "percentile": percentile, "symmetric": False},
    }
    try:
        calibrator = create_calibrator(
            str(prepared),
            operators,
            augmented_model_path=str(augmented),
            calibrate_method=calibration_method(method),
            extra_options=options[method],
        )
        calibrator.collect_data(Reader())
        found = to / "ranges.json"
        save_tensors_data(calibrator.compute_data(), found)
    finally:
        augmented.unlink(missing_ok=True)
    some = "" if seen >= samples.count else f", of {seen} of {samples.count} samples"
    return Ranges(found, method, some)


def calibration_method(name: str) -> Any:  # noqa: ANN401 - a member of an untyped enum
    """A method as onnxruntime names it."""
    from onnxruntime.quantization import CalibrationMethod

    return {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }[name]


def _calibrated(prepared: Path) -> list[str]:
    """The operators whose tensors are looked at; those in subgraphs are not."""
    import onnx
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    operators = sorted({*QDQRegistry, *QLinearOpsRegistry})
    nodes = onnx.load(prepared, load_external_data=False).graph.node
    if not {node.op_type for node in nodes} & {*operators}:
        raise NotMade(NOTHING)
    return operators


def even(count: int) -> int:
    """Samples a call: histograms are only made of calls of one size."""
    return next(batch for batch in range(min(BATCH, count), 0, -1) if count % batch == 0)


def few(prepared: Path, samples: Samples) -> Iterator[Feed]:
    """The samples, or as many of them, evenly spread, as `HISTOGRAM_BYTES` of activations allow."""
    held = activations(prepared, [samples.smallest(0)]).values()
    calls = max(1, HISTOGRAM_BYTES // max(1, sum(a.nbytes for arrays in held for a in arrays)))
    if calls >= len(samples.starts()):
        return samples.feeds(even(samples.count))
    return some_feeds(samples, calls)


def some_feeds(samples: Samples, calls: int = 8) -> Iterator[Feed]:
    """The smallest calls of the samples, at most so many, evenly spread."""
    starts = samples.starts()
    chosen = dict.fromkeys(starts[place * len(starts) // calls] for place in range(calls))
    return (samples.smallest(start) for start in chosen)


def activations(prepared: Path, feeds: Iterable[Feed]) -> dict[str, list[NDArray[Any]]]:
    """Every float tensor that a prepared model computes: name -> one flat array a call."""
    from onnxruntime.quantization import qdq_loss_debug

    augmented = prepared.with_name("augmented.onnx")
    try:
        qdq_loss_debug.modify_model_output_intermediate_tensors(str(prepared), str(augmented))
        found: dict[str, list[NDArray[Any]]] = qdq_loss_debug.collect_activations(
            str(augmented), iter(feeds)
        )
        return found
    finally:
        augmented.unlink(missing_ok=True)
