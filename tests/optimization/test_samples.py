from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgefleet.errors import InvalidInputError
from edgefleet.optimization.onnx_file import inspect
from edgefleet.optimization.samples import arrange, calibration_samples
from edgefleet.optimization.session import OnnxSession
from edgefleet.protocol.bundle import Datatype, Interface, TensorSpec
from tests.optimization import models

if TYPE_CHECKING:
    from pathlib import Path


def interface(*inputs: tuple[str, tuple[int, ...]], datatype: Datatype = "FP32") -> Interface:
    specs = tuple(TensorSpec(name=name, datatype=datatype, shape=shape) for name, shape in inputs)
    return Interface(inputs=specs, outputs=())


ONE = interface(("x", (-1, 8)))
TWO = interface(("a", (-1, 8)), ("b", (-1, 4)))


def test_an_array_is_the_only_inputs_and_a_mapping_names_it() -> None:
    x = models.inputs_for(12)
    assert arrange(x, ONE, what="data").count == 12
    np.testing.assert_array_equal(arrange({"x": x}, ONE, what="data").arrays["x"], x)


@pytest.mark.parametrize(
    "values, says",
    [
        (np.zeros((12, 8)), "2 inputs: a, b"),
        ({"a": np.zeros((12, 8))}, "lacks b"),
        ({"a": np.zeros((12, 8)), "c": np.zeros((12, 4))}, "lacks b and has c"),
        ({"a": np.zeros((12, 8)), "b": np.zeros((11, 4))}, "different numbers of samples"),
        ({"a": np.zeros((12, 8)), "b": np.zeros((12, 5))}, r"shape \(12, 5\).*FP32\[any, 4\]"),
        ({"a": np.zeros((12, 8)), "b": np.zeros(12)}, r"shape \(12,\)"),
        ({"a": np.zeros((12, 8)), "b": np.zeros((12, 4), complex)}, "complex128"),
        ({"a": np.zeros((12, 8)), "b": np.array([["x"] * 4] * 12)}, "dtype <U1"),
        ({"a": np.zeros((12, 8)), "b": [[1.0], [2.0, 3.0]]}, "no array"),
    ],
    ids=range(9),
)
def test_wrong_names_shapes_and_dtypes_are_named(values: Any, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says) as caught:
        arrange(values, TWO, what="calibration")
    assert "calibration" in str(caught.value)


@pytest.mark.parametrize(
    "given, wanted, fits",
    [
        ("float64", "FP32", True),
        ("uint8", "FP32", True),
        ("int64", "FP64", True),
        ("bool", "FP32", True),
        ("int64", "INT32", True),
        ("int64", "UINT8", True),
        ("float32", "INT32", False),
        ("float32", "BYTES", False),
        ("int64", "BOOL", False),
    ],
)
def test_dtypes_are_converted_where_values_survive(
    given: str, wanted: Datatype, *, fits: bool
) -> None:
    values = np.ones((10, 8), given)
    spec = interface(("x", (-1, 8)), datatype=wanted)
    if fits:
        np.testing.assert_array_equal(arrange(values, spec, what="data").arrays["x"], 1)
    else:
        with pytest.raises(InvalidInputError, match="dtype"):
            arrange(values, spec, what="data")


def test_whole_numbers_that_do_not_fit_are_refused() -> None:
    cases: tuple[tuple[int, Datatype], ...] = ((300, "UINT8"), (-1, "UINT64"), (1 << 40, "INT32"))
    for value, wanted in cases:
        with pytest.raises(InvalidInputError, match="dtype"):
            arrange(np.full((10, 8), value), interface(("x", (-1, 8)), datatype=wanted), what="x")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_calibration_without_numbers_is_refused(value: float) -> None:
    x = np.zeros((12, 8))
    x[3, 2] = value
    with pytest.raises(InvalidInputError, match=r"calibration\['x'\] holds NaN or infinity"):
        calibration_samples(x, ONE)


def test_too_few_calibration_samples_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="has 9 samples, 10 are needed"):
        calibration_samples(np.zeros((9, 8)), ONE)


