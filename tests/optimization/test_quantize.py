"""int8, static and dynamic: what each option changes, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgefleet.optimization import ranges
from edgefleet.optimization.artifact import of_onnx
from edgefleet.optimization.makers import NotMade
from tests.optimization import models
from tests.optimization.making import branching, in_floats, make, operators, outputs, source_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.optimization.making import Array

WIDTH = 64


def two_layers(op: str = "MatMul", *, glitch: bool = False) -> onnx.ModelProto:
    """y = relu(x @ w0) @ w1, nodes "first" and "second".

    With ``glitch`` x[0] reaches h[0] alone, and h[0] no output.
    """
    first = numpy_helper.to_array(models.weights("w0", WIDTH, WIDTH, seed=1)) / 8
    if glitch:
        first = first.copy()
        first[0], first[0, 0] = 0, 1
    second = numpy_helper.to_array(models.weights("w1", WIDTH, 4, seed=2)) / 8
    if glitch:
        second = second.copy()
        second[0] = 0
    return models.model_of(
        [
            helper.make_node(op, ["x", "w0"], ["m"], name="first"),
            helper.make_node("Relu", ["m"], ["h"], name="relu"),
            helper.make_node(op, ["h", "w1"], ["y"], name="second"),
        ],
        [models.floats("x", "N", WIDTH)],
        [models.floats("y", "N", 4)],
        [numpy_helper.from_array(a.astype("f4"), n) for a, n in ((first, "w0"), (second, "w1"))],
    )


def apart(model: onnx.ModelProto, name: str, data: Array, folder: Path) -> float:
    """The mean error of a candidate on data without outliers, in the outputs' spread."""
    folder.mkdir()
    source = source_of(model, folder, data)
    made = make(name, source, folder)
    clean = models.inputs_for(64, seed=9, width=WIDTH)
    due = outputs(of_onnx(source.file), clean)
    return float(np.abs(outputs(made, clean) - due).mean() / due.std())


@pytest.mark.parametrize("signs", ["int8", "int8-signed"])
def test_percentile_and_entropy_ranges_shrug_off_rare_outliers_that_ruin_minmax(
    signs: str, tmp_path: Path
) -> None:
    data = models.inputs_for(512, width=WIDTH)
    data[17, 0], data[400, 0] = 300, -300  # 2 of 32,768 values
    model = two_layers(glitch=True)
    minmax, percentile, entropy = (
        apart(model, f"{signs}{method}", data, tmp_path / f"of{method}")
        for method in ("", "-percentile", "-entropy")
    )
    assert minmax > 0.5
    assert percentile < 0.1
    assert entropy < 0.4 * minmax


def test_signed_activations_are_signed_and_symmetric_and_load(tmp_path: Path) -> None:
    data = models.inputs_for(64, width=WIDTH)
    source = source_of(two_layers(), tmp_path, data)
    made = make("int8-signed", source, tmp_path)
    graph = onnx.load(made.path).graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    zeros = [constants[n.input[2]] for n in graph.node if n.op_type == "QuantizeLinear"]
    assert {zero.dtype for zero in zeros} == {np.dtype("int8")}
    assert not any(zeros)
    assert outputs(made, data).shape == (64, 4)


@pytest.mark.parametrize(
    "exclude, kept",
    [((), set()), (("second",), {"second"}), (("op:Gemm",), {"first", "second"})],
    ids=["nothing", "by name", "by type"],
)
def test_what_is_excluded_keeps_its_weights_in_floats(
    exclude: tuple[str, ...], kept: set[str], tmp_path: Path
) -> None:
    model = two_layers("Gemm")
    model.graph.node.insert(0, helper.make_node("MatMul", ["x0", "w"], ["x"], name="plain"))
    model.graph.input[0].name = "x0"
    model.graph.initializer.append(models.weights("w", WIDTH, WIDTH))
    data = models.inputs_for(32, width=WIDTH)
    made = make("int8", source_of(model, tmp_path, data, exclude=exclude), tmp_path)
    assert in_floats(made) == kept
    assert "QuantizeLinear" in operators(made)


def test_excluding_what_the_model_lacks_names_it(tmp_path: Path) -> None:
    source = source_of(two_layers(), tmp_path, models.inputs_for(width=WIDTH), exclude=("op:Conv",))
    with pytest.raises(NotMade, match=r"^it has no node 'op:Conv' to leave in floats$"):
        make("int8", source, tmp_path)


def test_a_histogram_is_made_of_as_many_samples_as_memory_allows_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "HISTOGRAM_BYTES", 20_000)
    data = models.inputs_for(400, width=WIDTH)
    source = source_of(two_layers(), tmp_path, data)
    made = make("int8-percentile", source, tmp_path)
    said = made.notes["quantization"].rsplit(", of ", 1)[1].split()
    assert said[1:] == ["of", "400", "samples"]
    # Of float32: 64 inputs, 64 sums, 64 hidden values and 4 outputs a sample.
    assert 20_000 // (4 * (3 * WIDTH + 4)) <= int(said[0]) <= 20_000 // (4 * 2 * WIDTH)


def test_minmax_ranges_are_of_all_samples_however_few_memory_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "HISTOGRAM_BYTES", 1)
    source = source_of(two_layers(), tmp_path, models.inputs_for(33, width=WIDTH))
    assert make("int8", source, tmp_path).notes["quantization"].endswith("minmax ranges")


