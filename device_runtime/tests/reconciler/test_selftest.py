from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgefleet.errors import InferenceError
from edgefleet.protocol import bundle as b
from edgefleet.protocol.tensors import datatype_of, to_bytes
from edgefleet_runtime.engines.base import LoadedModel
from edgefleet_runtime.reconciler.selftest import self_test

NOTHING = b.Interface(inputs=(), outputs=())


class Answering(LoadedModel):
    """A model that gives the same answer to everything."""

    interface = NOTHING
    engine = "fixed"
    providers = ("CPUExecutionProvider",)

    def __init__(self, answer: NDArray[Any] | Exception) -> None:
        self.answer = answer

    def infer(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, NDArray[Any]]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return {"y": self.answer}

    def close(self) -> None:
        pass


def recorded(array: NDArray[Any]) -> b.Tensor:
    return b.Tensor(
        name="y",
        datatype=datatype_of(array.dtype),
        shape=array.shape,
        data=bytes(to_bytes(array, name="y")),
    )


def run(seen: Any, due: Any, **tolerance: float) -> tuple[Any, str | None]:
    details = b.Details(
        variant="fp32",
        entry="model.onnx",
        interface=NOTHING,
        self_test=(b.Vector(inputs=(), outputs=(recorded(np.asarray(due)),)),),
        tolerance=b.Tolerance(**tolerance),
    )
    return self_test(Answering(seen if isinstance(seen, Exception) else np.asarray(seen)), details)


f4 = np.float32


@pytest.mark.parametrize(
    "seen,due",
    [
        (np.array([1.0005], f4), np.array([1.0], f4)),
        (np.array([1000.9], f4), np.array([1000.0], f4)),
        (np.array([np.nan, 1], f4), np.array([np.nan, 1], f4)),
        (np.array([np.inf, -np.inf], f4), np.array([np.inf, -np.inf], f4)),
        (np.array([3], np.int64), np.array([3], np.int64)),
        (np.array([2**63 + 1], np.uint64), np.array([2**63 + 1], np.uint64)),
        (np.array([True]), np.array([True])),
        (np.array([b"cat"], object), np.array([b"cat"], object)),
        (np.array(["cat"], object), np.array([b"cat"], object)),
        (np.zeros((0, 4), f4), np.zeros((0, 4), f4)),
        (np.array([1.0005], np.float16), np.array([1.0], np.float16)),
    ],
)
def test_outputs_within_tolerance_pass(seen: NDArray[Any], due: NDArray[Any]) -> None:
    outcome, wrong = run(seen, due)
    assert wrong is None
    assert outcome.passed


@pytest.mark.parametrize(
    "seen,due,why",
    [
        (np.array([1.1], f4), np.array([1.0], f4), "1 of 1 elements"),
        (np.array([np.nan, 1], f4), np.array([0, 1], f4), "1 of 2 elements"),
        (np.array([0], f4), np.array([np.nan], f4), "1 of 1"),
        (np.array([5], f4), np.array([np.inf], f4), "1 of 1"),
        (np.array([-np.inf], f4), np.array([np.inf], f4), "1 of 1"),
        (np.array([5003], np.int64), np.array([5000], np.int64), "1 of 1"),
        (np.array([True]), np.array([False]), "1 of 1"),
        (np.array([b"dog"], object), np.array([b"cat"], object), "1 of 1"),
        (np.array([[1]], f4), np.array([1], f4), r"shape \(1, 1\)"),
        (InferenceError("out of memory"), np.array([1], f4), "out of memory"),
    ],
)
def test_outputs_out_of_tolerance_fail_with_a_reason(seen: Any, due: Any, why: str) -> None:
    outcome, wrong = run(seen, due)
    assert not outcome.passed
    assert wrong is not None
    assert re.search(why, wrong)


def test_a_number_where_nan_was_due_has_no_largest_difference() -> None:
    outcome, _ = run(np.array([0], f4), np.array([np.nan], f4))
    assert outcome.max_error is None


def test_the_largest_difference_is_told_of_a_pass_too() -> None:
    outcome, _ = run(np.array([1.25, 2.0]), np.array([1.0, 2.0]), absolute=0.5)
    assert outcome.passed
    assert outcome.max_error == 0.25


def test_a_bundle_without_vectors_passes_with_no_cases() -> None:
    details = b.Details(variant="fp32", entry="model.onnx", interface=NOTHING)
    outcome, wrong = self_test(Answering(np.array([1])), details)
    assert (outcome.passed, outcome.cases, wrong) == (True, 0, None)


def test_a_malformed_vector_is_a_failure_not_a_crash() -> None:
    broken = b.Tensor(name="y", datatype="BYTES", shape=(4,), data=b"abc")
    details = b.Details(
        variant="fp32",
        entry="model.onnx",
        interface=NOTHING,
        self_test=(b.Vector(inputs=(), outputs=(broken,)),),
    )
    outcome, wrong = self_test(Answering(np.array([1])), details)
    assert not outcome.passed
    assert wrong is not None
    assert "'y'" in wrong
