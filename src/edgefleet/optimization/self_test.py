"""Self-test vectors: inputs and outputs recorded here, which a device repeats before it serves.

How far a device may lie from what was recorded is decided here too, per variant, from what was
seen:

- Every kernel rounds in its own order, and GPUs multiply float32 with TensorFloat-32's 10 bits of
  mantissa (https://docs.nvidia.com/cuda/ampere-tuning-guide/): about 0.05 % a layer, which adds up
  as the root of the depth. `FLOAT_SHARE` of the largest output covers a hundred layers.
- In an int8 model a sum that lies on the edge between two steps falls to either side by the kernel.
  The same graph is therefore run twice, once with integer kernels and once literally, in floats,
  and the tolerance is `KERNEL_FACTOR` times the largest difference seen between the two. It is at
  least `INT8_SHARE` of the largest output: two and a half of the 255 steps of an output that lies
  around zero.
- Whole-number outputs, such as labels, are only recorded of samples on which all these runs agree,
  so a near tie doesn't fail a healthy device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgefleet.errors import InvalidInputError
from edgefleet.optimization.artifact import ONNX
from edgefleet.optimization.samples import Samples
from edgefleet.optimization.session import OnnxSession
from edgefleet.optimization.sessions import open_session
from edgefleet.protocol.bundle import Interface, Tensor, Tolerance, Vector
from edgefleet.protocol.tensors import datatype_of, dtype_of, to_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgefleet.optimization.artifact import Artifact
    from edgefleet.optimization.samples import Feed

MAX_VECTORS = 4
MAX_TOTAL_BYTES = 256 << 10
MAX_SINGLE_BYTES = 2 << 20
"""A lone vector may be this large: a 224x224 float image has 588 KiB, and no self-test is worse."""
MAX_TRIED = 32  # samples run to see how outputs scatter
MAX_UNASKED_BYTES = 512 << 20
"""A larger model isn't loaded only to record vectors that nobody gave inputs for."""

FLOAT_SHARE = 5e-3
INT8_SHARE = 2e-2
KERNEL_FACTOR = 4.0
RELATIVE = 1e-3
SMALLEST = 1e-6  # outputs of zero have rounding too


@dataclass(frozen=True, slots=True)
class SelfTest:
    """Recorded vectors, or in ``note`` why there are none."""

    vectors: tuple[Vector, ...]
    tolerance: Tolerance
    note: str = ""


def skipped(note: str) -> SelfTest:
    """No vectors, and why."""
    return SelfTest(vectors=(), tolerance=Tolerance(), note=f"skipped: {note}")


def record(
    artifact: Artifact, samples: Samples, *, seed: int, reference: Artifact | None = None
) -> SelfTest:
    """Run a model on samples and keep a few small, reproducible ones as vectors.

    Args:
        artifact: the model.
        samples: at least one call's worth.
        seed: decides which samples are tried, so that a run can be repeated.
        reference: the model that this one was made from: labels must agree with it too.

    Raises:
        InvalidModelError: its engine cannot load the model.
        InvalidInputError: it fails on a sample.
    """
    import numpy as np

    starts = list(samples.starts())
    chosen = sorted(np.random.default_rng(seed).permutation(len(starts))[:MAX_TRIED].tolist())
    feeds = [samples.smallest(starts[index]) for index in chosen]
    seen = _run_all(artifact, feeds)
    others = [_run_all(artifact, feeds, literal=True)] if artifact.format == ONNX else []
    tolerance = _tolerance(seen, others, precision=artifact.precision)
    if reference is not None:
        others.append(_run_all(reference, feeds))
    good = [
        index
        for index, outputs in enumerate(seen)
        if _finite(outputs) and all(_whole_agree(outputs, other[index]) for other in others)
    ]
    if not good:
        return skipped("no sample gave finite outputs on which two ways to compute them agree")
    vectors: list[Vector] = []
    total = 0
    for index in good[:MAX_VECTORS]:
        size = sum(array.nbytes for array in (*feeds[index].values(), *seen[index].values()))
        if size > MAX_SINGLE_BYTES:
            return skipped(f"one vector takes {size} bytes")
        if vectors and total + size > MAX_TOTAL_BYTES:
            break
        vectors.append(Vector(inputs=_tensors(feeds[index]), outputs=_tensors(seen[index])))
        total += size
    return SelfTest(vectors=tuple(vectors), tolerance=tolerance)


