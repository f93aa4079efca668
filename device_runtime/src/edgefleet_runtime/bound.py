"""A model of a `Runtime` with tensors of the caller's own as its inputs and outputs.

    y = np.empty((1, 1000), np.float32)
    with runtime.bind("classifier", {"x": frame}, {"y": y}) as bound:
        while camera.read(into=frame):
            bound.run()                 # reads frame, overwrites y

Rules kept here:

- The model stays open until the block ends, whatever else happens to the runtime.
- Runs take turns, because they share the tensors. Threads that want to run at the same time bind
  once each, to tensors of their own.
- These runs aren't in the model's figures: counting one takes as long as a third of it.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from edgefleet_runtime.closing import Closing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Executor

    from edgefleet_runtime.engines.base import Bound
    from edgefleet_runtime.serve.table import ServedModel

    Tensors = Mapping[str, Any]
    """Arrays, and what the caller gave in their place."""

INLINE_RUN_US = 200.0  # of a run; handing one to another thread and back costs as much


class BoundModel(Closing):
    """Runs a model on fixed tensors; use as a context manager, or call `close`.

    Args:
        served: the model, on which the caller has taken a lease; it ends with `close`.
        bound: what the engine made of it.
        threads: gives the threads for `run_async`.
    """

    def __init__(self, served: ServedModel, bound: Bound, threads: Callable[[], Executor]) -> None:
        self._served: ServedModel | None = served
        self._bound = bound
        self._run = bound.run
        self._threads = threads
        self._run_us = float("inf")

    @property
    def inputs(self) -> Tensors:
        """What each run reads, by name; change the content between runs."""
        return self._bound.inputs

    @property
    def outputs(self) -> Tensors:
        """What each run overwrites, by name."""
        return self._bound.outputs

    def run(self) -> Tensors:
        """Run once; returns `outputs`, the same tensors each time.

        Raises:
            InferenceError: the model failed, or this is closed.
        """
        return self._run()

    async def run_async(self) -> Tensors:
        """Run once without holding up the event loop, unless that would take longer than the run.

        Raises:
            InferenceError: as of `run`.
        """
        if self._run_us < INLINE_RUN_US:
            return self._run()
        return await asyncio.get_running_loop().run_in_executor(self._threads(), self._timed)

    def close(self) -> None:
        """Let go of the tensors and the model; may be called twice."""
        served, self._served = self._served, None
        if served is not None:
            self._bound.close()
            served.release()

    def _timed(self) -> Tensors:
        start = time.perf_counter()
        outputs = self._run()
        self._run_us = (time.perf_counter() - start) * 1e6
        return outputs
