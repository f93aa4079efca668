"""Messages of components on their way to IoT Core, with and without a network.

Rules kept here, each in ``mock_rules.md``: the classic nucleus keeps messages in memory up to a
size, in order, and sends them when the network is back; the light one keeps none.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from edgefleet.errors import LimitExceededError, UnavailableError
from edgefleet_aws.cloud.recipes import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BYTES = int(2.5 * 1024 * 1024)  # of payloads: Spool.java of the nucleus at a28341c4


class Outbox:
    """Of one nucleus; lives on one event loop.

    Args:
        kind: the nucleus's.
        publish: publishes now; `UnavailableError` without a network.
    """

    def __init__(self, kind: Kind, publish: Callable[[str, bytes], None]) -> None:
        self._kind = kind
        self._publish = publish
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._sending = asyncio.Lock()

    def __len__(self) -> int:
        """Messages that wait."""
        return len(self._waiting)

    async def put(self, topic: str, payload: bytes) -> None:
        """Publish, or keep for later where this nucleus does.

        Raises:
            UnavailableError: there is no network, and this nucleus keeps nothing.
            LimitExceededError: more can't be kept.
            EdgeFleetError: it can't be published.
        """
        async with self._sending:
            if not self._waiting:
                try:
                    await asyncio.to_thread(self._publish, topic, payload)
                except UnavailableError:
                    if self._kind is Kind.LITE:
                        raise
                else:
                    return
            kept = sum(len(data) for _, data in self._waiting)
            if kept + len(payload) > MAX_BYTES:
                raise LimitExceededError("the queue of messages is full")
            self._waiting.append((topic, payload))

    async def flush(self) -> None:
        """Send what was kept, the oldest first, as far as that goes."""
        async with self._sending:
            while self._waiting:
                try:
                    await asyncio.to_thread(self._publish, *self._waiting[0])
                except UnavailableError:
                    return
                self._waiting.popleft()

    def clear(self) -> None:
        """Forget what was kept: it is in memory."""
        self._waiting.clear()
