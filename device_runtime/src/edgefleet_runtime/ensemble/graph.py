"""A checked graph: what it takes and gives is known, and it runs over arrays.

Rules kept here:

- Arrays go from step to step by reference; nothing is copied on the way.
- What a step can't take is refused when the graph is made, as far as datatypes and shapes tell.
- An error names the step that it came from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from edgefleet.errors import EdgeFleetError, InvalidInputError, InvalidModelError
from edgefleet.protocol.bundle import Interface, TensorSpec
from edgefleet_runtime.engines.feed import FeedCheck
from edgefleet_runtime.ensemble.declare import INDICES, INPUT, RESULT
from edgefleet_runtime.ensemble.kernels import kernel_of
from edgefleet_runtime.ensemble.plan import ordered, schedule
from edgefleet_runtime.ensemble.specs import fits, results_of, told

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from edgefleet.protocol.steps import Operation
    from edgefleet_runtime.ensemble.plan import Node, Turn

    Arrays = Mapping[str, NDArray[Any]]
    Run = Callable[[Arrays, Sequence[str] | None], Arrays]
    """Runs a model for inputs and wanted outputs, by the model's own names; None for all."""
    Move = tuple[Run, Node, Sequence[tuple[str, str]], Sequence[str] | None, Sequence[str]]
    """How to take a step's turn: run it, which it is, what it makes, asks for and lets go."""

_MAX_SCHEDULES = 64  # of wanted outputs; clients choose them


class Member(NamedTuple):
    """A model in a graph: what it takes and gives, and how to run it.

    Attributes:
        interface: the model's.
        run: runs it.
        probe: runs it as `LoadedModel.probe` does.
    """

    interface: Interface
    run: Run
    probe: Run


