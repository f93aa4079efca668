"""The table of models that answer requests, swapped as a whole without losing one.

Rules kept here:

- A request holds a lease on the model it started with; a model closes when it is out of the table
  and its last lease ends. So no request is lost or mixed by a swap.
- A swap replaces the whole table in one assignment: a request sees the old release or the new one.
- Counters live with the served model and survive in the table's totals.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from edgefleet.errors import AlreadyExistsError, NotFoundError
from edgefleet_runtime.serve.meter import RequestMeter
from edgefleet_runtime.serve.outgoing import behind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from types import TracebackType

    from numpy.typing import NDArray

    from edgefleet_runtime.engines.base import LoadedModel

    Watcher = Callable[
        [Mapping[str, NDArray[Any]], Mapping[str, NDArray[Any]] | Exception, float], None
    ]
    """Called after each run with inputs, outputs or what was raised, and run time in microseconds;
    after one that answers several requests for each of them, with its rows and the run's time; of a
    request to the server behind its answer, where the event loop's thread ran it. It must be quick
    and raise nothing; arrays are only borrowed."""


class Observer(Protocol):
    """Called after each answer."""

    def __call__(
        self,
        served: ServedModel,
        outputs: Mapping[str, NDArray[Any]],
        run_us: float,
        request: str | None,
        trace: str | None = None,
        /,
    ) -> None:
        """Learn of model, outputs, run time in microseconds, request id and ``traceparent``."""


class Figures(NamedTuple):
    """A model's counters since it was loaded.

    Attributes:
        inferences: requests answered.
        executions: runs of the model for them.
        run_us: how long those runs took together, in microseconds.
        failures: runs that failed.
        failed_us: how long those took together.
        last_ms: when the last run ended, in milliseconds since 1970; 0 before the first.
    """

    inferences: int
    executions: int
    run_us: float
    failures: int
    failed_us: float
    last_ms: int


LATENCIES_KEPT = 256  # run times kept for the median
_MEDIAN_EVERY = 32  # runs; sorting costs as much as running a tiny model


class ServedModel:
    """A loaded model with its name, version and counters."""

    def __init__(
        self, model: LoadedModel, *, name: str, version: str, bundle: str, variant: str
    ) -> None:
        self.model = model
        self.name = name
        self.version = version
        self.bundle = bundle
        self.variant = variant
        self.requests = RequestMeter()
        self.inferences = 0
        self.executions = 0
        """Runs of the model; fewer than `inferences` where requests were run together."""
        self.failures = 0
        self.watchers: tuple[Watcher, ...] = ()
        self.recent_p50_us: float | None = None
        """`latency_p50_us` as it was a few runs ago, without the work of sorting."""
        self._run_us = 0.0
        self._failed_us = 0.0
        self._last_s = 0.0
        self._latencies: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._lock = threading.Lock()
        self._leases = 0
        self._retired = False

    @property
    def retired(self) -> bool:
        """Whether it closes, or will when the last lease ends; it never serves again."""
        return self._retired

    @property
    def latency_p50_us(self) -> float | None:
        """Median of the last run times in microseconds; None before the first."""
        with self._lock:
            return self._median()

    def figures(self) -> Figures:
        """The counters, all of the same moment."""
        with self._lock:
            return Figures(
                inferences=self.inferences,
                executions=self.executions,
                run_us=self._run_us,
                failures=self.failures,
                failed_us=self._failed_us,
                last_ms=round(self._last_s * 1000),
            )

    def infer(
        self,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Sequence[str] | None = None,
        *,
        requests: int = 1,
        near: Collection[str] | None = None,
        lasting: bool = False,
    ) -> tuple[dict[str, NDArray[Any]], float]:
        """Run the model and count the run; returns outputs and run time in microseconds.

        Args:
            inputs: as of `LoadedModel.infer`.
            outputs: likewise.
            requests: how many this run answers. When it fails, none of several is counted: each is
                then run by itself. Of several the caller tells the watchers (`tell`).
            near: where inputs or outputs are on a GPU, the outputs to leave there, as of
                `LoadedModel.infer_on_device`; watchers aren't told of such runs.
            lasting: whether nobody writes to the arrays any more. The watchers are then told
                behind the answer, where this thread gives it.
        """
        start = time.perf_counter()
        try:
            if near is None:
                results = self.model.infer(inputs, outputs)
            else:
                results = self.model.infer_on_device(inputs, outputs, near)
        except Exception as error:
            failed_us = (time.perf_counter() - start) * 1e6
            if requests == 1:
                with self._lock:
                    self.failures += 1
                    self._failed_us += failed_us
                if near is None:
                    self.tell(inputs, error, failed_us)
            raise
        elapsed = (time.perf_counter() - start) * 1e6
        with self._lock:
            self.inferences += requests
            self.executions += 1
            self._run_us += elapsed
            self._last_s = time.time()
            self._latencies.append(elapsed)
            if self.executions <= _MEDIAN_EVERY or self.executions % _MEDIAN_EVERY == 0:
                self.recent_p50_us = self._median()
        if requests == 1 and self.watchers and near is None:
            if lasting:
                behind(self.tell, inputs, results, elapsed)
            else:
                self.tell(inputs, results, elapsed)
        return results, elapsed

    def tell(
        self,
        inputs: Mapping[str, NDArray[Any]],
        outcome: Mapping[str, NDArray[Any]] | Exception,
        run_us: float,
    ) -> None:
        """Call the watchers for one request; `infer` does where a run answers one."""
        for watch in self.watchers:
            watch(inputs, outcome, run_us)

    def watch(self, watcher: Watcher) -> None:
        """Call a watcher for each request from now on."""
        with self._lock:
            self.watchers = (*self.watchers, watcher)

    def unwatch(self, watcher: Watcher) -> None:
        """Call it no more; runs that have begun may."""
        with self._lock:
            self.watchers = tuple(known for known in self.watchers if known != watcher)

    def lease(self) -> Lease:
        """Keep the model open while the block runs.

        Raises:
            NotFoundError: on entering the block, when the model is closed.
        """
        return Lease(self)

    def acquire(self) -> None:
        """Take a lease; each needs its `release`.

        Raises:
            NotFoundError: the model is closed.
        """
        with self._lock:
            if self._retired and not self._leases:
                msg = f"model {self.name!r} is closed"
                raise NotFoundError(msg)
            self._leases += 1

    def release(self) -> None:
        """End a lease; the last one of a retired model closes it."""
        with self._lock:
            self._leases -= 1
            close = self._retired and not self._leases
        if close:
            self.model.close()

    def retire(self) -> None:
        """Close the model as soon as nobody holds a lease."""
        with self._lock:
            if self._retired:
                return
            self._retired = True
            close = not self._leases
        if close:
            self.model.close()

    def _median(self) -> float | None:
        ordered = sorted(self._latencies)
        return ordered[len(ordered) // 2] if ordered else None


class Lease:
    """Keeps a model open inside a ``with`` block, which gets the model."""

    __slots__ = ("_model",)

    def __init__(self, model: ServedModel) -> None:
        self._model = model

    def __enter__(self) -> ServedModel:
        self._model.acquire()
        return self._model

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._model.release()


class ModelTable:
    """Name -> served model, for the requests of this process."""

    def __init__(self) -> None:
        self._models: dict[str, ServedModel] = {}
        self._changing = threading.Lock()
        self.observers: list[Observer] = []

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(tuple(self._models.values()))

    def get(self, name: str, version: str | None = None) -> ServedModel:
        """The model of that name.

        Raises:
            NotFoundError: no such name, or it is served in another version.
        """
        model = self._models.get(name)
        if model is None or (version and version != model.version):
            asked = name if not version else f"{name}:{version}"
            served = ", ".join(f"{m.name}:{m.version}" for m in self) or "none"
            msg = f"model {asked!r} is not served here"
            raise NotFoundError(msg, cure=f"served now: {served}")
        return model

    def lease(self, name: str, version: str | None = None) -> TableLease:
        """A model that stays open while the block runs, whatever swap happens meanwhile.

        Raises:
            NotFoundError: on entering the block, as `get` does.
        """
        return TableLease(self, name, version)

    def acquire(self, name: str, version: str | None = None) -> ServedModel:
        """The model of that name with a lease on it, which the caller ends with its `release`.

        Raises:
            NotFoundError: as `get` does.
        """
        model = self.get(name, version)
        while True:
            try:
                model.acquire()
            except NotFoundError:
                successor = self.get(name, version)
                if successor is model:  # retired while still in the table: nothing will follow it
                    raise
                model = successor
            else:
                return model

    def swap(self, models: Mapping[str, ServedModel]) -> tuple[ServedModel, ...]:
        """Serve exactly ``models`` from now on.

        Returns:
            The models that left, for the caller to retire.
        """
        with self._changing:
            old, self._models = self._models, dict(models)
        kept = set(map(id, models.values()))
        return tuple(model for model in old.values() if id(model) not in kept)

    def add(self, model: ServedModel) -> None:
        """Serve one model more, whoever changes the table at the same time.

        Raises:
            AlreadyExistsError: its name is taken.
        """
        with self._changing:
            if model.name in self._models:
                raise AlreadyExistsError(f"model {model.name!r} is loaded already")
            self._models = {**self._models, model.name: model}

    def remove(self, model: ServedModel) -> bool:
        """Serve this model no longer, for the caller to retire; False when it has left already."""
        with self._changing:
            if self._models.get(model.name) is not model:
                return False
            self._models = {name: m for name, m in self._models.items() if m is not model}
            return True


class TableLease:
    """Keeps whichever model the table has on entering the ``with`` block open inside it."""

    __slots__ = ("_asked", "_model", "_table")

    def __init__(self, table: ModelTable, name: str, version: str | None) -> None:
        self._table = table
        self._asked = (name, version)

    def __enter__(self) -> ServedModel:
        self._model = self._table.acquire(*self._asked)
        return self._model

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._model.release()
