"""Calls that take turns: one at a time on a thread of their own, with a bound on what waits."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from edgefleet.errors import ThrottledError

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


class Turns:
    """Runs calls in their order. Used on one event loop.

    Args:
        name: of the thread.
        max_calls: how many may run or wait.
        max_bytes: how many bytes they may hold together.
    """

    def __init__(self, name: str, *, max_calls: int, max_bytes: int) -> None:
        self._max_calls = max_calls
        self._max_bytes = max_bytes
        self._calls = 0
        self._bytes = 0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def run(self, call: Callable[[], _T], size: int = 0) -> _T:
        """The call's result.

        Args:
            call: runs on the thread.
            size: the bytes that it holds meanwhile.

        Raises:
            ThrottledError: too much waits already.
        """
        if self._calls >= self._max_calls or self._bytes + size > self._max_bytes:
            raise ThrottledError(
                f"{self._calls} calls of {self._bytes} bytes are waiting", cure="try again later"
            )
        self._calls += 1
        self._bytes += size
        future = asyncio.get_running_loop().run_in_executor(self._pool, call)
        future.add_done_callback(partial(self._done, size))
        # A caller that gives up doesn't take its call out of the queue, so it counts until then.
        return await asyncio.shield(future)

    def close(self) -> None:
        """Let nothing more begin; what waits is cancelled."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _done(self, size: int, future: asyncio.Future[Any]) -> None:
        self._calls -= 1
        self._bytes -= size
        if not future.cancelled():
            future.exception()  # seen, also when the caller is gone