def made_up_samples(interface: Interface, *, seed: int) -> Samples | str:
    """Samples made from the interface alone; the reason where it says too little.

    Numbers lie in 0 to 1, whole numbers are 0 or 1: legal in most models, meant for none.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    arrays: dict[str, NDArray[Any]] = {}
    for spec in interface.inputs:
        if spec.datatype in {"BYTES", "BF16"}:
            return f"input {spec.name!r} holds {spec.datatype}: give self-test inputs"
        if any(length < 0 for length in spec.shape[1:]):
            return f"input {spec.name!r} has variable lengths: give self-test inputs"
        first = [max(length, 1) for length in spec.shape[:1]]
        shape = (MAX_VECTORS, *first, *spec.shape[1:])
        dtype = dtype_of(spec.datatype)
        if dtype.kind == "f":
            arrays[spec.name] = generator.random(shape).astype(dtype)
        else:
            arrays[spec.name] = generator.integers(0, 2, shape).astype(dtype)
    return Samples(arrays=arrays, count=MAX_VECTORS, step=1, bare=frozenset(arrays))


def record_unasked(artifact: Artifact, *, seed: int = 0) -> SelfTest:
    """Vectors of made-up inputs where the model allows it, otherwise why there are none.

    Raises:
        InvalidModelError: its engine cannot load the model, which no missing library explains.
    """
    if artifact.custom_domains:
        names = ", ".join(artifact.custom_domains)
        return skipped(f"operators of {names} are not installed here")
    if artifact.size_bytes > MAX_UNASKED_BYTES:
        return skipped(f"the model has {artifact.size_bytes} bytes: give self-test inputs")
    samples = made_up_samples(artifact.interface, seed=seed)
    if isinstance(samples, str):
        return skipped(samples)
    try:
        return record(artifact, samples, seed=seed)
    except InvalidInputError as error:
        if type(error) is not InvalidInputError:  # the model's own fault, not the input's
            raise
        return skipped(f"made-up inputs don't suit the model: {error.message}")


def _run_all(artifact: Artifact, feeds: list[Feed], *, literal: bool = False) -> list[Feed]:
    session = (  # one at a time: two would double the memory
        OnnxSession(artifact.path, artifact.interface, literal=True)
        if literal
        else open_session(artifact)
    )
    return [session.run(feed) for feed in feeds]


def _tolerance(seen: list[Feed], others: list[list[Feed]], *, precision: str) -> Tolerance:
    import numpy as np

    largest = apart = 0.0
    for index, ours in enumerate(seen):
        for name, output in ours.items():
            if output.dtype.kind != "f" or not output.size:
                continue
            one = output.astype(np.float64)
            if not np.isfinite(one).all():
                continue
            largest = max(largest, float(np.abs(one).max()))
            for other in (feeds[index][name].astype(np.float64) for feeds in others):
                if np.isfinite(other).all():
                    apart = max(apart, float(np.abs(one - other).max()))
    share = INT8_SHARE if precision == "int8" else FLOAT_SHARE
    absolute = max(share * largest, KERNEL_FACTOR * apart, SMALLEST)
    return Tolerance(absolute=float(f"{absolute:.3g}"), relative=RELATIVE)


def _finite(outputs: Feed) -> bool:
    import numpy as np

    return all(
        output.dtype.kind != "f" or bool(np.isfinite(output).all()) for output in outputs.values()
    )


def _whole_agree(ours: Feed, others: Feed) -> bool:
    import numpy as np

    return all(
        output.dtype.kind == "f" or np.array_equal(output, others[name])
        for name, output in ours.items()
    )


def _tensors(arrays: Feed) -> tuple[Tensor, ...]:
    import numpy as np

    return tuple(
        Tensor(
            name=name,
            datatype=datatype_of(np.asarray(array).dtype),
            shape=tuple(np.asarray(array).shape),
            data=bytes(to_bytes(np.asarray(array), name=name)),
        )
        for name, array in arrays.items()
    )
