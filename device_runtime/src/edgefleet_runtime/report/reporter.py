"""Reports: when to send one, with which number, and what to do when it can't be sent.

Rules kept here:

- A change that an operator acts upon (what runs, what failed, what waits) is sent at once; progress
  on the way there at most once a second; everything else with the heartbeat.
- The heartbeat has jitter, so that a fleet that lost its power doesn't report in one instant.
- Numbers rise over restarts: the count of starts, which is on the disk, stands in front.
- One that couldn't be sent is made anew and tried again: only the latest counts.
"""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING

from msgspec.structs import replace

from edgefleet.errors import EdgeFleetError
from edgefleet.protocol.report import Report
from edgefleet_runtime.retry import RetryTimer

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet_runtime.channels.base import Channel

_log = logging.getLogger(__name__)

REPORTS_A_START = 10**9  # numbers set aside for one start; JSON numbers are exact up to 2**53
PROGRESS_S = 1.0  # between two reports that differ in progress only
RESOLUTION_S = 0.001  # what is due sooner than this is due now
JITTER = 0.1  # share of the heartbeat by which it comes earlier


class Reporter:
    """Sends a device's reports.

    Args:
        channel: where they go.
        make: gives the report as it is now; its ``sequence`` is set here.
        complete: adds to one that is sent what takes long to measure.
        heartbeat_s: gives the seconds after which one is sent without a change.
        starts: how often the runtime has started on this device.
        clock: monotonic seconds.
        jitter: source of chance.
    """

    def __init__(
        self,
        channel: Channel,
        make: Callable[[], Report],
        complete: Callable[[Report], Report],
        *,
        heartbeat_s: Callable[[], float],
        starts: int,
        clock: Callable[[], float] = time.monotonic,
        jitter: random.Random | None = None,
    ) -> None:
        self._channel = channel
        self._make = make
        self._complete = complete
        self._heartbeat_s = heartbeat_s
        self._clock = clock
        self._jitter = jitter or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._sequence = starts * REPORTS_A_START
        self.latest = b""
        """The newest report, whether or not it could be sent; empty before the first."""
        self._sent: Report | None = None
        self._sent_at = clock()
        self._early = 0.0
        self._retry = RetryTimer(clock)
        self._locked_out = False

    @property
    def delivered(self) -> bool:
        """Whether the last report that was due has been taken."""
        return self._sent is not None and self._retry.due_in_s() is None

    def turn(self, *, last: bool = False) -> float:
        """Send a report if one is due.

        Args:
            last: send one in any case, because the process ends.

        Returns:
            Seconds until one is due if nothing changes.
        """
        report = self._make()
        locked_out = report.access.state in ("expired", "denied")
        if self._locked_out and not locked_out:  # whoever let it in again looks now
            self._retry.reset()
        self._locked_out = locked_out
        if last or self._in_s(report) < RESOLUTION_S:
            self._send(report)
        return self._in_s(report)

    def _send(self, report: Report) -> None:
        self._sequence += 1
        try:
            self.latest = self._complete(replace(report, sequence=self._sequence)).encoded()
            self._channel.send_report(self.latest)
        except EdgeFleetError as error:
            _log.info("the report waits: %s", error.message)
            self._retry.wait()
            return
        except Exception:  # noqa: BLE001 - a channel's defect; releases are followed all the same
            _log.exception("the report waits")
            self._retry.wait()
            return
        self._retry.reset()
        self._sent, self._sent_at = report, self._clock()
        self._early = self._jitter.uniform(0.0, JITTER)

    def _in_s(self, report: Report) -> float:
        blocked = self._retry.due_in_s()
        if blocked:
            return blocked
        if self._sent is None or _matters(report) != _matters(self._sent):
            return 0.0
        since = self._clock() - self._sent_at
        left = self._heartbeat_s() * (1 - self._early) - since
        if _progress(report) != _progress(self._sent):
            left = min(left, PROGRESS_S - since)
        return max(0.0, left)


def _matters(report: Report) -> tuple[object, ...]:
    """What an operator acts upon, and whether models answer at all."""
    return (
        report.pair,
        report.fleet,
        report.state,
        report.wanted,
        report.running,
        report.access,
        report.labels,
        report.endpoint,
        report.errors,
        report.rolled_back,
        report.reverted,
        report.health.sync == "access",
        tuple(
            (
                model.name,
                model.version,
                model.variant,
                model.providers,
                model.state,
                bool(model.inferences),
                bool(model.building),
                # A shadow's figures are what it runs for: told at 1, 10, 100… answers.
                model.shadow and len(str(model.shadow.compared)),
            )
            for model in report.models
            if model.state in {"active", "rejected", "waiting"}
        ),
    )


def _progress(report: Report) -> tuple[object, ...]:
    return tuple(
        (model.name, model.version, model.state, model.variants, model.building)
        for model in report.models
    )
