"""Served results are onnxruntime's own, bit for bit, over onnx's cases for testing backends."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from device_runtime.tests.backend.cases import Case, cases, compare
from device_runtime.tests.onnx_models import identity
from device_runtime.tests.serving import FakeModel, served, serving
from edgefleet_runtime.serve.table import ModelTable, ServedModel

FEWEST = 1300  # of 1,907 with onnx 1.23 and onnxruntime 1.31; the tally names why others didn't run


def test_served_results_equal_onnxruntimes_bit_for_bit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = ModelTable()
    with serving(table) as server:
        tally = compare(table, server, cases(), tmp_path)
    with capsys.disabled():
        print(f"\nonnx's backend cases: {tally}")  # noqa: T201 - what ran is the finding
    assert not tally.different
    assert len(tally.ran) > FEWEST


def test_a_difference_of_one_bit_is_found(tmp_path: Path) -> None:
    class Replacing(ModelTable):
        """Serves a model that answers 0.0 where the case's own answers -0.0."""

        def swap(self, models: Mapping[str, ServedModel]) -> tuple[ServedModel, ...]:
            return super().swap({"case": served(FakeModel(0), "case")})

    model = identity(tmp_path / "identity.onnx", TensorProto.FLOAT).read_bytes()
    case = Case("zero", model, ((np.full(1, -0.0, np.float32),),))
    table = Replacing()
    with serving(table) as server:
        tally = compare(table, server, [case], tmp_path)
    assert tally.different == ["zero, data set 0"]
