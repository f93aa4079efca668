"""Ensembles of loaded models: what they give, what they hold, what they refuse."""

from __future__ import annotations

import contextlib
import threading
import weakref
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.tests.ensemble.graphs import NumpyModel, X, add, models, plus, served, spec
from edgefleet.errors import EdgeFleetError, InferenceError, InvalidInputError, InvalidModelError
from edgefleet.protocol import steps as s
from edgefleet_runtime.ensemble.binding import bind, bound, needing, replaced
from edgefleet_runtime.ensemble.declare import Ensemble, ModelStep
from edgefleet_runtime.ensemble.model import EnsembleModel

if TYPE_CHECKING:
    from edgefleet_runtime.serve.table import ServedModel


def step(model: str, x: str, y: str, **more: Any) -> ModelStep:
    return ModelStep(model=model, inputs={"x": x}, outputs={"y": y}, **more)


TWICE = Ensemble(
    inputs=("in",), steps=(step("m", "in", "t"), step("m", "t", "out")), outputs=("out",)
)
THROUGH = Ensemble(inputs=("in",), steps=(step("m", "in", "out"),), outputs=("out",))


def test_steps_pass_tensors_by_their_names_in_any_order_of_declaration() -> None:
    ensemble = Ensemble(
        inputs=("in",),
        steps=(
            ModelStep(model="add", inputs={"a": "left", "b": "right"}, outputs={"sum": "out"}),
            step("one", "in", "left"),
            step("ten", "left", "right"),
        ),
        outputs=("out",),
    )
    model = EnsembleModel(ensemble, models(one=plus(1), ten=plus(10), add=add()))
    np.testing.assert_array_equal(model.infer({"in": X})["out"], 2 * X + 12)
    assert [spec.name for spec in model.interface.inputs] == ["in"]
    assert model.interface.outputs == (spec("out"),)


def test_models_and_steps_mix() -> None:
    scores = NumpyModel(
        lambda x: {"y": x[:, :, 0].mean(axis=1)[None]},
        [spec("x", "FP32", (4, 4, 3))],
        [spec("y", "FP32", (1, 4))],
    )
    ensemble = Ensemble(
        inputs=(spec("photo", "UINT8", (-1, -1, 3)),),
        steps=(
            s.Resize(tensor="photo", into="small", height=4, width=4, mode="nearest"),
            s.Rescale(tensor="small", into="x", scale=0.5),
            step("scores", "x", "scores"),
            s.TopK(tensor="scores", into="best", indices="where", k=2),
            s.Label(tensor="where", into="names", labels=("a", "b", "c", "d")),
        ),
        outputs=("names", "best"),
    )
    model = EnsembleModel(ensemble, models(scores=scores))
    photo = np.repeat(np.arange(8, dtype=np.uint8), 8 * 3).reshape(8, 8, 3)
    answer = model.infer({"photo": photo})
    assert answer["names"].tolist() == [[b"d", b"c"]]
    np.testing.assert_array_equal(answer["best"], [[3.0, 2.0]])
    assert model.interface.outputs == (spec("names", "BYTES", (1, 2)), spec("best", "FP32", (1, 2)))


def test_arrays_go_from_step_to_step_without_a_copy() -> None:
    seen: list[Any] = []

    def look(x: Any) -> dict[str, Any]:
        seen.append(x)
        return {"y": x}

    words = np.array([b"a", b"b"], object)
    for array, datatype in ((X, "FP32"), (words, "BYTES")):
        model = NumpyModel(look, [spec("x", datatype)], [spec("y", datatype)])
        answer = EnsembleModel(TWICE, models(m=model)).infer({"in": array})["out"]
        assert answer is array
    assert seen[0] is seen[1] is X
    assert seen[2] is seen[3] is words


def test_a_tensor_is_freed_as_soon_as_no_step_needs_it() -> None:
    made: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def compute(x: Any) -> dict[str, Any]:
        alive.append(sum(ref() is not None for ref in made))
        results = {"y": x + 1, "unasked": x + 2}
        made.extend(weakref.ref(array) for array in results.values())
        return results

    names = ("in", "a", "b", "c", "d", "out")
    ensemble = Ensemble(
        inputs=("in",),
        steps=tuple(step("m", x, y) for x, y in pairwise(names)),
        outputs=("out",),
    )
    model = NumpyModel(compute, [spec("x")], [spec("y"), spec("unasked")])
    EnsembleModel(ensemble, models(m=model)).infer({"in": X})
    assert alive == [0, 1, 1, 1, 1]  # what a step reads, and nothing else


