"""What a device does with a bundle, in few lines: materialize, open, repeat the self-test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from edgefleet.protocol.tensors import from_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgefleet.protocol.bundle import Tensor
    from edgefleet.protocol.layout import BundleLayout


def session_for(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def arrays(tensors: Sequence[Tensor]) -> dict[str, NDArray[Any]]:
    return {t.name: from_bytes(t.data, t.datatype, t.shape, name=t.name) for t in tensors}


def repeat_self_test(bundle: BundleLayout, variant: str, folder: Path) -> int:
    """Do what a device does: run every vector, hold the outputs against the recorded ones."""
    details = bundle.details(variant)
    session = session_for(bundle.materialize(variant, folder))
    for vector in details.self_test:
        recorded = arrays(vector.outputs)
        seen = session.run(list(recorded), arrays(vector.inputs))
        for (name, due), output in zip(recorded.items(), seen, strict=True):
            apart = np.abs(output.astype(float) - due)
            allowed = details.tolerance.absolute + details.tolerance.relative * np.abs(due)
            assert (apart <= allowed).all(), name
    return len(details.self_test)
