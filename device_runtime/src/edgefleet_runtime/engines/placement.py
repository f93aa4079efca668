"""Which provider runs which nodes of a graph, and what runs slower than asked: pure functions.

ONNX Runtime puts the nodes that compute shapes on the CPU on purpose, for their values are needed
there (``core/framework/fallback_cpu_capability.cc``: ``GetCpuPreferredNodes``). Those don't make a
model slow, and so don't count as running elsewhere; every other node does.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

SHAPE_OPERATORS = frozenset(
    {
        "Shape", "Size", "Constant", "ConstantOfShape", "Range", "Gather", "Slice", "Concat",
        "Cast", "Squeeze", "Unsqueeze", "Reshape", "Identity", "Equal", "Where", "Add", "Sub",
        "Mul", "Div", "ReduceProd", "MemcpyFromHost", "MemcpyToHost",
    }
)  # fmt: skip
"""Operators of which shape computations consist, by ONNX's names."""
MAX_SHAPE_NODES = 0.5
"""Share of all nodes up to which nodes of these operators are taken for shape computations."""
_NAMED = 4  # operators in a message


def placed(session: Any) -> tuple[tuple[str, str], ...]:  # noqa: ANN401 - onnxruntime has no types
    """Provider and operator of each node of a session; empty where onnxruntime doesn't tell.

    It does from 1.24 on, for sessions opened with ``session.record_ep_graph_assignment_info``.
    """
    ask = getattr(session, "get_provider_graph_assignment_info", None)
    parts = ask() if ask is not None else ()
    return tuple((part.ep_name, node.op_type) for part in parts for node in part.get_nodes())


def nodes_by_provider(nodes: Iterable[tuple[str, str]]) -> dict[str, int]:
    """How many nodes each provider runs."""
    return dict(Counter(provider for provider, _ in nodes))


def slower_than(wanted: str, nodes: Iterable[tuple[str, str]]) -> str | None:
    """What runs on something else than the provider wanted, in words; None when nothing counts.

    Args:
        wanted: the provider asked for first.
        nodes: provider and operator of each node.
    """
    known = tuple(nodes)
    away = [(provider, operator) for provider, operator in known if provider != wanted]
    compute = [pair for pair in away if pair[1] not in SHAPE_OPERATORS]
    if not compute and len(away) <= len(known) * MAX_SHAPE_NODES:
        return None
    said = []
    for provider, count in Counter(provider for provider, _ in compute or away).most_common():
        operators = Counter(o for p, o in (compute or away) if p == provider)
        names = ", ".join(f"{number} {name}" for name, number in operators.most_common(_NAMED))
        more = ", …" if len(operators) > _NAMED else ""
        said.append(f"{count} on {provider} ({names}{more})")
    return " and ".join(said)
