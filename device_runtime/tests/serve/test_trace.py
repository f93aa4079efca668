"""W3C Trace Context: what is taken, what is ignored, and where it goes."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from device_runtime.tests.serving import WAIT_S, FakeModel, served, serving, table_of
from edgefleet_runtime.serve.trace import trace_of

if TYPE_CHECKING:
    from device_runtime.tests.serving import Reply, Running

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GIVEN = f"00-{TRACE}-{SPAN}-01"


def infer(running: Running, trace: str, *, binary: bool = False) -> Reply:
    tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}
    content = {"inputs": [tensor], "parameters": {"binary_data_output": binary}}
    body = json.dumps(content)
    return running.ask("POST", "/v2/models/m/infer", body, {"Traceparent": trace})


@pytest.mark.parametrize(
    "given,taken",
    [
        (GIVEN, GIVEN),
        (f" {GIVEN}\t", GIVEN),
        (f"00-{TRACE}-{SPAN}-00", f"00-{TRACE}-{SPAN}-00"),
        (f"cc-{TRACE}-{SPAN}-01", GIVEN),
        (f"cc-{TRACE}-{SPAN}-01-what-will-be", GIVEN),
        (f"cc-{TRACE}-{SPAN}-01.what", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}-01-what", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE[:-1]}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}", None),
        (f"{GIVEN}, {GIVEN}", None),
        ("", None),
    ],
)
def test_what_is_valid_is_taken_and_the_rest_is_as_good_as_none(
    given: str, taken: str | None
) -> None:
    assert trace_of({b"traceparent": given.encode()}) == taken


@given(st.binary() | st.text("0123456789abcdef-", max_size=80).map(str.encode))
@example(GIVEN.encode())
def test_any_bytes_give_a_valid_trace_or_none(given: bytes) -> None:
    taken = trace_of({b"traceparent": given})
    assert taken is None or trace_of({b"traceparent": taken.encode()}) == taken


@pytest.mark.parametrize("binary", [False, True])
def test_an_answer_names_the_trace_of_its_request(binary: bool) -> None:  # noqa: FBT001
    with serving(table_of(served(FakeModel()))) as running:
        assert infer(running, GIVEN, binary=binary).headers["traceparent"] == GIVEN
        assert infer(running, "nonsense", binary=binary).headers["traceparent"] is None


def test_so_does_an_answer_that_says_what_went_wrong() -> None:
    with serving(table_of(served(FakeModel()))) as running:
        reply = running.ask("POST", "/v2/models/m/infer", b"{", {"traceparent": GIVEN})
    assert (reply.status, reply.headers["traceparent"]) == (400, GIVEN)


def test_observers_learn_the_trace() -> None:
    seen: list[str | None] = []
    told = threading.Semaphore(0)

    def watch(*about: Any) -> None:
        seen.append(about[-1])
        told.release()

    table = table_of(served(FakeModel()))
    table.observers.append(watch)
    with serving(table) as running:
        infer(running, GIVEN)
        running.infer(1.0)
        for _ in range(2):
            assert told.acquire(timeout=WAIT_S)
    assert seen == [GIVEN, None]
