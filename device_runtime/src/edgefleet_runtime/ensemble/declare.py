"""How a graph of models and steps is written down.

    Ensemble(
        inputs=(TensorSpec(name="photo", datatype="UINT8", shape=(-1, -1, 3)),),
        steps=(
            Resize(tensor="photo", into="small", height=224, width=224),
            ModelStep(model="detector", inputs={"x": "small"}, outputs={"y": "scores"}),
            ArgMax(tensor="scores", into="best"),
        ),
        outputs=("best",),
    )

Between steps, tensors have names of their own, each made once. A model's step says which tensor
goes to which of its inputs, as ``input_map`` of Triton's ensembles does.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from edgefleet.errors import InvalidModelError
from edgefleet.protocol.bundle import TensorSpec
from edgefleet.protocol.steps import Operation, TopK, step_name
from edgefleet_runtime.ensemble.plan import Node

RESULT, INDICES = "result", "indices"
"""What a built-in step calls its results, and `INPUT` what it reads."""
INPUT = "x"


class ModelStep(msgspec.Struct, frozen=True, kw_only=True, tag_field="step", tag="model"):
    """Runs a model.

    Attributes:
        model: the name that it is served under; an ensemble will do.
        version: that it must be served in; empty for any.
        inputs: for each of its inputs the tensor that goes there.
        outputs: for each output that is needed the tensor it becomes.
    """

    model: str
    version: str = ""
    inputs: Annotated[dict[str, str], msgspec.Meta(max_length=256)]
    outputs: Annotated[dict[str, str], msgspec.Meta(min_length=1, max_length=256)]


class Ensemble(msgspec.Struct, frozen=True, kw_only=True):
    """A graph of models and steps that is served like a model.

    Attributes:
        inputs: what clients send; of a bare name, datatype and shape are those of the model that
            reads it first.
        steps: in any order; each names what it reads and what becomes of its result.
        outputs: what clients get; a bare name, or also the datatype and shape to promise, which
            the tensor must fit.
    """

    inputs: tuple[TensorSpec | str, ...]
    steps: tuple[ModelStep | Operation, ...]
    outputs: tuple[TensorSpec | str, ...]

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models it needs, each once."""
        named = [step.model for step in self.steps if isinstance(step, ModelStep)]
        return tuple(dict.fromkeys(named))


def name_of(tensor: TensorSpec | str) -> str:
    """A tensor's name, however it was declared."""
    return tensor if isinstance(tensor, str) else tensor.name


def nodes_of(ensemble: Ensemble) -> tuple[Node, ...]:
    """Its steps for planning.

    Raises:
        InvalidModelError: a step doesn't say what it reads, or what its result is called.
    """
    return tuple(_node(step, number) for number, step in enumerate(ensemble.steps, 1))


def _node(step: ModelStep | Operation, number: int) -> Node:
    if isinstance(step, ModelStep):
        label = f"step {number} (model {step.model!r})"
        if "" in (*step.inputs.values(), *step.outputs.values()):
            raise InvalidModelError(f"{label} has a tensor without a name")
        return Node(label, tuple(step.inputs.items()), tuple(step.outputs.items()))
    label = f"step {number} ({step_name(step)})"
    if not step.tensor or not step.into:
        raise InvalidModelError(f"{label} doesn't name both its tensor and what it gives (into)")
    return builtin_node(step, label, tensor=step.tensor, into=step.into)


def builtin_node(
    step: Operation, label: str, *, tensor: str, into: str, indices: str | None = None
) -> Node:
    """A built-in step for planning, with these tensors.

    Args:
        step: the step.
        label: how errors call it.
        tensor: that it reads.
        into: what becomes of its result.
        indices: likewise of the second result of `TopK`; None for what the step says.
    """
    writes = [(RESULT, into)]
    if isinstance(step, TopK):
        writes.append((INDICES, step.indices if indices is None else indices))
    return Node(label, ((INPUT, tensor),), tuple(writes))