def test_a_model_of_fixed_batch_is_fed_batch_by_batch() -> None:
    samples = arrange(np.zeros((10, 8)), interface(("x", (4, 8))), what="data")
    assert [feed["x"].shape for feed in samples.feeds()] == [(4, 8), (4, 8)]
    assert samples.smallest(4)["x"].shape == (4, 8)


def test_a_model_without_batch_axis_is_fed_sample_by_sample() -> None:
    samples = arrange(np.zeros((3, 28, 28)), interface(("x", (28, 28))), what="data")
    assert [feed["x"].shape for feed in samples.feeds()] == [(28, 28)] * 3


def test_whole_calls_may_be_stacked() -> None:
    samples = arrange(
        {"a": np.zeros((5, 1, 8)), "b": np.zeros((5, 4, 4))},
        interface(("a", (1, 8)), ("b", (4, 4))),
        what="data",
    )
    assert [(f["a"].shape, f["b"].shape) for f in samples.feeds()] == [((1, 8), (4, 4))] * 5


def test_inputs_of_unlike_batches_must_be_stacked() -> None:
    with pytest.raises(InvalidInputError, match="an axis more"):
        arrange(
            {"a": np.zeros((8, 8)), "b": np.zeros((8, 4))},
            interface(("a", (1, 8)), ("b", (4, 4))),
            what="data",
        )


def test_the_digest_tells_names_shapes_dtypes_and_values_apart() -> None:
    base = np.zeros((12, 8), np.float32)
    changed = base.copy()
    changed[0, 0] = 1
    digests = {
        arrange(values, spec, what="x").digest()
        for values, spec in (
            (base, ONE),
            (changed, ONE),
            (base, interface(("other", (-1, 8)))),
            (base, interface(("x", (-1, 8)), datatype="FP64")),
            (base.reshape(6, 16), interface(("x", (-1, 16)))),
        )
    }
    assert len(digests) == 5
    assert arrange(base, ONE, what="x").digest() == arrange(base.tolist(), ONE, what="x").digest()


def test_predict_gives_an_array_for_one_output_and_a_mapping_for_several(tmp_path: Path) -> None:
    x = models.inputs_for(5)
    path = models.save(models.linear(), tmp_path / "one.onnx")
    output = OnnxSession(path, inspect(path).interface).predict(x)
    assert output.shape == (5, 8)
    path = models.save(models.two_inputs(), tmp_path / "two.onnx")
    outputs = OnnxSession(path, inspect(path).interface).predict({"a": x, "b": x[:, :4]})
    assert list(outputs) == ["total", "difference"]
    np.testing.assert_allclose(outputs["total"] - outputs["difference"], 2 * x[:, :4], rtol=1e-4)


@pytest.mark.parametrize("batch", [1, 4])
def test_predict_takes_any_number_of_samples_whatever_the_models_batch(
    tmp_path: Path, batch: int
) -> None:
    feed = {"a": models.inputs_for(10), "b": models.inputs_for(10, width=4)}
    free = models.save(models.two_inputs(), tmp_path / "free.onnx")
    fixed = models.save(models.two_inputs(batch), tmp_path / "fixed.onnx")
    due = OnnxSession(free, inspect(free).interface).predict(feed)
    seen = OnnxSession(fixed, inspect(fixed).interface).predict(feed)
    np.testing.assert_allclose(seen["total"], due["total"], rtol=1e-5)


def test_predict_names_what_is_wrong_with_its_input(tmp_path: Path) -> None:
    path = models.save(models.linear(), tmp_path / "m.onnx")
    with pytest.raises(InvalidInputError, match=r"predict\['x'\] has shape"):
        OnnxSession(path, inspect(path).interface).predict(np.zeros((3, 7)))


@pytest.mark.parametrize("path", ["calibration.npy", PurePath("calibration.npy")])
def test_the_path_of_an_array_is_no_array(path: object) -> None:
    for values in (path, {"x": path}):
        with pytest.raises(InvalidInputError, match=r"\['x'\] is a path, not data") as refusal:
            arrange(values, interface(("x", (-1, 3))), what="calibration")
        assert "numpy.load" in str(refusal.value.cure)
