"""Floats of 16 bits: near where they reach, 32 bits where they don't, and the report says which."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgefleet.optimization.artifact import of_onnx
from edgefleet.optimization.makers import NotMade
from tests.optimization import models
from tests.optimization.making import make, outputs, source_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.optimization.conftest import Digits

WIDTH = 32


def chain(*scales: float) -> onnx.ModelProto:
    """x @ w0 @ w1 …, node "mul0" and so on, the weights' spread being ``scales`` / sqrt(32)."""
    nodes, constants = [], []
    for place, scale in enumerate(scales):
        array = numpy_helper.to_array(models.weights("", WIDTH, WIDTH, seed=place))
        array = (array * np.float32(scale / WIDTH**0.5)).astype(np.float32)
        constants.append(numpy_helper.from_array(array, f"w{place}"))
        source, to = f"t{place}", f"t{place + 1}"
        nodes.append(helper.make_node("MatMul", [source, f"w{place}"], [to], name=f"mul{place}"))
    return models.model_of(
        nodes,
        [models.floats("t0", "N", WIDTH)],
        [models.floats(f"t{len(scales)}", "N", WIDTH)],
        constants,
    )


def kinds(path: Path) -> dict[str, str]:
    return {
        tensor.name: TensorProto.DataType.Name(tensor.data_type)
        for tensor in onnx.load(path).graph.initializer
    }


def test_outputs_are_near_those_in_32_bits(tmp_path: Path) -> None:
    source = source_of(chain(1, 1, 1), tmp_path)
    made = make("fp16", source, tmp_path)
    data = models.inputs_for(width=WIDTH)
    due = outputs(of_onnx(source.file), data)
    assert set(kinds(made.path).values()) == {"FLOAT16"}
    assert made.interface == source.file.interface
    assert np.abs(outputs(made, data) - due).max() < 0.01 * np.abs(due).max()


@pytest.mark.parametrize("calibrated", ["calibrated", ""])
def test_weights_beyond_65504_are_kept_whole_in_32_bits_and_named(
    calibrated: str, tmp_path: Path
) -> None:
    data = models.inputs_for(width=WIDTH)
    source = source_of(chain(1, 1e6, 1e-6), tmp_path, data if calibrated else None)
    made = make("fp16", source, tmp_path)
    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(made.path).graph.initializer}
    given = {
        t.name: numpy_helper.to_array(t) for t in onnx.load(source.file.path).graph.initializer
    }
    assert np.array_equal(weights["w1"], given["w1"])
    assert weights["w0"].dtype == np.float16
    assert "mul1" in made.notes["floats"]
    assert "65504" in made.notes["floats"]


def test_values_that_overflow_on_calibration_data_are_computed_in_32_bits(tmp_path: Path) -> None:
    data = models.inputs_for(width=WIDTH)
    # Every weight fits; what the first two layers compute does not.
    source = source_of(chain(1e4, 1e3, 1e-7, 1), tmp_path, data)
    made = make("fp16", source, tmp_path)
    due = outputs(of_onnx(source.file), data)
    found = outputs(made, data)
    assert np.isfinite(found).all()
    assert np.abs(found - due).max() < 0.01 * np.abs(due).max()
    assert "mul1, mul2" in made.notes["floats"]
    assert kinds(made.path)["w3"] == "FLOAT16"


def test_a_cast_that_the_model_needs_stays(tmp_path: Path) -> None:
    model = chain(1)
    model.graph.node[0].output[0] = "h"
    model.graph.node.extend(
        [
            helper.make_node("Cast", ["h"], ["whole"], name="down", to=TensorProto.INT32),
            helper.make_node("Cast", ["whole"], ["t1"], name="up", to=TensorProto.FLOAT),
        ]
    )
    made = make("fp16", source_of(model, tmp_path), tmp_path)
    found = outputs(made, models.inputs_for(width=WIDTH))
    assert np.array_equal(found, np.trunc(found))
    assert found.any()


def test_constants_beyond_65504_inside_of_nodes_are_kept(tmp_path: Path) -> None:
    model = chain(1)
    model.graph.node[0].output[0] = "h"
    model.graph.node.extend(
        [
            helper.make_node("Constant", [], ["big"], value_float=1e6),
            helper.make_node("Mul", ["h", "big"], ["t1"]),
        ]
    )
    source = source_of(model, tmp_path)
    made = make("fp16", source, tmp_path)
    data = models.inputs_for(width=WIDTH)
    due = outputs(of_onnx(source.file), data)
    assert np.abs(outputs(made, data) - due).max() < 0.01 * np.abs(due).max()
    assert "Mul_2" in made.notes["floats"]


def test_a_model_whose_weights_all_lie_beyond_16_bits_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(NotMade, match="no weights that 16 bits can hold: mul0 reach beyond 65504"):
        make("fp16", source_of(chain(1e7), tmp_path), tmp_path)


def test_classical_operators_stay_in_32_bits_and_run(digits: Digits, tmp_path: Path) -> None:
    source = source_of(digits.path, tmp_path, digits.calibration)
    made = make("fp16", source, tmp_path)
    due = outputs(of_onnx(source.file), digits.images)
    found = outputs(made, digits.images)
    assert (found["label"] == due["label"]).mean() > 0.99
    assert np.abs(found["probabilities"] - due["probabilities"]).max() < 0.02


def test_a_tree_has_no_weights_for_16_bits(tmp_path: Path) -> None:
    from skl2onnx import to_onnx
    from sklearn.tree import DecisionTreeClassifier

    data = models.inputs_for(64)
    tree = DecisionTreeClassifier(max_depth=3, random_state=0).fit(data, data[:, 0] > 0)
    options = {"zipmap": False}
    model = to_onnx(tree, data[:1], options=options, target_opset={"": 17, "ai.onnx.ml": 3})
    with pytest.raises(NotMade, match="no weights that 16 bits can hold"):
        make("fp16", source_of(model, tmp_path, data), tmp_path)


def test_external_data_is_converted_too(tmp_path: Path) -> None:
    source = source_of(models.with_external(tmp_path / "given"), tmp_path)
    made = make("fp16", source, tmp_path)
    data = models.inputs_for()
    due = outputs(of_onnx(source.file), data)
    assert [*made.files] == ["model.onnx"]
    assert np.abs(outputs(made, data) - due).max() < 0.01 * np.abs(due).max()


def test_a_model_given_in_16_bits_is_not_converted_again(tmp_path: Path) -> None:
    made = make("fp16", source_of(chain(1), tmp_path), tmp_path)
    (tmp_path / "again").mkdir()
    with pytest.raises(NotMade, match="the model given is fp16"):
        make("fp16", source_of(made.path, tmp_path), tmp_path / "again")