def test_a_request_for_fewer_outputs_runs_fewer_steps() -> None:
    light, heavy = plus(1), plus(2)
    ensemble = Ensemble(
        inputs=("in",),
        steps=(step("light", "in", "a"), step("heavy", "in", "b")),
        outputs=("a", "b"),
    )
    model = EnsembleModel(ensemble, models(light=light, heavy=heavy))
    assert list(model.infer({"in": X}, ["a"])) == ["a"]
    assert (light.runs, heavy.runs) == (1, 0)
    assert list(model.infer({"in": X}, ["b", "a"])) == ["b", "a"]


def test_members_count_what_ensembles_ask_of_them() -> None:
    members = models(m=plus(1))
    watched: list[float] = []
    members["m"].watchers = (lambda inputs, outcome, us: watched.append(us),)
    model = EnsembleModel(TWICE, members)
    model.infer({"in": X})
    assert members["m"].figures().inferences == 2
    assert members["m"].requests.totals().answered == 2
    assert len(watched) == 2


def test_nothing_counts_a_run_for_a_measurement() -> None:
    members = models(m=plus(1))
    np.testing.assert_array_equal(EnsembleModel(TWICE, members).probe({"in": X})["out"], X + 2)
    assert members["m"].figures().inferences == 0
    assert members["m"].requests.totals().answered == 0


def test_a_member_that_fails_is_named_and_counted() -> None:
    def fail(x: Any) -> dict[str, Any]:
        raise InferenceError("no luck")

    members = models(m=NumpyModel(fail))
    with pytest.raises(InferenceError, match=r"^step 1 \(model 'm'\): no luck"):
        EnsembleModel(THROUGH, members).infer({"in": X})
    assert members["m"].figures().failures == 1
    assert members["m"].requests.totals().failed == 1


def test_what_a_step_can_not_take_is_the_callers_fault_and_names_the_step() -> None:
    ensemble = Ensemble(
        inputs=(spec("in", "FP32", (-1,)),),
        steps=(s.Reshape(tensor="in", into="out", shape=(2, 2)),),
        outputs=("out",),
    )
    with pytest.raises(InvalidInputError, match=r"^step 1 \(reshape\): cannot reshape"):
        EnsembleModel(ensemble, {}).infer({"in": X})


@pytest.mark.parametrize(
    "feed,said",
    [
        ({}, "input 'in' is missing"),
        ({"in": X.astype(np.int32)}, "takes FP32, not INT32"),
        ({"in": X[None]}, "takes shape"),
        ({"in": X, "t": X}, "no input 't'"),
    ],
)
def test_what_clients_send_is_checked_before_anything_runs(feed: Any, said: str) -> None:
    inner = plus(1)
    model = EnsembleModel(TWICE, models(m=inner))
    with pytest.raises(InvalidInputError, match=said):
        model.infer(feed)
    with pytest.raises(InvalidInputError, match="no output 't'"):
        model.infer({"in": X}, ["t"])
    assert inner.runs == 0


WIDE = NumpyModel(lambda x: {"y": x}, [spec("x", "FP32", (-1, 4))], [spec("y", "FP32", (-1, 2))])


