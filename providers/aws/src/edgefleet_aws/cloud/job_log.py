"""A container's output in CloudWatch Logs, as SageMaker's agent puts it there: a line an event."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from edgefleet_aws.run_log import GROUP

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator

# Limits of PutLogEvents: https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html
MAX_EVENTS = 10_000
MAX_BYTES = 1_048_576
OVERHEAD = 26  # bytes that each event counts beside its text
MAX_EVENT = 256 << 10  # bytes of one event; SageMaker's agent cuts longer lines
_READ = 1 << 16


class JobLog:
    """One log stream.

    Args:
        client: of CloudWatch Logs.
        stream: its name; made when the first line comes.
        watch: called with each line.
    """

    def __init__(self, client: Any, stream: str, watch: Callable[[str], object]) -> None:  # noqa: ANN401 - boto3 has no types
        self._client, self._stream, self._watch = client, stream, watch
        self._made = False

    def pump(self, output: io.BufferedReader) -> None:
        """Put everything that is printed, until nobody is left who could print more."""
        rest = b""
        while data := output.read1(_READ):
            *lines, rest = (rest + data).split(b"\n")
            while len(rest) > MAX_EVENT:
                lines.append(rest[:MAX_EVENT])
                rest = rest[MAX_EVENT:]
            self._put(lines)
        self._put([rest])
        output.close()

    def _put(self, lines: list[bytes]) -> None:
        texts = [line.decode("utf-8", "replace") for line in lines if line]
        for text in texts:
            self._watch(text)
        for batch in _batches(texts):
            if not self._made:
                self._make()
            at = int(time.time() * 1000)
            events = [{"timestamp": at, "message": text} for text in batch]
            self._client.put_log_events(
                logGroupName=GROUP, logStreamName=self._stream, logEvents=events
            )

    def _make(self) -> None:
        there = self._client.exceptions.ResourceAlreadyExistsException
        with contextlib.suppress(there):
            self._client.create_log_group(logGroupName=GROUP)
        with contextlib.suppress(there):  # by a try of the same job that began in the same second
            self._client.create_log_stream(logGroupName=GROUP, logStreamName=self._stream)
        self._made = True


def _batches(texts: list[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        cost = len(text.encode()) + OVERHEAD
        if batch and (len(batch) >= MAX_EVENTS or size + cost > MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += cost
    if batch:
        yield batch
