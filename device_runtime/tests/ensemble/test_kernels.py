"""What steps compute, held against ONNX' reference implementation and their definitions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import helper
from onnx.reference import ReferenceEvaluator

from edgefleet.errors import InferenceError, InvalidInputError, InvalidModelError
from edgefleet.protocol import steps as s
from edgefleet.protocol.bundle import TensorSpec
from edgefleet.protocol.tensors import datatype_of, dtype_of
from edgefleet_runtime.ensemble.kernels import kernel_of
from edgefleet_runtime.ensemble.specs import fits, results_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUMBERS = ("UINT8", "INT8", "UINT16", "INT32", "INT64", "UINT64", "FP16", "FP32", "FP64")


def run(step: Any, x: Any) -> Any:
    return kernel_of(step)(np.asarray(x))[0]


def onnx_gives(operator: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> list[Any]:
    """What ONNX' reference implementation of an operator gives; None leaves an input out."""
    names = [f"i{n}" if value is not None else "" for n, value in enumerate(inputs)]
    node = helper.make_node(operator, names, [f"o{n}" for n in range(outputs)], **attributes)
    feed = {n: v for n, v in zip(names, inputs, strict=True) if n}
    values = [helper.make_tensor_value_info(n, 0, None) for n in feed]
    graph = helper.make_graph(
        [node], "g", values, [helper.make_tensor_value_info(n, 0, None) for n in node.output]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    return list(ReferenceEvaluator(model).run(None, feed))


sides = st.integers(1, 9)


@given(old=st.tuples(sides, sides), new=st.tuples(sides, sides), seed=st.integers(0, 99))
def test_bilinear_is_onnx_resize_with_half_pixels(
    old: tuple[int, int], new: tuple[int, int], seed: int
) -> None:
    x = np.random.default_rng(seed).normal(size=(1, 2, *old)).astype(np.float32)
    step = s.Resize(height=new[0], width=new[1], layout="CHW")
    sizes = np.array([1, 2, *new], np.int64)
    (due,) = onnx_gives(
        "Resize", x, None, None, sizes, mode="linear",
        coordinate_transformation_mode="half_pixel",
    )  # fmt: skip
    np.testing.assert_allclose(run(step, x), due, rtol=1e-5, atol=1e-5)


@given(old=st.tuples(sides, sides), new=st.tuples(sides, sides))
def test_nearest_is_onnx_resize_with_half_pixels(
    old: tuple[int, int], new: tuple[int, int]
) -> None:
    x = np.arange(np.prod(old), dtype=np.float32).reshape(1, 1, *old)
    step = s.Resize(height=new[0], width=new[1], mode="nearest", layout="CHW")
    sizes = np.array([1, 1, *new], np.int64)
    (due,) = onnx_gives(
        "Resize", x, None, None, sizes, mode="nearest",
        coordinate_transformation_mode="half_pixel", nearest_mode="round_prefer_floor",
    )  # fmt: skip
    np.testing.assert_array_equal(run(step, x), due)


def test_height_and_width_stand_before_channels_unless_said_otherwise() -> None:
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    seen = run(s.Resize(height=8, width=3), x)
    other = run(s.Resize(height=8, width=3, layout="CHW"), x.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(seen, other.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "i8", "u8", "f2", "f4", "f8"])
def test_resized_pixels_keep_their_datatype_and_a_flat_image_its_value(dtype: str) -> None:
    whole = dtype[0] in "iu"
    for value in (np.iinfo(dtype).min, np.iinfo(dtype).max, 1) if whole else (-0.3, 1e4):
        x = np.full((3, 5, 1), value, dtype)
        seen = run(s.Resize(height=7, width=2), x)
        assert seen.dtype == x.dtype
        due = np.full((7, 2, 1), value, dtype)
        np.testing.assert_allclose(seen, due, rtol=0 if whole else 1e-6)


def test_resized_integers_are_rounded_to_the_nearest() -> None:
    seen = run(s.Resize(height=1, width=4), np.array([[[0], [10]]], np.uint8))
    assert seen.reshape(-1).tolist() == [0, 2, 8, 10]  # of 0, 2.5, 7.5, 10


def test_a_result_beyond_all_bounds_is_refused_before_it_is_made() -> None:
    x = np.zeros((1, 1, 1 << 20), np.uint8)
    with pytest.raises(InvalidInputError, match="more than"):
        run(s.Resize(height=1024, width=1024), x)


@given(
    x=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=1, max_dims=3),
        elements=st.floats(-1000, 1000, width=32),
    ),
    axis=st.integers(-1, 0),
)
def test_softmax_is_onnx_softmax(x: NDArray[Any], axis: int) -> None:
    (due,) = onnx_gives("Softmax", x, axis=axis)
    np.testing.assert_allclose(run(s.Softmax(axis=axis), x), due, rtol=1e-5, atol=1e-7)