@pytest.mark.parametrize(
    "steps,said",
    [
        ([step("gone", "in", "out")], r"step 1 \(model 'gone'\): there is no such model"),
        ([step("m", "in", "out", version="7")], "needs version 7, served is 1"),
        ([ModelStep(model="m", inputs={}, outputs={"y": "out"})], "gets nothing for its input 'x'"),
        (
            [ModelStep(model="m", inputs={"x": "in", "q": "in"}, outputs={"y": "out"})],
            "has no input 'q'",
        ),
        (
            [ModelStep(model="m", inputs={"x": "in"}, outputs={"q": "out"})],
            r"has no output 'q'[\s\S]*it has 'y'",
        ),
        (
            [step("m", "in", "t"), step("wide", "t", "out")],
            r"step 2 .* takes FP32\[-1, 4\] as 'x', and 't' is FP32\[-1\]",
        ),
        (
            [step("wide", "in", "t"), step("wide", "t", "out")],
            r"takes FP32\[-1, 4\] as 'x', and 't' is FP32\[-1, 2\]",
        ),
        (
            [step("m", "in", "t"), s.Label(tensor="t", into="out", labels=("a",))],
            r"step 2 \(label\) reads 't', FP32\[-1\]: it takes",
        ),
        ([s.Softmax(tensor="in", into="out")], "no model reads the input 'in'"),
        ([s.Softmax(tensor="in")], "doesn't name both"),
        ([step("m", "in", "t"), s.Label(tensor="t", into="out")], "takes"),
    ],
)
def test_what_does_not_fit_together_is_refused_when_it_is_made(steps: Any, said: str) -> None:
    ensemble = Ensemble(inputs=("in",), steps=tuple(steps), outputs=("out",))
    with pytest.raises(InvalidModelError, match=said):
        EnsembleModel(ensemble, models(m=plus(1), wide=WIDE))


TENSORS = st.sampled_from(["in", "a", "b", "out", ""])
ANY_STEP = st.one_of(
    st.builds(step, st.sampled_from(["m", "wide", "gone"]), TENSORS, TENSORS),
    st.builds(s.Softmax, tensor=TENSORS, into=TENSORS, axis=st.integers(-2, 1)),
    st.builds(s.Reshape, tensor=TENSORS, into=TENSORS, shape=st.just((-1, 4))),
    st.builds(s.TopK, tensor=TENSORS, into=TENSORS, indices=TENSORS.filter(bool), k=st.just(2)),
)


@given(
    inputs=st.lists(st.one_of(TENSORS, TENSORS.map(spec)), max_size=2),
    steps=st.lists(ANY_STEP, max_size=4),
    outputs=st.lists(st.one_of(TENSORS, TENSORS.map(spec)), max_size=2),
)
def test_any_graph_at_all_is_refused_with_a_reason_or_answers(
    inputs: Any, steps: Any, outputs: Any
) -> None:
    ensemble = Ensemble(inputs=tuple(inputs), steps=tuple(steps), outputs=tuple(outputs))
    try:
        model = EnsembleModel(ensemble, models(m=plus(1), wide=WIDE))
    except InvalidModelError:
        return
    feed = {one.name: np.ones([8] * len(one.shape), np.float32) for one in model.interface.inputs}
    with contextlib.suppress(InvalidInputError):  # 8 may not be what a shape of -1 takes
        assert set(model.infer(feed)) == {one.name for one in model.interface.outputs}


def test_declared_outputs_are_promised_and_held_against_the_steps() -> None:
    wide = Ensemble(
        inputs=(spec("in", "FP32", (8, 4)),),
        steps=(step("wide", "in", "out"),),
        outputs=(spec("out", "FP32", (8, 2)),),
    )
    assert EnsembleModel(wide, models(wide=WIDE)).interface.outputs[0].shape == (8, 2)
    wrong = Ensemble(inputs=("in",), steps=wide.steps, outputs=(spec("out", "INT64", (-1, 2)),))
    with pytest.raises(InvalidModelError, match=r"declared as INT64.*the steps give FP32\[-1, 2\]"):
        EnsembleModel(wrong, models(wide=WIDE))


# --- members that come and go


def test_a_member_that_left_stays_open_until_the_ensemble_is_closed() -> None:
    inner = plus(1)
    members = models(m=inner)
    whole = bind("e", THROUGH, members, version="1")
    members["m"].retire()
    np.testing.assert_array_equal(whole.infer({"in": X})[0]["out"], X + 1)
    assert not inner.closed
    whole.retire()
    assert [inner.closed] == [True]
    whole.model.close()  # may be called twice
    with pytest.raises(InferenceError, match="closed"):
        whole.model.infer({"in": X})


