"""The tap: copies of requests and readings for those who watch, without making serving wait.

Rules kept here:

- Nothing is taken that the running release's policy wants nobody to look at: with drift alone every
  n-th request, and of a large input an evenly spread part.
- What is taken is copied, but for an input that fills its request's body: that is held.
- What waits is bounded in bytes and in items. What doesn't fit isn't looked at, and is counted.
- Alarms are judged on the thread that ran the request (`edgefleet_runtime.watch.first.First`), and
  where that is an event loop's, behind the answer. The watch's thread is woken only where that
  takes too long; otherwise it comes by itself now and then: each switch of threads costs the server
  some of its next answer.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
import time
from functools import partial
from math import gcd
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgefleet.protocol.policy import TelemetryPolicy
from edgefleet_runtime.serve.capture import bytes_of
from edgefleet_runtime.watch.first import First
from edgefleet_runtime.watch.seen import Followed, Heard, Taken

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from edgefleet.protocol.event import Reading
    from edgefleet.protocol.release import Release
    from edgefleet_runtime.serve.table import ModelTable, ServedModel
    from edgefleet_runtime.watch.first import Item
    from edgefleet_runtime.watch.seen import Arrays

MAX_BYTES = 16 << 20  # of what waits, overhead included
MAX_ITEMS = 8192
ITEM_BYTES = 1024  # what an item takes beside its arrays, by measurement rounded up
MAX_FEATURES = 64
"""An input of up to this many values a row is looked at by feature, a larger one as a whole."""
MAX_ROW_VALUES = 4096  # of an input looked at by feature, in one request
MAX_VALUES = 1024  # of an input looked at as a whole
NUMBERS = "biuf"  # numpy's kinds of booleans, integers and floats


class Want(NamedTuple):
    """What a policy wants of a model's requests.

    Attributes:
        every: all of them are looked at, or else only drift's share.
        share: of requests that drift looks at; 0 for none.
        whole: inputs that are wanted whole, by their names.
        compared: what a shadow has answered, too.
    """

    every: bool
    share: float
    whole: frozenset[str]
    compared: bool

    @property
    def any(self) -> bool:
        """Whether anything is wanted."""
        return self.every or self.share > 0


def want_of(policy: TelemetryPolicy, model: str, inputs: tuple[str, ...]) -> Want:
    """What the policy wants of a model with these inputs."""
    alarms = [rule for rule in policy.alarms if rule.model == model]
    windows = [rule for rule in policy.windows if rule.model == model]
    captures = [rule for rule in policy.captures if rule.model in {None, model}]
    stored = any(rule.inputs for rule in captures)
    asked = [when for rule in alarms for when in (rule.when, rule.clear)]
    asked += [rule.when for rule in captures]
    return Want(
        every=bool(alarms or windows or captures),
        share=policy.drift.fraction if policy.drift else 0.0,
        whole=frozenset(name for name in inputs if stored and policy.may_keep(model, name)),
        compared=any(map(asks_a_shadow, asked)),
    )


def asks_a_shadow(condition: str) -> bool:
    """Whether a condition names what a shadow model says."""
    return re.search(r"\bdisagrees\b", condition) is not None


def looked_at(array: NDArray[Any]) -> NDArray[Any]:
    """What drift looks at of an input, as a view where that can be.

    Of inputs with few values a row it is evenly spread rows, whole: shape ``(rows, values)`` with
    at most `MAX_ROW_VALUES`. Of larger ones it is evenly spread values, of every channel: shape
    ``(1, values)`` with at most `MAX_VALUES`.
    """
    rows = array.reshape(len(array) if array.ndim else 1, -1)
    if rows.shape[1] <= MAX_FEATURES:
        most = MAX_ROW_VALUES // max(1, rows.shape[1])
        return rows[:: -(-len(rows) // most) or 1][:most]
    flat = rows.reshape(1, -1)
    step = -(-flat.size // MAX_VALUES)
    # A step that shares a factor with an axis would see only some of its channels or columns.
    while step > 1 and any(gcd(step, length) > 1 for length in array.shape):
        step += 1
    return flat[:, ::step]


def body_of(array: NDArray[Any]) -> bytes | None:
    """What holds an array that can be kept as it is; None where that has to be copied.

    It can where nobody is able to write to it and it keeps little else alive, as the one tensor of
    a request's body. Copying a picture takes longer than all else that is done here.
    """
    owner: object = array
    while isinstance(owner, np.ndarray | memoryview):
        owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
    if isinstance(owner, bytes) and len(owner) - array.nbytes <= ITEM_BYTES:
        return owner
    return None


class _Watched:
    """A served model that is watched.

    Attributes:
        numbers: of its requests, from 1.
        size: bytes of the last that was taken.
    """

    def __init__(self, served: ServedModel, want: Want) -> None:
        self.served = served
        self.want = want
        self.numbers = itertools.count(1)
        self.size = 0
        self.watch: Callable[[Arrays, Arrays | Exception, float], None] = lambda *_: None


class Tap:
    """Watches the models of a table; any thread may call it.

    Args:
        table: the models that answer requests.
        first: what looks at once.
        max_bytes: of what waits.
        max_items: likewise.
        clock: monotonic seconds.
        now: seconds since 1970.
    """

    def __init__(
        self,
        table: ModelTable,
        first: First | None = None,
        *,
        max_bytes: int = MAX_BYTES,
        max_items: int = MAX_ITEMS,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.first = first or First()
        """What looks at once at everything that is taken, and where that waits."""
        self._table = table
        self._max_bytes = max_bytes
        self._max_items = max_items
        self._clock = clock
        self._now = now
        self._policy = TelemetryPolicy()
        self._watched: dict[str, _Watched] = {}
        self._bytes = 0
        self._lost = 0
        self._closed = False
        self._lock = threading.Lock()
        self._attaching = threading.Lock()
        self._urgent = threading.Event()

    def follow(self, release: Release) -> None:
        """Take what this release's policy wants from now on, and hand the release on."""
        self._policy = release.telemetry
        self.first.come(Followed(release), 0)
        self.first.judge()
        self.attend()
        self._urgent.set()

    def attend(self) -> None:
        """Go on with the models that the table has by now."""
        with self._attaching:
            models = {} if self._closed else {served.name: served for served in self._table}
            for name, watched in tuple(self._watched.items()):
                served = models.get(name)
                if served is watched.served and self._want(served) == watched.want:
                    del models[name]
                    continue
                watched.served.unwatch(watched.watch)
                del self._watched[name]
            for name, served in models.items():
                want = self._want(served)
                if want.any:
                    self._watched[name] = watched = _Watched(served, want)
                    watched.watch = partial(self._take, watched)
                    served.watch(watched.watch)

    def close(self) -> None:
        """Take nothing more; what waits stays."""
        with self._attaching:
            self._closed = True
        self.attend()

    def hear(self, reading: Reading, time: float | None = None) -> bool:
        """Take a reading, if there is room; returns whether there was.

        Args:
            reading: as it was sent.
            time: when it was made, in seconds since 1970; None for now.
        """
        if not self._reserve(ITEM_BYTES):
            return False
        heard = Heard(reading, self._now() if time is None else time, self._clock())
        self.first.come(heard, ITEM_BYTES)
        self._look()
        return True

    def compared(
        self,
        served: ServedModel,
        inputs: Arrays,
        outputs: Arrays,
        disagrees: bool,  # noqa: FBT001 - a listener's
    ) -> None:
        """Take a request that a shadow has answered, too; the arrays are the caller's to give."""
        watched = self._watched.get(served.name)
        if watched is None or watched.served is not served or not watched.want.compared:
            return
        parts = {name: array for name, array in inputs.items() if name in watched.want.whole}
        size = bytes_of(parts) + bytes_of(outputs) + ITEM_BYTES
        if self._reserve(size):
            now, at = self._now(), self._clock()
            taken = Taken(served, parts, outputs, 0.0, now, at, sampled=False, disagrees=disagrees)
            self.first.come(taken, size)
            self._look()

    def take(self, most: int) -> tuple[list[Item], int]:
        """Up to so many that wait, in order, and how many found no room since the last call.

        What has come is judged before.
        """
        self.first.judge()
        taken: list[Item] = []
        with self._lock:
            while len(taken) < most and (found := self.first.take()) is not None:
                item, size = found
                self._bytes -= size
                taken.append(item.seen() if isinstance(item, Taken) else item)
            lost, self._lost = self._lost, 0
        return taken, lost

    def wait(self, timeout_s: float) -> None:
        """Wait until something is urgent, `wake` was called, or so many seconds have passed."""
        self._urgent.wait(timeout_s)
        self._urgent.clear()

    @property
    def hurried(self) -> bool:
        """Whether the next `wait` ends at once."""
        return self._urgent.is_set()

    def wake(self) -> None:
        """End the `wait` in progress, or else the next one."""
        if not self._urgent.is_set():
            self._urgent.set()

    def _want(self, served: ServedModel) -> Want:
        inputs = tuple(spec.name for spec in served.model.interface.inputs)
        return want_of(self._policy, served.name, inputs)

    def _take(
        self, watched: _Watched, inputs: Arrays, outcome: Arrays | Exception, run_us: float
    ) -> None:
        """Take one request; on whichever thread ran it: on an event loop's, behind the answer.

        Short and flat on purpose: what it takes when the processor's caches are cold counts.
        """
        if isinstance(outcome, Exception):
            return
        want = watched.want
        number = next(watched.numbers)
        sampled = int(number * want.share) != int((number - 1) * want.share)
        if not sampled and not want.every:
            return
        if self._bytes + watched.size > self._max_bytes:  # or copies would be made for nothing
            self._reserve(watched.size)
            return
        size = ITEM_BYTES
        # Borrowed arrays may lie in a buffer that is written again, or in memory that a client
        # shares.
        copies: dict[str, NDArray[Any]] = {}
        for name, array in inputs.items():
            if name in want.whole:
                body = body_of(array)
                copies[name] = copy = array.copy() if body is None else array
                size += 0 if body is None else len(body) - array.nbytes
            elif sampled and array.dtype.kind in NUMBERS and array.size:
                copies[name] = copy = looked_at(array).copy()
            else:
                continue
            size += copy.nbytes if copy.dtype.kind != "O" else bytes_of({name: copy})
        outputs: dict[str, NDArray[Any]] = {}
        for name, array in outcome.items():
            outputs[name] = copy = array.copy()
            size += copy.nbytes if copy.dtype.kind != "O" else bytes_of({name: copy})
        watched.size = size
        if self._reserve(size):
            now, at = self._now(), self._clock()
            taken = Taken(watched.served, copies, outputs, run_us, now, at, sampled, None)
            self.first.come(taken, size)
            self._look()

    def _look(self) -> None:
        """Let what has come be judged on this thread: once the answer is out, on an event loop."""
        if self.first.idle:
            if self._crowded:
                self.wake()
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._judge()
        else:
            loop.call_soon(self._judge)

    def _judge(self) -> None:
        if not self.first.judge_few() or self._crowded:
            self.wake()

    def _reserve(self, size: int) -> bool:
        with self._lock:
            full = self.first.waiting >= self._max_items or self._bytes + size > self._max_bytes
            if full or self._closed:
                self._lost += not self._closed
                return False
            self._bytes += size
            return True

    @property
    def _crowded(self) -> bool:
        return self.first.waiting * 2 > self._max_items or self._bytes * 2 > self._max_bytes
