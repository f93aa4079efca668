"""Random graphs of real and numpy models give what their steps give one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_runtime.tests import onnx_models
from device_runtime.tests.ensemble.graphs import NumpyModel, add, models, plus, spec
from edgefleet.protocol import steps as s
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.onnxruntime import OnnxRuntimeEngine
from edgefleet_runtime.ensemble.binding import bound
from edgefleet_runtime.ensemble.declare import Ensemble, ModelStep
from edgefleet_runtime.ensemble.kernels import kernel_of

if TYPE_CHECKING:
    from edgefleet_runtime.serve.table import ServedModel

OPERATIONS = (
    s.Rescale(scale=0.5, offset=1.0),
    s.Clip(min=-2, max=2),
    s.Softmax(),
    s.Reshape(shape=(-1,)),
)


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ServedModel]:
    path = onnx_models.plus(tmp_path_factory.mktemp("models") / "plus.onnx", 3)
    real = OnnxRuntimeEngine().load(path, EngineOptions(threads=1))
    halves = NumpyModel(
        lambda x: {"low": np.minimum(x, 0), "high": np.maximum(x, 0)},
        outputs=[spec("low"), spec("high")],
    )
    found = models(real=real, plus=plus(-1), add=add(), halves=halves)
    inner = Ensemble(
        inputs=("x",),
        steps=(
            ModelStep(model="real", inputs={"x": "x"}, outputs={"y": "t"}),
            s.Clip(tensor="t", into="y", min=-1),
        ),
        outputs=("y",),
    )
    return found | bound({"inner": (inner, "1")}, found)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Ensemble, list[Any]]:
    """An ensemble with its steps shuffled, and the same steps in the order that they were made."""
    tensors = ["in"]
    steps: list[Any] = []

    def tensor() -> str:
        return draw(st.sampled_from(tensors))

    for number in range(draw(st.integers(1, 8))):
        made = f"t{number}"
        kind = draw(st.sampled_from(["real", "plus", "inner", "add", "halves", "operation"]))
        if kind == "operation":
            operation = draw(st.sampled_from(OPERATIONS))
            fields = {f: getattr(operation, f) for f in operation.__struct_fields__}
            steps.append(type(operation)(**{**fields, "tensor": tensor(), "into": made}))
        elif kind == "add":
            inputs = {"a": tensor(), "b": tensor()}
            steps.append(ModelStep(model="add", inputs=inputs, outputs={"sum": made}))
        elif kind == "halves":
            both = {"high": made, "low": f"{made}-low"}
            steps.append(ModelStep(model="halves", inputs={"x": tensor()}, outputs=both))
            tensors.append(f"{made}-low")
        else:
            steps.append(ModelStep(model=kind, inputs={"x": tensor()}, outputs={"y": made}))
        tensors.append(made)
    read = {t for one in steps for t in _reads(one)}
    outputs = tuple(t for t in tensors if t not in read or t == tensors[-1] or draw(st.booleans()))
    shuffled = tuple(draw(st.permutations(steps)))
    return Ensemble(inputs=(spec("in"),), steps=shuffled, outputs=outputs), steps


def _reads(step: Any) -> list[str]:
    return list(step.inputs.values()) if isinstance(step, ModelStep) else [step.tensor]


# The members are the same for all examples, and keep nothing of one.
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(graph=graphs(), x=st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=4))
def test_a_graph_gives_what_its_steps_give_one_by_one(
    members: dict[str, ServedModel], graph: tuple[Ensemble, list[Any]], x: list[float]
) -> None:
    ensemble, steps = graph
    tensors: dict[str, Any] = {"in": np.array(x, np.float32)}
    for step in steps:
        if isinstance(step, ModelStep):
            inner = members[step.model].model
            results = inner.infer({own: tensors[t] for own, t in step.inputs.items()})
            tensors.update({t: results[own] for own, t in step.outputs.items()})
        else:
            (tensors[step.into],) = kernel_of(step)(tensors[step.tensor])
    whole = bound({"e": (ensemble, "1")}, members)["e"]
    try:
        seen = whole.model.infer({"in": np.array(x, np.float32)})
        assert list(seen) == list(ensemble.outputs)
        for name, array in seen.items():
            np.testing.assert_array_equal(array, tensors[name])
    finally:
        whole.retire()
