"""A bundle's steps: what clients see of them, everywhere a bundle is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.tests import onnx_models
from device_runtime.tests.ensemble.graphs import NumpyModel, X, plus, spec
from edgefleet.errors import InvalidInputError, InvalidModelError, UnknownFeatureError
from edgefleet.protocol import bundle as b
from edgefleet.protocol import steps as s
from edgefleet.protocol.layout import BundleWriter
from edgefleet.protocol.tensors import datatype_of, dtype_of
from edgefleet_runtime import Runtime
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.ensemble.stepped import proper, with_steps
from edgefleet_runtime.standalone.loading import load_bundle

GOLDEN = Path(__file__).parents[3] / "tests" / "contract" / "golden" / "details-steps.json"
NOTHING = b.Interface(inputs=(), outputs=())


def details(
    before: tuple[s.Step, ...] = (), after: tuple[s.Step, ...] = (), **more: Any
) -> b.Details:
    return b.Details(
        variant="fp32",
        entry="model.onnx",
        interface=NOTHING,
        preprocessing=s.plain_steps(before),
        postprocessing=s.plain_steps(after),
        **more,
    )


def test_a_model_without_steps_is_served_as_it_is() -> None:
    model = plus(1)
    assert with_steps(model, details()) is model


def test_steps_in_a_row_need_no_names() -> None:
    about = details((s.Rescale(scale=10.0), s.Clip(max=25)), (s.Rescale(scale=1.0, offset=0.5),))
    whole = with_steps(plus(1), about)
    assert whole.interface == plus(1).interface
    np.testing.assert_array_equal(whole.infer({"x": X})["y"], [11.5, 21.5, 26.5])


def test_clients_send_what_the_input_step_says() -> None:
    about = details(
        (s.Given(datatype="UINT8", shape=(-1, 1)), s.Squeeze(axis=1), s.Cast(datatype="FP32")),
        (s.ArgMax(), s.Label()),
        labels=("a", "b", "c"),
    )
    model = NumpyModel(
        lambda x: {"y": np.stack([x, 9 - x], -1)}, outputs=[spec("y", "FP32", (-1, 2))]
    )
    whole = with_steps(model, about)
    assert whole.interface.inputs == (spec("x", "UINT8", (-1, 1)),)
    assert whole.interface.outputs == (spec("y", "BYTES", (-1,)),)
    answer = whole.infer({"x": np.array([[9], [0]], np.uint8)})["y"]
    assert answer.tolist() == [b"a", b"b"]


def test_clients_and_models_may_have_names_of_their_own() -> None:
    about = details(
        (
            s.Given(tensor="left", datatype="INT32", shape=(-1,)),
            s.Cast(tensor="left", into="a", datatype="FP32"),
        ),
        (s.TopK(tensor="sum", k=2, into="best", indices="where"),),
    )
    model = NumpyModel(
        lambda a, b: {"sum": a + b, "a": a},
        [spec("a"), spec("b")],
        [spec("sum"), spec("a")],
    )
    whole = with_steps(model, about)
    assert [one.name for one in whole.interface.inputs] == ["left", "b"]
    assert [one.name for one in whole.interface.outputs] == ["best", "where", "a"]
    answer = whole.infer({"left": X.astype(np.int32), "b": X})
    assert answer["where"].tolist() == [2, 1]
    np.testing.assert_array_equal(answer["a"], X)


def test_what_the_model_says_of_itself_stays_true_and_it_closes_with_the_whole() -> None:
    model = plus(1)
    whole = with_steps(model, details((s.Rescale(scale=2.0),)))
    assert (whole.platform, whole.engine) == ("numpy_function", "numpy")
    assert whole.providers == model.providers
    assert proper(whole) is model
    assert proper(model) is model
    whole.close()
    assert model.closed


@pytest.mark.parametrize(
    "before,after,said",
    [
        ((s.Given(datatype="UINT8", shape=(-1,)),), (), "the model takes FP32.* UINT8"),
        ((s.Rescale(scale=1.0, into="z"),), (), "leaves nothing for the model's input 'x'"),
        (
            (s.Given(tensor="q", datatype="FP32", shape=(-1,)), s.Clip(tensor="x")),
            (),
            "preprocessing leaves 'q', which the model doesn't take",
        ),
        ((s.Given(datatype="FP32", shape=(-1,)),) * 2, (), "two steps input"),
        (
            (s.Given(datatype="FP32", shape=(-1,)), s.Given(tensor="x", datatype="FP32", shape=())),
            (),
            "doesn't say which tensor",
        ),
        ((s.Clip(tensor="q"),), (), r"step 1 of preprocessing \(clip\) reads 'q'"),
        ((), (s.Label(),), r"step 1 of postprocessing \(label\) reads .*FP32"),
        ((), (s.Given(datatype="FP32", shape=()),), "belongs to preprocessing"),
        ((), (s.TopK(k=1, into="i", indices="i"),), "one of which is there"),
    ],
)
def test_steps_that_do_not_fit_are_refused_by_their_number(
    before: tuple[s.Step, ...], after: tuple[s.Step, ...], said: str
) -> None:
    model = plus(1)
    with pytest.raises(InvalidModelError, match=said):
        with_steps(model, details(before, after))
    assert model.closed


def test_a_step_of_several_outputs_says_which() -> None:
    model = NumpyModel(lambda x: {"y": x, "z": x}, outputs=[spec("y"), spec("z")])
    with pytest.raises(InvalidModelError, match=r"doesn't say which.*\n.*one of 'y', 'z'"):
        with_steps(model, details((), (s.Softmax(),)))


NAMES = st.sampled_from(["", "", "x", "y", "z"])
STEPS = st.lists(
    st.one_of(
        st.builds(s.Given, tensor=NAMES, datatype=st.just("UINT8"), shape=st.just((-1,))),
        st.builds(s.Cast, tensor=NAMES, into=NAMES, datatype=st.sampled_from(["FP32", "INT8"])),
        st.builds(s.Rescale, tensor=NAMES, into=NAMES, scale=st.just(2.0)),
        st.builds(s.ExpandDims, tensor=NAMES, into=NAMES, axis=st.integers(-2, 1)),
        st.builds(s.Squeeze, tensor=NAMES, into=NAMES, axis=st.integers(-2, 1)),
        st.builds(s.ArgMax, tensor=NAMES, into=NAMES),
        st.builds(s.TopK, tensor=NAMES, into=NAMES, indices=st.sampled_from("xyz"), k=st.just(1)),
        st.builds(s.Label, tensor=NAMES, into=NAMES),
    ),
    max_size=4,
).map(tuple)


@given(before=STEPS, after=STEPS)
def test_any_steps_at_all_are_refused_or_give_what_they_promise(
    before: tuple[s.Step, ...], after: tuple[s.Step, ...]
) -> None:
    model = plus(1)
    try:
        whole = with_steps(model, details(before, after, labels=("a",) * 200))
    except InvalidModelError:
        assert model.closed
        return
    feed = {
        one.name: np.ones([1] * len(one.shape), dtype_of(one.datatype))
        for one in whole.interface.inputs
    }
    try:
        answer = whole.infer(feed)
    except InvalidInputError:  # a scalar, which in an interface looks like an unknown rank
        return
    assert list(answer) == [one.name for one in whole.interface.outputs]
    for one in whole.interface.outputs:
        assert datatype_of(answer[one.name].dtype) == one.datatype
        assert answer[one.name].ndim == len(one.shape)


def test_the_steps_of_the_golden_file_run() -> None:
    about = b.read_details(GOLDEN.read_bytes())
    model = NumpyModel(
        lambda x: {"probabilities": x[:, :3], "mask": x[0].reshape(3, 4, 6)[0]},
        about.interface.inputs,
        about.interface.outputs,
    )
    whole = with_steps(model, about)
    assert [one.name for one in whole.interface.inputs] == ["photo"]
    assert whole.interface.outputs == (
        spec("sure", "BOOL", (1, 2)),
        spec("names", "BYTES", (1, 2)),
        spec("mask", "INT64", (1, 6)),
    )
    photo = np.zeros((8, 12, 3), np.uint8)
    photo[0, 0], photo[6, 10] = 255, 255
    answer = whole.infer({"photo": photo})
    # Nearest of two keeps the first, of which channel 0 fills the row of probabilities.
    assert answer["names"].tolist() == [[b"good", b"scratch"]]
    assert answer["sure"].tolist() == [[True, False]]
    assert answer["mask"].tolist() == [[0, 0, 0, 0, 0, 3]]


# --- wherever bundles are served


def bundle(folder: Path, **steps: Any) -> Path:
    """A bundle of ``y = x + 1`` whose recorded case is the model's own."""
    folder.mkdir()
    model = onnx_models.plus(folder / "plus.onnx", 1)
    recorded, due = (
        b.Tensor(name=name, datatype="FP32", shape=(1,), data=np.float32(value).tobytes())
        for name, value in (("x", 1.0), ("y", 2.0))
    )
    about = b.Details(
        variant="fp32",
        entry="plus.onnx",
        interface=b.Interface(inputs=(spec("x"),), outputs=(spec("y"),)),
        self_test=(b.Vector(inputs=(recorded,), outputs=(due,)),),
        requires=(s.FEATURE,),
        **steps,
    )
    with BundleWriter(folder / "bundle") as writer:
        writer.add_variant(
            about, {"plus.onnx": model}, model_name="plus", model_format="onnx", precision="fp32"
        )
        return writer.finish().root


TIMES_TEN = {"preprocessing": ({"step": "rescale", "scale": 10.0},)}
UNKNOWN = {"postprocessing": ({"step": "frobnicate"},)}


def test_a_bundle_s_steps_run_in_process(tmp_path: Path) -> None:
    with Runtime({"m": bundle(tmp_path / "b", **TIMES_TEN)}) as runtime:
        np.testing.assert_array_equal(runtime.infer("m", {"x": X})["y"], 10 * X + 1)


def test_a_bundle_s_steps_run_stand_alone(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "b", **TIMES_TEN)
    served = load_bundle("m", folder, tmp_path / "work", EngineOptions())
    np.testing.assert_array_equal(served.infer({"x": X})[0]["y"], 10 * X + 1)


def test_a_step_unknown_here_is_refused_and_never_skipped(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "b", **UNKNOWN)
    said = "model 'm': step 1 of postprocessing is 'frobnicate', which is unknown here"
    with pytest.raises(UnknownFeatureError, match=said):
        Runtime({"m": folder})
    with pytest.raises(UnknownFeatureError, match=said):
        load_bundle("m", folder, tmp_path / "work", EngineOptions())
