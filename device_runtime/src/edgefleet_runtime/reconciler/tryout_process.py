"""The process that measures one variant: told what on standard input, ends with the runtime.

It says its figures on standard output, as JSON; all else that it or a library prints goes to
standard error. It takes what processor time others leave, rests between calls, and is what the
system ends first when memory runs out.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgefleet.errors import EdgeFleetError
from edgefleet.protocol.bundle import read_details
from edgefleet.protocol.orders import MAX_REASON, TrialFigures
from edgefleet.protocol.typed import decoder
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.discovery import engine_for
from edgefleet_runtime.engines.samples import sample_inputs
from edgefleet_runtime.parent import end_with_parent
from edgefleet_runtime.reconciler.duel import MIN_PAIRS, percentile
from edgefleet_runtime.reconciler.selftest import recorded_inputs, self_test
from edgefleet_runtime.reconciler.tryout import Request
from edgefleet_runtime.report.host import peak_rss_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from edgefleet_runtime.engines.base import Engine, LoadedModel

NICE = 10
WARM_UP_RUNS = 3


def main() -> int:
    """Measure what standard input asks for; returns the exit code."""
    with os.fdopen(os.dup(1), "wb", buffering=0) as own:
        os.dup2(2, 1)
        line = sys.stdin.buffer.readline()
        threading.Thread(target=end_with_parent, daemon=True).start()
        _yield_to_others()
        request = decoder(Request).decode(line)
        own.write(msgspec.json.encode(measured(request)))
    return 0


def measured(request: Request, *, engine: Engine | None = None) -> TrialFigures:
    """Load a variant, test it, and time it.

    Args:
        request: what to measure.
        engine: opens it; None for the one installed for its format.
    """
    figures = TrialFigures(variant=request.variant, format=request.format, outcome="failed")
    before = peak_rss_bytes()
    try:
        details = read_details(Path(request.details).read_bytes())
        options = EngineOptions(providers=request.providers, throughput="never")
        model = (engine or engine_for(request.format)).load(Path(request.entry), options)
        with contextlib.closing(model):
            figures = msgspec.structs.replace(
                figures, engine=model.engine, providers=model.providers
            )
            if details.self_test:
                outcome, wrong = self_test(model, details)
                figures = msgspec.structs.replace(figures, self_test=outcome)
                if wrong is not None:
                    return _failed(figures, wrong)
            inputs = recorded_inputs(details) or [sample_inputs(model.interface)]
            times_us = timed(
                model, inputs, calls=request.calls, seconds=request.seconds, share=request.share
            )
            after = peak_rss_bytes()
    except Exception as error:  # noqa: BLE001 - engines raise anything
        said = error.message if isinstance(error, EdgeFleetError) else repr(error)
        return _failed(figures, said)
    return msgspec.structs.replace(
        figures,
        outcome="measured",
        calls=len(times_us),
        p50_us=round(percentile(times_us, 0.5), 1),
        p95_us=round(percentile(times_us, 0.95), 1),
        p99_us=round(percentile(times_us, 0.99), 1),
        memory_bytes=None if before is None or after is None else max(0, after - before),
    )


def timed(
    model: LoadedModel,
    inputs: Sequence[Mapping[str, NDArray[Any]]],
    *,
    calls: int,
    seconds: float,
    share: float,
    clock: Callable[[], float] = time.perf_counter,
    pause: Callable[[float], object] = time.sleep,
) -> list[float]:
    """Times of single calls, in microseconds.

    Args:
        model: loaded.
        inputs: of the calls, one after the other, and again.
        calls: most to time.
        seconds: of running, after which `MIN_PAIRS` suffice.
        share: of the time that it may run; it rests the remainder.
        clock: seconds.
        pause: waits for so many seconds.

    Raises:
        EdgeFleetError: a call failed.
    """
    again = cycle(inputs)
    for _ in range(WARM_UP_RUNS):
        model.infer(next(again))
    times: list[float] = []
    while len(times) < calls and (len(times) < MIN_PAIRS or sum(times) < seconds * 1e6):
        given = next(again)
        start = clock()
        model.infer(given)
        took = clock() - start
        times.append(took * 1e6)
        pause(took * (1 / share - 1))
    return times


def _failed(figures: TrialFigures, reason: str) -> TrialFigures:
    return msgspec.structs.replace(figures, reason=" ".join(reason.split())[:MAX_REASON])


def _yield_to_others() -> None:
    with contextlib.suppress(OSError):
        os.nice(NICE)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


if __name__ == "__main__":
    sys.exit(main())
