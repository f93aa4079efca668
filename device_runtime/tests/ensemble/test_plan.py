"""The order of steps, what is refused, and when tensors are dropped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.errors import InvalidModelError, LimitExceededError
from edgefleet_runtime.ensemble.plan import MAX_NODES, MAX_TENSORS, Node, ordered, schedule


def node(label: str, reads: str, writes: str) -> Node:
    """A step whose tensors are letters."""
    return Node(label, tuple((f"in {t}", t) for t in reads), tuple((f"out {t}", t) for t in writes))


def test_steps_run_after_those_they_need_in_whatever_order_they_are_declared() -> None:
    nodes = [node("last", "c", "d"), node("first", "a", "b"), node("second", "b", "c")]
    assert ordered(nodes, "a", "d") == (1, 2, 0)


def test_independent_steps_keep_the_order_of_declaration() -> None:
    nodes = [node("one", "a", "b"), node("two", "a", "c"), node("both", "bc", "d")]
    assert ordered(nodes, "a", "d") == (0, 1, 2)


@pytest.mark.parametrize(
    "nodes,inputs,outputs,said",
    [
        ([node("one", "c", "b"), node("two", "b", "c")], "", "c", "circle: one, two"),
        ([node("one", "b", "b")], "", "b", "circle: one"),
        ([node("one", "a", "b"), node("two", "a", "b")], "a", "b", "two makes .* 'b', which one"),
        ([node("one", "a", "a")], "a", "a", "which the caller gives"),
        ([node("one", "z", "b")], "a", "b", "one reads the tensor 'z', which nothing gives"),
        ([node("one", "a", "b")], "a", "z", "nothing gives the output 'z'"),
        ([node("one", "a", "b")], "ax", "b", "no step reads the input 'x'"),
        ([node("one", "a", "b"), node("two", "a", "c")], "a", "b", "nothing needs what two gives"),
    ],
)
def test_what_makes_no_graph_is_refused_by_its_name(
    nodes: list[Node], inputs: str, outputs: str, said: str
) -> None:
    with pytest.raises(InvalidModelError, match=said):
        ordered(nodes, inputs, outputs)


def test_steps_and_tensors_are_bounded() -> None:
    chain = [Node(str(n), (("x", str(n)),), (("y", str(n + 1)),)) for n in range(MAX_NODES + 1)]
    with pytest.raises(LimitExceededError, match="steps"):
        ordered(chain, "0", (str(MAX_NODES + 1),))
    wide = Node("wide", (("x", "a"),), tuple((str(n), str(n)) for n in range(MAX_TENSORS)))
    with pytest.raises(LimitExceededError, match="tensors"):
        ordered([wide], "a", "0")


def test_a_tensor_is_dropped_after_the_last_step_that_reads_it() -> None:
    nodes = [node("one", "a", "b"), node("two", "b", "c"), node("three", "bc", "d")]
    turns = schedule(nodes, ordered(nodes, "a", "d"), {"d"})
    assert [set(turn.drops) for turn in turns] == [{"a"}, set(), {"b", "c"}]


def test_results_that_nobody_needs_are_not_asked_for() -> None:
    nodes = [node("one", "a", "bz"), node("two", "b", "c")]
    first, _ = schedule(nodes, ordered(nodes, "a", "c"), {"c"})
    assert [tensor for _, tensor in first.writes] == ["b"]


def test_steps_for_outputs_that_nobody_wants_are_left_out() -> None:
    nodes = [node("one", "a", "b"), node("heavy", "b", "c"), node("light", "b", "d")]
    turns = schedule(nodes, ordered(nodes, "a", "cd"), {"d"})
    assert [nodes[turn.node].label for turn in turns] == ["one", "light"]


@given(data=st.data(), count=st.integers(1, 12))
def test_at_any_time_only_what_is_still_needed_is_kept(data: st.DataObject, count: int) -> None:
    tensors = ["in"]
    nodes = []
    for number in range(count):
        reads = data.draw(st.lists(st.sampled_from(tensors), min_size=1, max_size=3, unique=True))
        nodes.append(Node(str(number), tuple((t, t) for t in reads), ((".", f"t{number}"),)))
        tensors.append(f"t{number}")
    read = {tensor for node in nodes for _, tensor in node.reads}
    outputs = [t for t in tensors[1:] if t not in read] or [tensors[-1]]
    shuffled = data.draw(st.permutations(nodes))
    if "in" not in read:
        return
    turns = schedule(shuffled, ordered(shuffled, ["in"], outputs), set(outputs))
    kept = {"in"}
    for index, turn in enumerate(turns):
        assert {tensor for _, tensor in shuffled[turn.node].reads} <= kept
        kept |= {tensor for _, tensor in turn.writes}
        kept -= set(turn.drops)
        later = {t for after in turns[index + 1 :] for _, t in shuffled[after.node].reads}
        assert kept == (later & kept) | (set(outputs) & kept)
    assert kept == set(outputs)
    assert len(turns) == count
