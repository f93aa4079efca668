"""A run's output as bytes by offset, over CloudWatch Logs, which knows lines and tokens only.

A training job's machines each write a stream, and another one after an interruption; the first
machine's are the run's output. A line is an event; CloudWatch keeps no empty ones. Pages start at
tokens: where each page seen so far starts, in bytes, is remembered, so that following a log asks
only for what is new. A token is good for 24 hours (API reference of GetLogEvents); after that the
pages are walked anew from the first, which needs none.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

from edgefleet_aws.errors import code_of

if TYPE_CHECKING:
    from edgefleet_aws.clients import Clients

GROUP = (
    "/aws/sagemaker/TrainingJobs"  # where SageMaker puts them, developer guide "CloudWatch logs"
)
_MISSING = "ResourceNotFoundException"
_INVALID = "InvalidParameterException"  # "The specified nextToken is invalid."


class _Page(NamedTuple):
    """A page that is known: the byte of the run's output that it starts at, and what gives it."""

    start: int
    stream: str
    token: str | None


class RunLog:
    """The output of one run.

    Args:
        clients: to reach CloudWatch with.
        run_id: name of the training job.
        restarts: whether the run may be interrupted and start anew, which begins another stream.
    """

    def __init__(self, clients: Clients, run_id: str, *, restarts: bool = False) -> None:
        self._clients, self._run, self._restarts = clients, run_id, restarts
        self._lock = threading.Lock()
        self._pages: list[_Page] = []

    def read(self, offset: int) -> bytes:
        """What was printed from an offset in bytes on, to the end of a page; empty for nothing."""
        with self._lock:
            try:
                return self._read(offset)
            except Exception as error:
                ended = code_of(error) == _INVALID and len(self._pages) > 1
                if not ended and code_of(error) != _MISSING:
                    raise
                self._pages.clear()
                return self._read(offset) if ended else b""  # or the stream was deleted

    def _read(self, offset: int) -> bytes:
        if not self._pages:
            self._pages += [_Page(0, stream, None) for stream in self._streams()[:1]]
        number = bisect_right(self._pages, offset, key=lambda page: page.start) - 1
        if number < 0:
            return b""
        while True:
            page = self._pages[number]
            data, following = self._page(page.stream, page.token)
            if number + 1 == len(self._pages):
                self._pages += self._next(page, data, following)
            if data[offset - page.start :] or number + 1 >= len(self._pages):
                return data[offset - page.start :]
            number += 1

    def _next(self, page: _Page, data: bytes, following: str) -> list[_Page]:
        """The page after the last one known, if there is one by now."""
        end = page.start + len(data)
        if data and following != page.token:
            return [_Page(end, page.stream, following)]
        if not self._restarts:
            return []
        return [_Page(end, name, None) for name in self._streams() if name > page.stream][:1]

    def _streams(self) -> list[str]:
        """Streams of the first machine, the oldest first: their names end with a time."""
        try:
            reply = self._clients.logs.describe_log_streams(
                logGroupName=GROUP, logStreamNamePrefix=f"{self._run}/algo-1-"
            )
        except Exception as error:
            if code_of(error) == _MISSING:
                return []
            raise
        return sorted(str(stream["logStreamName"]) for stream in reply["logStreams"])

    def _page(self, stream: str, token: str | None) -> tuple[bytes, str]:
        more = {} if token is None else {"nextToken": token}
        reply = self._clients.logs.get_log_events(
            logGroupName=GROUP, logStreamName=stream, startFromHead=True, **more
        )
        lines = [str(event["message"]).removesuffix("\n") for event in reply["events"]]
        data = "".join(f"{line}\n" for line in lines).encode()
        return data, str(reply["nextForwardToken"])