@given(
    x=hnp.arrays(np.int32, hnp.array_shapes(min_dims=1, max_dims=3), elements=st.integers(0, 3)),
    axis=st.integers(-1, 0),
    data=st.data(),
)
def test_top_k_and_argmax_are_those_of_onnx_ties_included(
    x: NDArray[Any], axis: int, data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, x.shape[axis]))
    values, indices = kernel_of(s.TopK(k=k, axis=axis))(x)
    due = onnx_gives("TopK", x, np.array([k], np.int64), outputs=2, axis=axis)
    np.testing.assert_array_equal(values, due[0])
    np.testing.assert_array_equal(indices, due[1])
    for keep in (False, True):
        (best,) = onnx_gives("ArgMax", x, axis=axis, keepdims=int(keep))
        np.testing.assert_array_equal(run(s.ArgMax(axis=axis, keep=keep), x), best)


def test_the_largest_of_numbers_with_nan_is_nan() -> None:
    x = np.array([1, np.nan, 3], np.float32)
    values, indices = kernel_of(s.TopK(k=2))(x)
    assert indices.tolist() == [1, 2]
    assert np.isnan(values[0])
    assert run(s.ArgMax(), x) == 1


def test_more_than_there_is_can_not_be_taken() -> None:
    with pytest.raises(InvalidInputError, match="fewer than 4"):
        run(s.TopK(k=4), np.zeros(3))


def test_rescaled_integers_become_fp32_and_floats_stay_what_they_are() -> None:
    seen = run(s.Rescale(scale=1 / 255, offset=-1.0), np.array([0, 255], np.uint8))
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen, [-1, 0], atol=1e-7)
    assert run(s.Rescale(scale=2.0), np.ones(1, np.float16)).dtype == np.float16


def test_each_channel_is_normalized_with_its_own_figures() -> None:
    x = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    mean, std = (1.0, 2.0, 3.0), (2.0, 4.0, 8.0)
    due = (x.astype(np.float32) - np.array(mean, np.float32)) / np.array(std, np.float32)
    np.testing.assert_array_equal(run(s.Normalize(mean=mean, std=std), x), due)
    chw = run(s.Normalize(mean=mean, std=std, axis=0), x.transpose(2, 0, 1))
    np.testing.assert_array_equal(chw, due.transpose(2, 0, 1))


def test_a_single_channel_is_not_broadcast_to_three() -> None:
    step = s.Normalize(mean=(1, 2, 3), std=(1,))
    with pytest.raises(InvalidInputError, match="1 channels"):
        run(step, np.zeros((2, 2, 1)))
    with pytest.raises(InvalidModelError, match="3 channels"):
        results_of(step, TensorSpec(name="x", datatype="FP32", shape=(2, 2, 1)))


@pytest.mark.parametrize("to", [n for n in NUMBERS if not n.startswith("FP")])
@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_cast_to_integers_are_cut_and_held(kind: str, to: Any) -> None:
    bounds, dtype = np.iinfo(dtype_of(to)), dtype_of(kind)
    if dtype.kind == "f":
        given_ = [-np.inf, -300.7, -1.9, 0.0, 1.9, 300.7, np.inf, np.nan]
    else:
        given_ = [np.iinfo(dtype).min, 0, 1, np.iinfo(dtype).max]
    x = np.array(given_, dtype)
    seen = run(s.Cast(datatype=to), x)
    assert seen.dtype == dtype_of(to)
    for got, number in zip(seen.tolist(), x.tolist(), strict=True):
        exact = 0 if number != number else number  # noqa: PLR0124 - NaN
        held = min(max(exact, bounds.min), bounds.max)
        assert got == int(held)


def test_a_cast_to_what_it_is_copies_nothing() -> None:
    x = np.zeros(3, np.float32)
    assert run(s.Cast(datatype="FP32"), x) is x


