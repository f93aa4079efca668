"""The queue: who runs with whom, in what order, within which bounds, and who is refused."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from edgefleet_runtime.serve.queueing import DEFAULT_PRIORITY, Queue, Refused


@dataclass
class Ask:
    number: int
    key: str = "a"
    rows: int = 1
    bytes: int = 1
    priority: int = DEFAULT_PRIORITY
    deadline_us: float | None = None


asks = st.builds(
    Ask,
    number=st.just(0),
    key=st.sampled_from("ab"),
    rows=st.integers(1, 6),
    bytes=st.integers(0, 40),
    priority=st.sampled_from([1, 2, DEFAULT_PRIORITY]),
    deadline_us=st.none() | st.floats(0, 200),
)


@given(
    st.lists(asks | st.none(), max_size=40),
    st.integers(1, 8),
    st.integers(1, 60),
    st.integers(1, 12),
)
def test_every_request_comes_out_once_in_order_and_within_bounds(
    events: list[Ask | None], max_rows: int, max_bytes: int, max_waiting: int
) -> None:
    queue: Queue[Ask] = Queue(max_waiting, max_rows, max_bytes)
    waiting: dict[int, Ask] = {}
    now = 0.0
    for number, event in enumerate([*events, *[None] * (len(events) + 1)]):
        now += 5.0
        if event is not None:
            event.number = number
            refused = queue.offer(event, now, 10.0)
            assert refused is None or event.deadline_us is not None or len(waiting) == max_waiting
            if refused is None:
                waiting[number] = event
            assert len(queue) == len(waiting) <= max_waiting
            continue
        batch, late = queue.take(now, 10.0)
        for ask in (*batch, *late):
            assert waiting.pop(ask.number) is ask
        assert all(ask.deadline_us is not None and now + 10.0 > ask.deadline_us for ask in late)
        assert bool(batch) or not waiting
        if not batch:
            continue
        first = batch[0]
        assert all(ask.key == first.key for ask in batch)
        if len(batch) > 1:
            assert sum(ask.rows for ask in batch) <= max_rows
            assert sum(ask.bytes for ask in batch) <= max_bytes
        order = [(ask.priority, ask.number) for ask in batch]
        assert order == sorted(order)
        # Nobody of the same kind was overtaken, nobody at all had to be before the first.
        left = [(ask.priority, ask.number) for ask in waiting.values() if ask.key == first.key]
        assert not left or min(left) > order[-1]
        assert all((ask.priority, ask.number) > order[0] for ask in waiting.values())
    assert not waiting
    assert len(queue) == 0


def test_a_full_queue_refuses() -> None:
    queue: Queue[Ask] = Queue(1)
    assert queue.offer(Ask(1)) is None
    assert queue.offer(Ask(2)) is Refused.FULL


def test_a_deadline_counts_the_run_that_goes_on_and_those_that_come_before() -> None:
    def refused(deadline_us: float, max_rows: int) -> Refused | None:
        queue: Queue[Ask] = Queue(8, max_rows)
        for number in range(2):
            assert queue.offer(Ask(number)) is None
        ask = Ask(9, deadline_us=deadline_us)
        return queue.offer(ask, now_us=100.0, run_us=10.0, busy_us=5.0)

    assert refused(135.0, max_rows=1) is None
    assert refused(134.0, max_rows=1) is Refused.LATE
    assert refused(115.0, max_rows=4) is None


def test_who_became_late_while_waiting_is_told_so_and_holds_up_nobody() -> None:
    queue: Queue[Ask] = Queue(8, 8)
    for ask in (Ask(1), Ask(2, deadline_us=50.0), Ask(3)):
        assert queue.offer(ask) is None
    batch, late = queue.take(now_us=45.0, run_us=10.0)
    assert [ask.number for ask in batch] == [1, 3]
    assert [ask.number for ask in late] == [2]
