"""The last requests of each model, for those who ask afterwards what came before."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from edgefleet_runtime.serve.capture import bytes_of
from edgefleet_runtime.watch.tap import ITEM_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefleet_runtime.watch.seen import Seen

MAX_BYTES = 4 << 20


class Ring:
    """Requests in order, bounded in number by model and in bytes together; for one thread.

    Args:
        max_bytes: of all of them; the oldest go first, and one that is larger alone isn't kept.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.used_bytes = 0
        self._max_bytes = max_bytes
        self._depths: Mapping[str | None, int] = {}
        self._held: deque[tuple[Seen, int]] = deque()

    def keep(self, depths: Mapping[str | None, int]) -> None:
        """Hold so many of each model from now on; those of None are of every model."""
        self._depths = depths
        held, self._held, self.used_bytes = self._held, deque(), 0
        for seen, _ in held:
            self.add(seen)

    def add(self, seen: Seen) -> None:
        """Hold a request, if those of its model are held."""
        depth = self._depth(seen.model)
        if not depth:
            return
        size = bytes_of(seen.inputs) + bytes_of(seen.outputs) + ITEM_BYTES
        mine = [one for one in self._held if one[0].model == seen.model]
        if len(mine) >= depth:
            self._held.remove(mine[0])
            self.used_bytes -= mine[0][1]
        while self._held and self.used_bytes + size > self._max_bytes:
            self.used_bytes -= self._held.popleft()[1]
        if self.used_bytes + size <= self._max_bytes:
            self._held.append((seen, size))
            self.used_bytes += size

    def last(self, count: int, model: str | None) -> list[Seen]:
        """The last so many requests, of a model or of all, the oldest first."""
        found = [seen for seen, _ in self._held if model in {None, seen.model}]
        return found[-count:] if count else []

    def _depth(self, model: str) -> int:
        return max(self._depths.get(model, 0), self._depths.get(None, 0))
