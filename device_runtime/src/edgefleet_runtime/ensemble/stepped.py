"""A bundle's model with the steps that its details declare before and after it.

Rules kept here:

- What clients see is the whole: inputs as the first steps take them, outputs as the last ones give
  them. What the details record (``interface``, ``self_test``) is of the model proper, which is what
  differs between engines; steps are the same numpy everywhere.
- Steps that don't fit together, or the model, are refused when it is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from edgefleet.errors import EdgeFleetError, InvalidModelError
from edgefleet.protocol.bundle import TensorSpec
from edgefleet.protocol.steps import Given, Label, Operation, Step, TopK, read_steps, step_name
from edgefleet_runtime.engines.base import LoadedModel
from edgefleet_runtime.ensemble.declare import builtin_node
from edgefleet_runtime.ensemble.graph import Graph, Member
from edgefleet_runtime.ensemble.plan import Node

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from edgefleet.protocol.bundle import Details, Interface


def with_steps(model: LoadedModel, details: Details) -> LoadedModel:
    """The model as its bundle wants it served: itself, where no steps are declared.

    The model is closed where that fails.

    Raises:
        UnknownFeatureError: a step is unknown here.
        DocumentError: a step is malformed.
        InvalidModelError: steps and model don't fit together; the message names the step.
    """
    try:
        before, after = steps_of(details)
        return SteppedModel(model, before, after) if before or after else model
    except EdgeFleetError:
        model.close()
        raise


def steps_of(details: Details) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """The steps before and after a bundle's model, with the bundle's labels filled in.

    Raises:
        UnknownFeatureError: a step is unknown here.
        DocumentError: a step is malformed.
    """
    before = read_steps(details.preprocessing, what="preprocessing")
    after = read_steps(details.postprocessing, what="postprocessing")
    return before, tuple(_labelled(step, details.labels) for step in after)


def proper(model: LoadedModel) -> LoadedModel:
    """The model without its bundle's steps."""
    return model.model if isinstance(model, SteppedModel) else model


class SteppedModel(LoadedModel):
    """A model with steps before and after it; says of engine and providers what the model says."""

    def __init__(self, model: LoadedModel, before: Sequence[Step], after: Sequence[Step]) -> None:
        self.model = model
        self.engine, self.providers = model.engine, model.providers
        self.platform, self.nodes = model.platform, model.nodes
        self.configuration = model.configuration
        lines = _Lines(model.interface, before, after)
        self._graph = Graph(
            lines.nodes,
            [*lines.before, Member(model.interface, model.infer, model.probe), *lines.after],
            inputs=lines.inputs,
            outputs=[(name, tensor, None) for name, tensor in lines.outputs.items()],
        )
        self.interface = self._graph.interface

    def infer(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, NDArray[Any]]:
        return self._graph.run(inputs, outputs)

    def probe(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, NDArray[Any]]:
        return self._graph.run(inputs, outputs, probe=True)

    def close(self) -> None:
        self.model.close()


class _Lines:
    """Steps in a row as a graph: each result gets a tensor of its own, under its name for now."""

    def __init__(self, interface: Interface, before: Sequence[Step], after: Sequence[Step]) -> None:
        self._made = 0
        self.nodes: list[Node] = []
        given = {step.tensor: step for step in before if isinstance(step, Given)}
        self.before = [step for step in before if not isinstance(step, Given)]
        if len(given) + len(self.before) < len(before):
            raise InvalidModelError("two steps input of preprocessing are of the same tensor")
        self.after = [step for step in after if not isinstance(step, Given)]
        if len(self.after) < len(after):
            raise InvalidModelError("a step input belongs to preprocessing")
        made = {name for step in self.before for name in _names_of(step)}
        specs = {
            name: TensorSpec(name=name, datatype=step.datatype, shape=step.shape)
            for name, step in _sole(given, interface).items()
        }
        for spec in interface.inputs:
            if spec.name not in made:
                specs.setdefault(spec.name, spec)
        tensors = {name: self._new(name) for name in specs}
        self.inputs = [(name, tensors[name], spec) for name, spec in specs.items()]
        self._row(tensors, self.before, "preprocessing")
        fed = tuple((spec.name, self._fed(tensors, spec.name)) for spec in interface.inputs)
        if tensors:
            raise InvalidModelError(
                f"preprocessing leaves {', '.join(map(repr, tensors))}, which the model doesn't "
                "take",
                cure="name the model's input with into",
            )
        self.outputs = {spec.name: self._new(spec.name) for spec in interface.outputs}
        self.nodes.append(Node("the model", fed, tuple(self.outputs.items())))
        self._row(self.outputs, self.after, "postprocessing")

    def _row(self, tensors: dict[str, str], steps: Sequence[Operation], what: str) -> None:
        last = next(iter(tensors)) if len(tensors) == 1 else ""
        for number, step in enumerate(steps, 1):
            label = f"step {number} of {what} ({step_name(step)})"
            name = step.tensor or last
            if name not in tensors:
                raise InvalidModelError(
                    f"{label} reads {name!r}, which isn't there"
                    if name
                    else f"{label} doesn't say which tensor it reads",
                    cure=f"set its tensor to one of {', '.join(map(repr, tensors))}",
                )
            last = step.into or name
            results = (last, *_names_of(step)[1:])
            fresh = {result: self._new(result) for result in results}
            if len(fresh) < len(results) or (fresh.keys() & tensors.keys()) - {name}:
                raise InvalidModelError(
                    f"{label} gives {' and '.join(map(repr, results))}, one of which is there",
                    cure="give its result another name with into",
                )
            self.nodes.append(
                builtin_node(
                    step,
                    label,
                    tensor=tensors[name],
                    into=fresh[last],
                    indices=fresh[results[-1]],
                )
            )
            _put(tensors, name, fresh)

    def _fed(self, tensors: dict[str, str], name: str) -> str:
        if name not in tensors:
            raise InvalidModelError(
                f"preprocessing leaves nothing for the model's input {name!r}",
                cure=f"it leaves {', '.join(map(repr, tensors)) or 'nothing'}",
            )
        return tensors.pop(name)

    def _new(self, name: str) -> str:
        self._made += 1
        return f"{name} ({self._made})"


def _names_of(step: Operation) -> tuple[str, ...]:
    """What a step calls its results; empty for one that takes the place of what it reads."""
    return (step.into, step.indices) if isinstance(step, TopK) else (step.into,)


def _sole(given: dict[str, Given], interface: Interface) -> dict[str, Given]:
    """What clients are said to send, by name: without one it is the model's only input."""
    if "" not in given:
        return given
    if len(given) > 1 or len(interface.inputs) != 1:
        raise InvalidModelError(
            "a step input of preprocessing doesn't say which tensor it is of",
            cure="set its tensor",
        )
    return {interface.inputs[0].name: given[""]}


def _put(tensors: dict[str, str], name: str, fresh: dict[str, str]) -> None:
    """Put results where their source stood among the others, so that order says something."""
    items = list(tensors.items())
    tensors.clear()
    for old, tensor in items:
        tensors.update(fresh if old == name else {old: tensor})


def _labelled(step: Step, labels: tuple[str, ...]) -> Step:
    if isinstance(step, Label) and not step.labels:
        return msgspec.structs.replace(step, labels=labels)
    return step
