"""Where models run, what happens when they fail or are too many, and who learns of it."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from device_runtime.tests.serving import (
    WAIT_S,
    FakeModel,
    infer_bytes,
    read_replies,
    served,
    serving,
    table_of,
)
from edgefleet.errors import InferenceError
from edgefleet_runtime.serve.messages import Limits
from edgefleet_runtime.serve.queueing import BatchLimits

if TYPE_CHECKING:
    from device_runtime.tests.serving import Reply
    from edgefleet_runtime.serve.table import ServedModel

ONE_BY_ONE = BatchLimits(max_rows=1)


def test_what_json_can_not_carry_is_said() -> None:
    with serving(table_of(served(FakeModel(float("inf"))))) as infinite:
        reply = infinite.infer(1)
    assert reply.status == 400
    assert "ask for binary tensor data" in reply.json["error"]


@pytest.mark.parametrize(
    "failure,said",
    [(InferenceError("the device is on fire"), "on fire"), (ZeroDivisionError("x"), "internal")],
)
def test_a_failing_model_is_a_server_error_and_counted(failure: Exception, said: str) -> None:
    def fail() -> None:
        raise failure

    model = served(FakeModel(during=fail))
    with serving(table_of(model)) as running:
        reply = running.infer(1)
        assert reply.status == 500
        assert said in reply.json["error"]
        assert running.ask("GET", "/v2/health/live").status == 200
    assert (model.failures, model.inferences) == (1, 0)


def test_short_runs_stay_on_the_event_loop_and_long_ones_leave_it() -> None:
    names: list[str] = []
    model = served(FakeModel(during=lambda: names.append(threading.current_thread().name)))
    with serving(table_of(model), batching=ONE_BY_ONE) as running:
        running.infer(1)  # nothing is known of the model yet
        model.recent_p50_us = 5.0  # whatever the machine made of that run
        running.infer(1)
        model.recent_p50_us = 5000.0
        running.infer(1)
        model.recent_p50_us = 5.0
        running.infer(*range(100_000))  # parsing so much isn't short
    assert [name.startswith("edgefleet-infer") for name in names] == [True, False, True, True]


def test_overload_is_refused_and_leaves_health_checks_alone() -> None:
    running_now = threading.Semaphore(0)
    go_on = threading.Event()

    def hold() -> None:
        running_now.release()
        assert go_on.wait(WAIT_S)

    limits = Limits(max_requests=1, retry_after_s=3)
    replies: list[Reply] = []
    table = table_of(served(FakeModel(1, hold)))
    with serving(table, limits=limits, threads=2, batching=ONE_BY_ONE) as running:
        clients = [
            threading.Thread(target=lambda: replies.append(running.infer(1))) for _ in range(2)
        ]
        for client in clients:
            client.start()
            assert running_now.acquire(timeout=WAIT_S)
        with running.connect() as waiting:
            waiting.sendall(infer_bytes(1))
            assert running.ask("GET", "/v2/health/live").status == 200  # by now it waits
            refused = running.infer(1)
        assert running.ask("GET", "/v2/health/live").status == 200
        go_on.set()
        for client in clients:
            client.join(WAIT_S)
        assert running.infer(1).status == 200
    assert (refused.status, refused.headers["Retry-After"]) == (503, "3")
    assert [reply.status for reply in replies] == [200, 200]


def test_a_thread_that_is_free_runs_the_next_request_while_the_loop_is_busy() -> None:
    begun = threading.Semaphore(0)
    go_on, loop_goes_on = threading.Event(), threading.Event()

    def hold() -> None:
        begun.release()
        assert go_on.wait(WAIT_S)

    table = table_of(served(FakeModel(1, hold)))
    with serving(table, threads=2, batching=ONE_BY_ONE) as running:
        clients = [threading.Thread(target=running.infer, args=(1,)) for _ in range(2)]
        for client in clients:
            client.start()
            assert begun.acquire(timeout=WAIT_S)
        with running.connect() as third:
            third.sendall(infer_bytes(1))
            assert running.ask("GET", "/v2/health/live").status == 200  # by now it has come
            running.loop.call_soon_threadsafe(loop_goes_on.wait, WAIT_S)
            go_on.set()
            assert begun.acquire(timeout=WAIT_S)
            loop_goes_on.set()
            assert read_replies(third)[0].status == 200
        for client in clients:
            client.join(WAIT_S)


def test_observers_learn_of_each_answer_and_can_not_spoil_it() -> None:
    seen: list[tuple[Any, ...]] = []
    done = threading.Semaphore(0)

    def watch(
        model: ServedModel,
        outputs: Any,
        run_us: float,
        request_id: str | None,
        trace: str | None = None,
    ) -> None:
        seen.append((model.name, model.version, outputs["y"].tolist(), run_us > 0, request_id))
        done.release()

    def spoil(*_: object) -> None:
        raise RuntimeError

    table = table_of(served(FakeModel(1)))
    table.observers += [spoil, watch]
    with serving(table) as running:
        for number in range(3):  # the first in the pool, the others on the event loop
            assert running.infer(number, id=str(number)).status == 200
            assert done.acquire(timeout=WAIT_S)
        running.infer(1, name="nope")
    assert seen == [("m", "1", [number + 1.0], True, str(number)) for number in range(3)]


def test_watchers_on_the_event_loop_keep_no_answer_waiting() -> None:
    model = served(FakeModel(1))
    answered = threading.Event()
    found: list[bool] = []
    told = threading.Semaphore(0)

    def watch(*_: object) -> None:
        found.append(answered.wait(WAIT_S))
        told.release()

    with serving(table_of(model)) as running:
        running.infer(1)  # nothing is known of the model yet
        model.watch(watch)
        for number in range(3):
            model.recent_p50_us = 5.0  # whatever the machine made of the runs before
            answered.clear()
            assert running.infer(number).status == 200
            answered.set()
            assert told.acquire(timeout=WAIT_S)
    assert found == [True] * 3


def test_a_watcher_that_fails_spoils_no_answer_and_the_log_repeats_no_input(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failed = threading.Semaphore(0)

    def fail(*_: object) -> None:
        failed.release()
        raise RuntimeError("no luck")

    model = served(FakeModel(1))
    model.watch(fail)
    with serving(table_of(model)) as running:
        for _ in range(3):  # the first in the pool, the others on the event loop
            assert running.infer(7625597).status == 200
            assert failed.acquire(timeout=WAIT_S)
            model.recent_p50_us = 5.0
    assert caplog.text.count("RuntimeError: no luck") == 3
    assert "7625597" not in caplog.text


def test_those_in_this_process_may_write_to_what_they_gave_and_got() -> None:
    seen: list[list[float]] = []
    model = served(FakeModel(1))

    def watch(inputs: Any, outcome: Any, run_us: float) -> None:
        del run_us
        seen.append([*inputs["x"], *outcome["y"]])

    model.watch(watch)

    async def ask() -> None:
        x = np.array([1.0], np.float32)
        outputs, _ = model.infer({"x": x})
        x[:] = outputs["y"][:] = 9

    asyncio.run(ask())
    assert seen == [[1.0, 2.0]]