@pytest.mark.parametrize(
    "step",
    [
        s.Transpose(axes=(2, 0, 1)),
        s.Reshape(shape=(-1,)),
        s.ExpandDims(axis=0),
        s.ExpandDims(axis=-1),
        s.Squeeze(axis=0),
    ],
    ids=s.step_name,
)
def test_steps_that_change_no_number_give_views(step: s.Operation) -> None:
    x = np.zeros((1, 4, 3), np.float32)
    assert np.shares_memory(run(step, x), x)


@given(
    bounds=st.tuples(st.floats(-400, 400), st.floats(-400, 400)).map(sorted),
    dtype=st.sampled_from(["u1", "i1", "i4", "f4", "f8"]),
)
def test_what_is_clipped_lies_between_its_bounds(bounds: list[float], dtype: str) -> None:
    x = np.array([-300, -2, 0, 1, 99, 255, 300]).astype(dtype)
    low, high = (np.float32(bound).item() for bound in bounds)
    try:
        seen = run(s.Clip(min=low, max=high), x)
    except InferenceError:
        assert not any(low <= n <= high for n in range(-400, 401) if n == np.array(n).astype(dtype))
        return
    assert seen.dtype == x.dtype
    for got, number in zip(seen.tolist(), x.tolist(), strict=True):
        assert low <= got <= high
        assert got == number or not low <= number <= high


def test_a_threshold_counts_itself() -> None:
    assert run(s.Threshold(at=0.5), np.array([0.25, 0.5, np.nan])).tolist() == [False, True, False]


def test_classes_get_their_labels() -> None:
    step = s.Label(labels=("cat", "dög"))
    seen = run(step, np.array([[1], [0]]))
    assert seen.tolist() == [["dög".encode()], [b"cat"]]
    assert run(step, np.array(1)).shape == ()


@pytest.mark.parametrize("index", [-1, 2])
def test_a_class_without_a_label_is_an_error(index: int) -> None:
    with pytest.raises(InferenceError, match=f"class {index} has no label, there are 2"):
        run(s.Label(labels=("cat", "dog")), np.array([0, index]))


STEPS = st.one_of(
    st.builds(s.Cast, datatype=st.sampled_from(NUMBERS)),
    st.just(s.Rescale(scale=0.5)),
    st.just(s.Normalize(mean=(1, 2), std=(3,))),
    st.permutations(range(3)).map(lambda axes: s.Transpose(axes=tuple(axes))),
    st.sampled_from([(-1,), (2, -1), (-1, 3), (6,)]).map(lambda shape: s.Reshape(shape=shape)),
    st.integers(-4, 3).map(lambda axis: s.ExpandDims(axis=axis)),
    st.integers(-3, 2).map(lambda axis: s.Squeeze(axis=axis)),
    st.builds(
        s.Resize, height=st.just(2), width=st.just(3), layout=st.sampled_from(["HWC", "CHW"])
    ),
    st.just(s.Clip(min=0, max=100)),
    st.just(s.Threshold(at=1.0)),
    st.integers(-3, 2).map(lambda axis: s.Softmax(axis=axis)),
    st.builds(lambda axis, keep: s.ArgMax(axis=axis, keep=keep), st.integers(-3, 2), st.booleans()),
    st.integers(-3, 2).map(lambda axis: s.TopK(k=1, axis=axis)),
    st.just(s.Label(labels=("a",) * 256)),
)


@given(
    step=STEPS,
    datatype=st.sampled_from((*NUMBERS, "BOOL", "BYTES")),
    shape=hnp.array_shapes(min_dims=1, max_dims=3, max_side=3),
    hidden=st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_what_a_step_gives_is_what_was_worked_out_before(
    step: Any, datatype: Any, shape: tuple[int, ...], hidden: list[bool]
) -> None:
    told = tuple(-1 if hide else n for n, hide in zip(shape, hidden, strict=False))
    x = np.ones(shape, dtype_of(datatype))
    try:
        promised = results_of(step, TensorSpec(name="x", datatype=datatype, shape=told))
    except InvalidModelError:
        return
    try:
        seen = kernel_of(step)(x)
    except (ValueError, IndexError):
        assert -1 in told  # else it would have been known before
        return
    for array, spec in zip(seen, promised, strict=True):
        given_ = TensorSpec(name="y", datatype=datatype_of(array.dtype), shape=array.shape)
        assert fits(given_, spec)