def test_a_request_under_way_keeps_all_its_members() -> None:
    entered, go = threading.Event(), threading.Event()

    def wait(x: Any) -> dict[str, Any]:
        entered.set()
        assert go.wait(90)
        return {"y": x}

    first, second = NumpyModel(wait), plus(5)
    members = models(first=first, second=second)
    ensemble = Ensemble(
        inputs=("in",),
        steps=(step("first", "in", "t"), step("second", "t", "out")),
        outputs=("out",),
    )
    whole = bind("e", ensemble, members, version="1")
    answers: list[Any] = []

    def ask() -> None:
        with whole.lease():
            answers.append(whole.infer({"in": X})[0]["out"])

    thread = threading.Thread(target=ask)
    thread.start()
    assert entered.wait(90)
    for model in (*members.values(), whole):
        model.retire()
    assert not any((first.closed, second.closed))
    go.set()
    thread.join()
    np.testing.assert_array_equal(answers[0], X + 5)
    assert [first.closed, second.closed] == [True, True]


def test_an_ensemble_that_can_not_be_made_holds_nothing() -> None:
    first, gone = plus(1), served(plus(2), "gone")
    gone.retire()
    members = {"first": served(first, "first"), "gone": gone}
    ensemble = Ensemble(
        inputs=("in",),
        steps=(step("first", "in", "t"), step("gone", "t", "out")),
        outputs=("out",),
    )
    with pytest.raises(EdgeFleetError, match="ensemble 'e': model 'gone' is closed"):
        bind("e", ensemble, members, version="1")
    members["first"].retire()
    assert first.closed


def outer(member: str) -> Ensemble:
    one = ModelStep(model=member, inputs={"in": "in"}, outputs={"out": "out"})
    return Ensemble(inputs=("in",), steps=(one,), outputs=("out",))


def test_ensembles_of_ensembles_are_bound_in_the_order_that_they_need() -> None:
    made = bound({"top": (outer("low"), "1"), "low": (TWICE, "2")}, models(m=plus(1)))
    np.testing.assert_array_equal(made["top"].infer({"in": X})[0]["out"], X + 2)
    assert made["low"].version == "2"


def test_ensembles_that_need_each_other_are_refused() -> None:
    with pytest.raises(InvalidModelError, match="circle: 'a', 'b'"):
        bound({"a": (outer("b"), "1"), "b": (outer("a"), "1")}, {})
    serving = models(m=plus(1))
    serving |= bound({"a": (THROUGH, "1")}, serving)
    serving |= bound({"b": (outer("a"), "1")}, serving)
    fresh = bound({"a": (outer("b"), "2")}, {"b": serving["b"]})
    with pytest.raises(InvalidModelError, match="circle: 'a', 'b'"):
        replaced(serving, fresh)


def test_a_member_replaced_takes_along_all_that_need_it() -> None:
    old, other = plus(1), plus(100)
    serving = models(m=old, other=other)
    serving |= bound({"e": (THROUGH, "1"), "top": (outer("e"), "3")}, serving)
    assert needing(serving, {"m"}) == {"e", "top"}
    after = replaced(serving, {"m": served(plus(2), "m", "2")})
    assert {n: (m.version, m is serving[n]) for n, m in after.items()} == {
        "m": ("2", False),
        "other": ("1", True),
        "e": ("1", False),
        "top": ("3", False),
    }
    assert answer(after["top"]) == 2
    assert answer(serving["top"]) == 1
    for name in ("top", "e", "m"):
        serving[name].retire()
    assert old.closed
    assert answer(after["top"]) == 2


def test_a_member_that_does_not_fit_leaves_all_as_it_was() -> None:
    serving = models(m=plus(1))
    serving |= bound({"e": (THROUGH, "1")}, serving)
    other = NumpyModel(lambda q: {"y": q}, [spec("q")])
    fresh = served(other, "m")
    with pytest.raises(InvalidModelError, match=r"ensemble 'e': step 1 .* its input 'q'"):
        replaced(serving, {"m": fresh})
    assert answer(serving["e"]) == 1
    fresh.retire()
    assert other.closed


def answer(model: ServedModel) -> float:
    return float(model.infer({"in": np.zeros(1, np.float32)})[0]["out"][0])
