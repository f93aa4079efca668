"""What changed, in order: a bounded history, and those who watch it.

Rules kept here:

- Each change has a number, the resource version of the object after it. Who asks for what came
  after a number that the history no longer has is told so: ``410 Expired``.
- A watch sees an object come and go as its selectors see it: one whose labels no longer fit is
  deleted for that watch. See ``watchCache`` and ``cacheWatcher`` of the API server.
- Who doesn't take what it watches is cut off, and comes again.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgefleet_kubernetes.cloud.api_objects import clone, place
from edgefleet_kubernetes.cloud.api_status import expired

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgefleet_kubernetes.cloud.api_objects import Object

MOST_WAITING = 10_000
"""Changes that a watch may be behind before it is cut off."""


@dataclass(frozen=True)
class Change:
    """What became of an object.

    Attributes:
        type: ``ADDED``, ``MODIFIED``, ``DELETED`` or ``BOOKMARK``.
        object: after it; the last state, with a new resource version, of one that was deleted.
    """

    type: str
    object: Object


@dataclass(frozen=True)
class Happened:
    """A change as the history has it: with what was before.

    Attributes:
        version: number of the change.
        kind: of the object.
        before: None for one that was created.
        after: None for one that was deleted.
        last: a deleted object with the change's version.
    """

    version: int
    kind: str
    before: Object | None
    after: Object | None
    last: Object


class Watch:
    """Changes of the objects that fit, as they come; may be iterated until it is closed.

    Args:
        kind: of the objects.
        fits: says whether an object is watched.
        end: called when it is closed.
    """

    def __init__(
        self, kind: str, fits: Callable[[Object], bool], end: Callable[[Watch], None]
    ) -> None:
        self.kind, self._fits, self._end = kind, fits, end
        self._waiting: deque[Change] = deque()
        self._some = threading.Condition()
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether nothing will come any more; what has come can still be taken."""
        return self._closed

    def __iter__(self) -> Iterator[Change]:
        while (change := self.next()) is not None:
            yield change

    def next(self, timeout_s: float | None = None) -> Change | None:
        """The next change; None when there was none in time, or the watch is closed."""
        with self._some:
            self._some.wait_for(lambda: self._waiting or self._closed, timeout_s)
            if not self._waiting:
                return None
            change = self._waiting.popleft()
        return Change(change.type, clone(change.object))

    def take(self, happened: Happened) -> None:
        """Be told of a change of the kind."""
        before = happened.before is not None and self._fits(happened.before)
        after = happened.after is not None and self._fits(happened.after)
        if after:
            type_ = "MODIFIED" if before else "ADDED"
            self._put(Change(type_, happened.after or happened.last))
        elif before:
            self._put(Change("DELETED", happened.last))

    def close(self) -> None:
        """Have no more come; may be called twice."""
        self._end(self)
        with self._some:
            self._closed = True
            self._some.notify_all()

    def _put(self, change: Change) -> None:
        with self._some:
            self._waiting.append(change)
            self._closed = self._closed or len(self._waiting) > MOST_WAITING
            self._some.notify_all()


class History:
    """The newest changes, and who watches. Call it with its lock held.

    Args:
        length: changes that are kept.
        lock: guards it, and what its owner has.

    Attributes:
        version: number of the last change.
    """

    def __init__(self, length: int, lock: threading.RLock) -> None:
        self._lock = lock
        self.version = 1
        self._oldest = 1  # what came after this is known
        self._changes: deque[Happened] = deque()
        self._length = length
        self._watches: dict[str, list[Watch]] = {}

    def add(
        self, kind: str, before: Object | None, after: Object | None, last: Object | None = None
    ) -> None:
        """Note the change with the number `version`, and tell those who watch."""
        shown = after if after is not None else last
        happened = Happened(self.version, kind, before, after, shown or {})
        self._changes.append(happened)
        if len(self._changes) > self._length:
            self._oldest = self._changes.popleft().version
        for watch in tuple(self._watches.get(kind, ())):
            watch.take(happened)
            if watch.closed:
                self._end(watch)

    def forget(self) -> None:
        """Know nothing of the past, as etcd does after it compacted."""
        self._changes.clear()
        self._oldest = self.version

    def restart(self, version: int) -> None:
        """Go on from a version, with no past."""
        self.version = version
        self.forget()

    def watch(
        self, kind: str, fits: Callable[[Object], bool], since: int | None, now: list[Object]
    ) -> Watch:
        """Watch a kind.

        Args:
            kind: of objects.
            fits: says which.
            since: version after which changes are wanted; None for what there is, and then all.
            now: what there is.
        """
        if since is not None and since < self._oldest:
            raise expired(since, self._oldest)
        watch = Watch(kind, fits, self._end)
        if since is None:
            for one in sorted(now, key=place):
                watch.take(Happened(self.version, kind, None, one, one))
        else:
            for happened in self._changes:
                if happened.version > since and happened.kind == kind:
                    watch.take(happened)
        self._watches.setdefault(kind, []).append(watch)
        return watch

    def close(self) -> None:
        """End every watch."""
        for watches in tuple(self._watches.values()):
            for watch in tuple(watches):
                watch.close()

    def _end(self, watch: Watch) -> None:
        with self._lock:
            watches = self._watches.get(watch.kind, [])
            if watch in watches:
                watches.remove(watch)
