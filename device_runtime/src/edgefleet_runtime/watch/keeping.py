"""Samples on their way to the disk, which takes longer than the watch may wait.

Rules kept here:

- Inputs are stored only where the policy lets them be kept, and redacted as it says.
- What waits is bounded in bytes; what doesn't fit is refused.
"""

from __future__ import annotations

import logging
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from edgefleet.errors import EdgeFleetError
from edgefleet_runtime.serve.capture import Capture, bytes_of, npy
from edgefleet_runtime.serve.summary import summarize

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgefleet.protocol.bundle import TensorSpec
    from edgefleet.protocol.policy import TelemetryPolicy
    from edgefleet_runtime.redaction import Redactor
    from edgefleet_runtime.serve.capture import Recorder
    from edgefleet_runtime.watch.seen import Seen

    Specs = Callable[[str], Mapping[str, TensorSpec]]
    """Gives what the interface of a model that serves says of its inputs."""

_log = logging.getLogger(__name__)

MAX_BYTES = 8 << 20  # of arrays that wait


class Keeper:
    """Writes samples in a thread of its own.

    Args:
        recorder: keeps them.
        redactor: says what of them may be.
        specs: of inputs.
        max_bytes: of what waits.
    """

    def __init__(
        self,
        recorder: Recorder,
        redactor: Redactor,
        specs: Specs,
        *,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.recorder = recorder
        self._redactor = redactor
        self._specs = specs
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._bytes = 0
        self._lost = 0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="samples")

    def keep(self, seen: Seen, reason: str, policy: TelemetryPolicy, *, inputs: bool) -> None:
        """Keep a sample of a request soon, if there is room.

        Args:
            seen: the request.
            reason: why.
            policy: under which it was taken.
            inputs: with its inputs, as far as the policy allows.
        """
        tensors = seen.inputs if inputs else {}
        size = bytes_of(tensors) + bytes_of(seen.outputs)
        with self._lock:
            if self._bytes + size > self._max_bytes:
                self._lost += 1
                return
            self._bytes += size
        self._pool.submit(self._write, seen._replace(inputs=tensors), reason, policy, size)

    def take_lost(self) -> int:
        """How many samples found no room, here or on the disk, since the last call."""
        with self._lock:
            lost, self._lost = self._lost, 0
        return lost

    def close(self) -> None:
        """Write what waits."""
        self._pool.shutdown()

    def flush(self) -> None:
        """Wait until what waits now has been handed to the recorder."""
        self._pool.submit(lambda: None).result()

    def _write(self, seen: Seen, reason: str, policy: TelemetryPolicy, size: int) -> None:
        try:
            inputs, redacted = self._redactor.redact(
                policy, seen.model, seen.inputs, self._specs(seen.model)
            )
            capture = Capture(
                id=uuid.uuid4().hex,
                model=seen.model,
                version=seen.version,
                time=datetime.fromtimestamp(seen.time, UTC),
                inputs={name: npy(array) for name, array in inputs.items()},
                outputs={name: npy(array) for name, array in seen.outputs.items()},
                reason=reason,
                bundle=seen.bundle,
                answers=summarize(seen.outputs, policy.output_values),
                redacted=redacted,
            )
            self.recorder.record(capture, lambda kept: self._done(size, kept=kept))
        except (EdgeFleetError, OSError) as error:
            _log.warning("a sample of %s is lost: %s", seen.model, error)
            self._done(size, kept=False)
        except Exception:  # noqa: BLE001 - the next one may go well
            _log.exception("a sample of %s is lost", seen.model)
            self._done(size, kept=False)

    def _done(self, size: int, *, kept: bool) -> None:
        with self._lock:
            self._bytes -= size
            self._lost += not kept
