"""`session.run` in this process: what every ratio is over."""

from __future__ import annotations

import os
import statistics
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.serving.models import Subject

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def session_of(path: Path, threads: int = 0) -> Any:  # noqa: ANN401 - onnxruntime has no types
    """A session; 0 threads leaves that to onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def p50_us(call: Callable[[], object], runs: int) -> float:
    """Median time of a call in microseconds."""
    times = []
    for _ in range(runs):
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times) / 1e3


class RawMaximum:
    """The most runs a second that a model makes in one process, over the ways to set threads.

    One caller with all cores, and as many callers as cores with a thread each, on one session and
    on sessions of their own.
    """

    def __init__(self, subject: Subject) -> None:
        self._inputs = subject.inputs
        whole, shared = session_of(subject.path), session_of(subject.path, 1)
        own = [session_of(subject.path, 1) for _ in range(CORES)]
        self._ways = {
            "one caller": [whole],
            f"{CORES} callers, one session": [shared] * CORES,
            f"{CORES} callers, {CORES} sessions": own,
        }

    def per_s(self, seconds: float) -> tuple[float, str]:
        """Runs a second of the best way, measured for so long each, and that way."""
        return max((self._rate(sessions, seconds), way) for way, sessions in self._ways.items())

    def _rate(self, sessions: list[Any], seconds: float) -> float:
        begin = threading.Barrier(len(sessions) + 1)
        rates: list[float] = []

        def call(session: Any) -> None:  # noqa: ANN401 - as above
            session.run(None, self._inputs)
            begin.wait()
            start = time.perf_counter()
            count = 0
            while (now := time.perf_counter()) < start + seconds:
                session.run(None, self._inputs)
                count += 1
            rates.append(count / (now - start))

        with ExitStack() as stack:
            for session in sessions:
                thread = threading.Thread(target=call, args=(session,))
                thread.start()
                stack.callback(thread.join)
            begin.wait()
        return sum(rates)