class Graph:
    """A graph that can run; may be used by several threads.

    Args:
        nodes: its steps.
        works: what each of them does: a built-in step, or a model.
        inputs: name that clients use, tensor it becomes, and what it must be; None to find that
            out from the model that reads it first.
        outputs: name that clients use, tensor it is, and what to promise; None to promise what the
            steps give.

    Raises:
        InvalidModelError: the steps don't fit together; the message names the one.
        LimitExceededError: there are too many.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        works: Sequence[Operation | Member],
        *,
        inputs: Sequence[tuple[str, str, TensorSpec | None]],
        outputs: Sequence[tuple[str, str, TensorSpec | None]],
    ) -> None:
        _once([name for name, _, _ in inputs], "input")
        _once([name for name, _, _ in outputs], "output")
        if not outputs:
            raise InvalidModelError("there are no outputs")
        for node, work in zip(nodes, works, strict=True):
            if isinstance(work, Member):
                _check_names(node, work.interface)
        self._nodes = tuple(nodes)
        self._inputs = {name: tensor for name, tensor, _ in inputs}
        self._outputs = {name: tensor for name, tensor, _ in outputs}
        self._order = ordered(nodes, self._inputs.values(), self._outputs.values())
        specs = {tensor: spec for _, tensor, spec in inputs if spec is not None}
        _find(specs, nodes, works, self._inputs.values())
        for index in self._order:
            _check(nodes[index], works[index], specs)
        self.interface = Interface(
            inputs=tuple(_named(specs[tensor], name) for name, tensor, _ in inputs),
            outputs=tuple(_promised(name, specs[t], due) for name, t, due in outputs),
        )
        self._runs = tuple(_run_of(work) for work in works)
        self._probes = tuple(
            work.probe if isinstance(work, Member) else run
            for work, run in zip(works, self._runs, strict=True)
        )
        self._check = FeedCheck(self.interface, text=False)
        self._asked = [_outputs_of(work) for work in works]
        self._moves: dict[tuple[bool, tuple[str, ...]], list[Move]] = {}
        self._all = tuple(self._outputs)

    def run(
        self, inputs: Arrays, outputs: Sequence[str] | None, *, probe: bool = False
    ) -> dict[str, NDArray[Any]]:
        """Run it once; arguments and errors as of `LoadedModel.infer`, or of its `probe`."""
        feed = self._check.feed(inputs)
        wanted = tuple(self._check.wanted(outputs)) if outputs else self._all
        tensors = {self._inputs[name]: array for name, array in feed.items()}
        for run, node, writes, asked, drops in self._moves_for(wanted, probe=probe):
            try:
                made = run({own: tensors[tensor] for own, tensor in node.reads}, asked)
            except EdgeFleetError as error:
                error.prefixed(node.label)
                raise
            for own, tensor in writes:
                tensors[tensor] = made[own]
            del made  # with what nobody asked for
            for tensor in drops:
                del tensors[tensor]
        return {name: tensors[self._outputs[name]] for name in wanted}

    def _moves_for(self, wanted: tuple[str, ...], *, probe: bool) -> list[Move]:
        moves = self._moves.get((probe, wanted))
        if moves is None:
            runs = self._probes if probe else self._runs
            needed = {self._outputs[name] for name in wanted}
            moves = [
                self._move(turn, runs[turn.node])
                for turn in schedule(self._nodes, self._order, needed)
            ]
            if len(self._moves) >= _MAX_SCHEDULES:
                self._moves = {}
            self._moves[probe, wanted] = moves
        return moves

    def _move(self, turn: Turn, run: Run) -> Move:
        asked = [own for own, _ in turn.writes]
        whole = set(asked) == self._asked[turn.node]
        return run, self._nodes[turn.node], turn.writes, None if whole else asked, turn.drops


def _outputs_of(work: Operation | Member) -> set[str]:
    return {spec.name for spec in work.interface.outputs} if isinstance(work, Member) else set()


def _once(names: Sequence[str], kind: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InvalidModelError(f"the {kind} {name!r} is declared twice")


def _find(
    specs: dict[str, TensorSpec],
    nodes: Sequence[Node],
    works: Sequence[Operation | Member],
    inputs: Collection[str],
) -> None:
    """Add what models say of inputs that were declared by name alone."""
    for node, work in zip(nodes, works, strict=True):
        if isinstance(work, Member):
            known = {spec.name: spec for spec in work.interface.inputs}
            for own, tensor in node.reads:
                if tensor in inputs and tensor not in specs:
                    specs[tensor] = known[own]
    for tensor in inputs:
        if tensor not in specs:
            raise InvalidModelError(
                f"no model reads the input {tensor!r}, so its datatype and shape aren't known",
                cure="declare it with a TensorSpec",
            )


def _check(node: Node, work: Operation | Member, specs: dict[str, TensorSpec]) -> None:
    """Hold a step against the tensors that it reads, and add those that it gives."""
    if isinstance(work, Member):
        _check_model(node, work.interface, specs)
        return
    ((_, tensor),) = node.reads
    try:
        made = results_of(work, specs[tensor])
    except InvalidModelError as error:
        error.prefixed(f"{node.label} reads {tensor!r}, {told(specs[tensor])}")
        raise
    for (_, into), spec in zip(node.writes, made, strict=True):
        specs[into] = spec


def _check_names(node: Node, interface: Interface) -> None:
    """Hold the names that a step uses for a model's inputs and outputs against the model's own."""
    reads, takes = dict(node.reads), [spec.name for spec in interface.inputs]
    for name in takes:
        if name not in reads:
            raise InvalidModelError(
                f"{node.label} gets nothing for its input {name!r}", cure="name a tensor for it"
            )
    gives = [spec.name for spec in interface.outputs]
    for kind, used, known in (("input", reads, takes), ("output", dict(node.writes), gives)):
        for name in used:
            if name not in known:
                names = ", ".join(map(repr, known))
                raise InvalidModelError(
                    f"{node.label} has no {kind} {name!r}", cure=f"it has {names}"
                )


def _check_model(node: Node, interface: Interface, specs: dict[str, TensorSpec]) -> None:
    reads = dict(node.reads)
    for taken in interface.inputs:
        tensor = reads[taken.name]
        if not fits(specs[tensor], taken):
            raise InvalidModelError(
                f"{node.label} takes {told(taken)} as {taken.name!r}, and {tensor!r} is "
                f"{told(specs[tensor])}",
                cure="put a step between them that makes one of the other",
            )
    given = {spec.name: spec for spec in interface.outputs}
    for own, tensor in node.writes:
        specs[tensor] = given[own]


def _named(spec: TensorSpec, name: str) -> TensorSpec:
    return msgspec.structs.replace(spec, name=name)


def _promised(name: str, made: TensorSpec, due: TensorSpec | None) -> TensorSpec:
    if due is None:
        return _named(made, name)
    if not fits(made, due):
        raise InvalidModelError(
            f"output {name!r} is declared as {told(due)}, the steps give {told(made)}",
            cure="correct the declaration, or add a step",
        )
    return _named(due, name)


def _run_of(work: Operation | Member) -> Run:
    if isinstance(work, Member):
        return work.run
    kernel, names = kernel_of(work), (RESULT, INDICES)

    def run(inputs: Arrays, _: Sequence[str] | None) -> Arrays:
        try:
            return dict(zip(names, kernel(inputs[INPUT]), strict=False))
        except EdgeFleetError:
            raise
        except (ValueError, IndexError, TypeError) as error:  # numpy's, of a shape
            raise InvalidInputError(str(error)) from error

    return run
