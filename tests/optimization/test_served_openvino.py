"""The whole way of a variant in OpenVINO's format: made, judged, packed, chosen, served."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import helper

from edgefleet.optimization import optimize
from edgefleet.optimization.onnx_file import inspect
from edgefleet.optimization.session import OnnxSession
from edgefleet.protocol.target import HardwareTarget, rank_variants
from edgefleet_runtime import Runtime
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.discovery import engine_for
from edgefleet_runtime.reconciler.selftest import self_test
from tests.optimization import models

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet.optimization import Bundle

pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")

TARGET = HardwareTarget(
    name="gateway",
    about="an Intel gateway",
    arch="x86_64",
    precisions=("fp32",),
    formats=("openvino", "onnx"),
    providers=("OpenVINOExecutionProvider", "CPUExecutionProvider"),
)
X = models.inputs_for(64)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    model = models.model_of(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Tanh", ["h"], ["y"])],
        [models.floats("x", "N", 8)],
        [models.floats("y", "N", 8)],
        [models.weights("w", 8, 8)],
    )
    return models.save(model, tmp_path / "model.onnx")


@pytest.fixture
def bundle(path: Path, tmp_path: Path) -> Bundle:
    due = OnnxSession(path, inspect(path).interface).predict(X)
    return optimize(
        path,
        targets=[TARGET],
        calibration=X,
        evaluate=lambda predict: -float(np.abs(predict(X) - due).max()),
        candidates=["openvino"],
        output=tmp_path / "bundle",
        progress=False,
    )


def test_a_device_with_the_engine_serves_it_as_the_original_would(
    bundle: Bundle, path: Path, tmp_path: Path
) -> None:
    best = rank_variants(bundle.variants, TARGET, formats={"openvino", "onnx"})[0].variant
    assert best.name == "openvino"
    entry = bundle.materialize(best.name, tmp_path / "device")
    options = EngineOptions(providers=TARGET.providers)
    model = engine_for(best.format).load(entry, options)
    details = bundle.details(best.name)
    found, wrong = self_test(model, details)
    assert wrong is None
    assert found.cases > 0
    assert {spec.name for spec in model.interface.inputs} == {"x"}
    due = OnnxSession(path, details.interface).predict(X)
    np.testing.assert_allclose(model.infer({"x": X})["y"], due, atol=1e-5)


def test_a_device_without_the_engine_takes_the_onnx_file(bundle: Bundle) -> None:
    (best, *_) = rank_variants(bundle.variants, TARGET, formats={"onnx"})
    assert best.variant.name == "fp32"


def test_the_runtime_serves_the_bare_file_in_process(bundle: Bundle, tmp_path: Path) -> None:
    entry = bundle.materialize("openvino", tmp_path / "device")
    with Runtime({"net": str(entry)}) as runtime:
        answer = runtime.infer("net", {"x": X[:3]})
    assert answer["y"].shape == (3, 8)
