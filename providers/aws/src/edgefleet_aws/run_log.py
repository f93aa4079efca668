"""A run's output as bytes by offset, over CloudWatch Logs, which knows lines and tokens only.

A training job's machines each write a stream; the first machine's is the run's output. A line is an
event; CloudWatch keeps no empty ones. Pages start at tokens: where each page seen so far starts, in
bytes, is remembered, so that following a log asks only for what is new.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from typing import TYPE_CHECKING

from edgefleet_aws.errors import code_of

if TYPE_CHECKING:
    from edgefleet_aws.clients import Clients

GROUP = (
    "/aws/sagemaker/TrainingJobs"  # where SageMaker puts them, developer guide "CloudWatch logs"
)
_MISSING = "ResourceNotFoundException"


class RunLog:
    """The output of one run.

    Args:
        clients: to reach CloudWatch with.
        run_id: name of the training job.
    """

    def __init__(self, clients: Clients, run_id: str) -> None:
        self._clients, self._run = clients, run_id
        self._lock = threading.Lock()
        self._stream: str | None = None
        self._starts = [0]  # byte that each known page starts at
        self._tokens: list[str | None] = [None]  # and the token that gives it

    def read(self, offset: int) -> bytes:
        """What was printed from an offset in bytes on, to the end of a page; empty for nothing."""
        with self._lock:
            stream = self._stream or self._find()
            if stream is None:
                return b""
            number = bisect_right(self._starts, offset) - 1
            while True:
                start = self._starts[number]
                data, following = self._page(stream, self._tokens[number])
                if data and following != self._tokens[number] and number + 1 == len(self._starts):
                    self._starts.append(start + len(data))
                    self._tokens.append(following)
                if data[offset - start :] or number + 1 >= len(self._starts):
                    return data[offset - start :]
                number += 1

    def _find(self) -> str | None:
        try:
            reply = self._clients.logs.describe_log_streams(
                logGroupName=GROUP, logStreamNamePrefix=f"{self._run}/"
            )
        except Exception as error:
            if code_of(error) == _MISSING:
                return None
            raise
        names = sorted(str(stream["logStreamName"]) for stream in reply["logStreams"])
        self._stream = names[0] if names else None
        return self._stream

    def _page(self, stream: str, token: str | None) -> tuple[bytes, str]:
        more = {} if token is None else {"nextToken": token}
        reply = self._clients.logs.get_log_events(
            logGroupName=GROUP, logStreamName=stream, startFromHead=True, **more
        )
        lines = [str(event["message"]).removesuffix("\n") for event in reply["events"]]
        data = "".join(f"{line}\n" for line in lines).encode()
        return data, str(reply["nextForwardToken"])
