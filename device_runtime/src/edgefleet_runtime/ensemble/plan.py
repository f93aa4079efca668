"""The order in which a graph's steps run, and when a tensor is needed no more; no IO, no arrays.

Rules kept here:

- A tensor is made once: by the caller or by one step.
- Everything that is read is made before; steps in a circle are refused.
- A step that nothing needs is refused where the graph is made, and left out where a request asks
  for fewer outputs.
- A tensor is dropped after the last step that reads it, so that memory is bounded by what is alive.

Steps run one after the other, also where they could run at once: an engine's run takes all cores of
a small device already, a hand-over to a thread costs as much as a tiny model, and other requests
fill whatever cores are left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from edgefleet.errors import InvalidModelError, LimitExceededError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

MAX_NODES = 128
MAX_TENSORS = 1024


class Node(NamedTuple):
    """One step of a graph.

    Attributes:
        label: how errors call it.
        reads: its own names of inputs, each with the tensor it reads.
        writes: its own names of outputs, each with the tensor it makes.
    """

    label: str
    reads: tuple[tuple[str, str], ...]
    writes: tuple[tuple[str, str], ...]


class Turn(NamedTuple):
    """A step's turn in a run.

    Attributes:
        node: index of the step among the graph's nodes.
        writes: those of `Node` that are needed.
        drops: tensors that nothing needs after it.
    """

    node: int
    writes: tuple[tuple[str, str], ...]
    drops: tuple[str, ...]


def ordered(
    nodes: Sequence[Node], inputs: Collection[str], outputs: Collection[str]
) -> tuple[int, ...]:
    """An order in which each step comes after those that it needs; else that of declaration.

    Args:
        nodes: the steps.
        inputs: tensors that the caller gives.
        outputs: tensors that the caller gets.

    Raises:
        InvalidModelError: a rule above is broken; the message names the step and the tensor.
        LimitExceededError: there are more than `MAX_NODES` steps or `MAX_TENSORS` tensors.
    """
    _within_limits(nodes, inputs)
    makers = _makers(nodes, inputs)
    _all_made(nodes, makers, inputs, outputs)
    _all_needed(nodes, makers, inputs, outputs)
    made, order, waiting = set(inputs), [], list(range(len(nodes)))
    while waiting:
        ready = [n for n in waiting if all(tensor in made for _, tensor in nodes[n].reads)]
        if not ready:
            circle = ", ".join(nodes[n].label for n in waiting)
            raise InvalidModelError(
                f"steps wait for each other in a circle: {circle}",
                cure="let one of them read another tensor",
            )
        first = ready[0]
        order.append(first)
        waiting.remove(first)
        made.update(tensor for _, tensor in nodes[first].writes)
    return tuple(order)


def schedule(
    nodes: Sequence[Node], order: Sequence[int], outputs: Collection[str]
) -> tuple[Turn, ...]:
    """The turns of a run that gives these outputs, without the steps that they don't need.

    Args:
        nodes: the steps.
        order: as `ordered` gives it.
        outputs: some of those that the graph gives; they are never dropped.
    """
    alive = set(outputs)
    turns: list[Turn] = []
    for index in reversed(order):
        node = nodes[index]
        needed = tuple((own, tensor) for own, tensor in node.writes if tensor in alive)
        if not needed:
            continue
        last = tuple(dict.fromkeys(t for _, t in node.reads if t not in alive))
        alive.update(last)
        turns.append(Turn(index, needed, last))
    return tuple(reversed(turns))


def _within_limits(nodes: Sequence[Node], inputs: Collection[str]) -> None:
    if len(nodes) > MAX_NODES:
        raise LimitExceededError(f"{len(nodes)} steps, {MAX_NODES} are allowed")
    count = len(inputs) + sum(len(node.reads) + len(node.writes) for node in nodes)
    if count > MAX_TENSORS:
        raise LimitExceededError(f"steps name {count} tensors, {MAX_TENSORS} are allowed")


def _makers(nodes: Sequence[Node], inputs: Collection[str]) -> dict[str, int]:
    """Which step makes each tensor."""
    makers: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for _, tensor in node.writes:
            other = "the caller" if tensor in inputs else None
            if tensor in makers:
                other = nodes[makers[tensor]].label
            if other is not None:
                raise InvalidModelError(
                    f"{node.label} makes the tensor {tensor!r}, which {other} gives already",
                    cure="give each result a name of its own",
                )
            makers[tensor] = index
    return makers


def _all_made(
    nodes: Sequence[Node],
    makers: dict[str, int],
    inputs: Collection[str],
    outputs: Collection[str],
) -> None:
    known = ", ".join(map(repr, (*inputs, *makers))) or "none"
    for node in nodes:
        for _, tensor in node.reads:
            if tensor not in makers and tensor not in inputs:
                raise InvalidModelError(
                    f"{node.label} reads the tensor {tensor!r}, which nothing gives",
                    cure=f"there are {known}",
                )
    for tensor in outputs:
        if tensor not in makers and tensor not in inputs:
            raise InvalidModelError(
                f"nothing gives the output {tensor!r}", cure=f"there are {known}"
            )


def _all_needed(
    nodes: Sequence[Node],
    makers: dict[str, int],
    inputs: Collection[str],
    outputs: Collection[str],
) -> None:
    needed = {tensor for node in nodes for _, tensor in node.reads} | set(outputs)
    for tensor in inputs:
        if tensor not in needed:
            raise InvalidModelError(
                f"no step reads the input {tensor!r}", cure="leave it out, or let a step read it"
            )
    used = {makers[tensor] for tensor in needed if tensor in makers}
    for index, node in enumerate(nodes):
        if index not in used:
            raise InvalidModelError(
                f"nothing needs what {node.label} gives",
                cure="leave it out, or name its result among the outputs",
            )