@pytest.mark.parametrize("count", [31, 33, 64])
@pytest.mark.parametrize("name", ["int8", "int8-percentile", "int8-entropy"])
def test_any_number_of_samples_calibrates(name: str, count: int, tmp_path: Path) -> None:
    source = source_of(two_layers(), tmp_path, models.inputs_for(count, width=WIDTH))
    assert make(name, source, tmp_path).precision == "int8"


@pytest.mark.parametrize("op", ["MatMul", "Gemm"])
def test_dynamic_needs_no_calibration_and_stays_near(op: str, tmp_path: Path) -> None:
    source = source_of(two_layers(op), tmp_path)
    made = make("int8-dynamic", source, tmp_path)
    data = models.inputs_for(32, width=WIDTH)
    due = outputs(of_onnx(source.file), data)
    assert operators(made).count("MatMulInteger") == 2
    assert made.size_bytes < 0.5 * source.file.size_bytes
    assert np.abs(outputs(made, data) - due).max() < 0.1 * np.abs(due).max()


def test_dynamic_takes_weights_that_the_model_computes_of_constants(tmp_path: Path) -> None:
    model = models.model_of(
        [
            helper.make_node("Mul", ["w", "w"], ["w2"]),
            helper.make_node("Gemm", ["x", "w2"], ["y"], transB=1),
        ],
        [models.floats("x", "N", WIDTH)],
        [models.floats("y", "N", 24)],
        [models.weights("w", 24, WIDTH)],
    )
    model.graph.value_info.append(models.floats("w2", 24, WIDTH))
    made = make("int8-dynamic", source_of(model, tmp_path), tmp_path)
    assert "MatMulInteger" in operators(made)
    assert outputs(made, models.inputs_for(4, width=WIDTH)).shape == (4, 24)


def test_dynamic_takes_convolutions(tmp_path: Path) -> None:
    model = models.model_of(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        [models.floats("x", "N", 16, 4, 4)],
        [models.floats("y", "N", 16, 2, 2)],
        [models.weights("w", 16, 16, 3, 3)],
    )
    made = make("int8-dynamic", source_of(model, tmp_path), tmp_path)
    assert "ConvInteger" in operators(made)
    assert outputs(made, np.ones((2, 16, 4, 4), np.float32)).shape == (2, 16, 2, 2)


@pytest.mark.parametrize("op", ["MatMul", "Gemm"])
def test_dynamic_leaves_out_what_is_excluded(op: str, tmp_path: Path) -> None:
    source = source_of(two_layers(op), tmp_path, exclude=("second",))
    assert operators(make("int8-dynamic", source, tmp_path)).count("MatMulInteger") == 1


@pytest.mark.parametrize("name", ["int8", "int8-dynamic"])
def test_a_model_of_operators_that_no_engine_here_knows_says_so(name: str, tmp_path: Path) -> None:
    model = models.model_of(
        [helper.make_node("Whirl", ["x"], ["y"], domain="com.example")],
        [models.floats("x", "N", 8)],
        [models.floats("y", "N", 8)],
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)],
    )
    with pytest.raises(NotMade, match=r"com\.example"):
        make(name, source_of(model, tmp_path, models.inputs_for()), tmp_path)


@pytest.mark.parametrize("name", ["int8", "int8-percentile", "int8-entropy"])
def test_ranges_inside_of_branches_are_not_calibrated_and_the_reason_says_so(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(NotMade, match=r"^it has no operator that gains from int8$"):
        make(name, source_of(branching(), tmp_path, models.inputs_for(32)), tmp_path)


def test_dynamic_quantizes_inside_of_branches(tmp_path: Path) -> None:
    data = models.inputs_for(32)
    source = source_of(branching(), tmp_path)
    due = outputs(of_onnx(source.file), data)
    made = make("int8-dynamic", source, tmp_path)
    assert np.abs(outputs(made, data) - due).max() < 0.1 * np.abs(due).max()


@pytest.mark.parametrize("name, within", [("fp16", 1e-2), ("fp32-graph", 1e-6)])
def test_other_makers_take_control_flow_as_it_is(name: str, within: float, tmp_path: Path) -> None:
    source = source_of(branching(), tmp_path)
    made = make(name, source, tmp_path)
    for data in (np.abs(models.inputs_for()), -np.abs(models.inputs_for())):  # each branch
        due = outputs(of_onnx(source.file), data)
        assert np.abs(outputs(made, data) - due).max() <= within * np.abs(due).max()


def test_axes_of_any_length_are_quantized(tmp_path: Path) -> None:
    model = models.model_of(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        [models.floats("x", "N", 4, "H", "W")],
        [models.floats("y", "N", 8, "h", "w")],
        [models.weights("w", 8, 4, 3, 3)],
    )
    model.graph.output[0].type.tensor_type.shape.dim[3].dim_param = "v"
    data = models.inputs_for(16, width=4 * 36).reshape(16, 4, 6, 6)
    made = make("int8", source_of(model, tmp_path, data), tmp_path)
    assert outputs(made, np.ones((1, 4, 12, 9), np.float32)).shape == (1, 8, 10, 7)
