"""How a deployment of the mock reaches its devices: rate, abort criteria, timeouts, counts.

It does no IO, and time is given with each call. Rules kept here, each in ``mock_rules.md``:

- Devices are told at the rate of the job configuration, 1,000 a minute without one; an exponential
  rate is multiplied each time that its criterion is met once more, up to 1,000.
- From its abort criteria on no further device is told.
- A device that is in progress for too long is TIMED_OUT.
- A crowd is devices that only exist as a number: each is done as soon as it is told.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

ENDED = frozenset({"FAILED", "TIMED_OUT", "CANCELED", "REJECTED", "SUCCEEDED"})
MOST_A_MINUTE = 1000


class Crowd(NamedTuple):
    """Devices of a target as a number.

    Attributes:
        devices: how many.
        every_fails: each so-manieth of them fails; 0 for none.
    """

    devices: int = 0
    every_fails: int = 0


class Execution:
    """How far one device is with one deployment."""

    __slots__ = ("changed", "reason", "status")

    def __init__(self, status: str, changed: dt.datetime, reason: str = "") -> None:
        self.status = status
        self.changed = changed
        self.reason = reason


class Rollout:
    """How far a deployment is with all devices of its target.

    Args:
        config: its ``iotJobConfiguration``.
        began: when it was made.
        crowd: the target's devices that aren't there one by one.

    Attributes:
        executions: thing -> how far it is, in the order in which they are told.
        stopped: why no further device is told; empty while they are.
    """

    def __init__(self, config: Mapping[str, Any], began: dt.datetime, crowd: Crowd) -> None:
        rollout = config.get("jobExecutionsRolloutConfig") or {}
        growing = rollout.get("exponentialRate") or {}
        self._rate = float(
            growing.get("baseRatePerMinute") or rollout.get("maximumPerMinute") or MOST_A_MINUTE
        )
        self._factor = float(growing.get("incrementFactor", 1))
        criteria = growing.get("rateIncreaseCriteria") or {}
        self._notified: int | None = criteria.get("numberOfNotifiedThings")
        self._succeeded: int | None = criteria.get("numberOfSucceededThings")
        self._abort = (config.get("abortConfig") or {}).get("criteriaList") or ()
        self._minutes: int | None = (config.get("timeoutConfig") or {}).get(
            "inProgressTimeoutInMinutes"
        )
        self._crowd = crowd
        self._crowd_told = self._crowd_failed = 0
        self._told = 0.0
        self._at = began
        self._lock = threading.RLock()  # devices and operators come at once
        self.executions: dict[str, Execution] = {}
        self.stopped = ""

    def kept(self) -> dict[str, Any]:
        """What `restore` goes on from."""
        with self._lock:
            return {
                "crowd": self._crowd,
                "crowd_told": self._crowd_told,
                "crowd_failed": self._crowd_failed,
                "told": self._told,
                "at": self._at.isoformat(),
                "stopped": self.stopped,
                "executions": {
                    thing: [one.status, one.changed.isoformat(), one.reason]
                    for thing, one in self.executions.items()
                },
            }

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Be as far as `kept` told."""
        self._crowd = Crowd(*kept["crowd"])
        self._crowd_told, self._crowd_failed = kept["crowd_told"], kept["crowd_failed"]
        self._told, self._at = kept["told"], dt.datetime.fromisoformat(kept["at"])
        self.stopped = kept["stopped"]
        self.executions = {
            thing: Execution(status, dt.datetime.fromisoformat(changed), reason)
            for thing, (status, changed, reason) in kept["executions"].items()
        }

    def advance(self, now: dt.datetime) -> None:
        """Tell as many devices as are due by now."""
        with self._lock:
            self._advance(now)

    def _advance(self, now: dt.datetime) -> None:
        if self._minutes is not None:
            self._time_out(now, dt.timedelta(minutes=self._minutes))
        left = (now - self._at) / dt.timedelta(minutes=1)
        self._at = max(now, self._at)
        while not self.stopped:
            self._tell_crowd()
            if left <= 0 or self._all_told():
                return
            rate = self._rate_now()
            step = min(left, self._until_faster() / rate)
            self._told += rate * step
            left -= step

    def hears(self, thing: str) -> bool:
        """Whether a device of the executions has been told."""
        place = list(self.executions).index(thing)
        return place <= self._told and self.executions[thing].status != "CANCELED"

    def report(self, thing: str, status: str, now: dt.datetime, reason: str = "") -> None:
        """Take in how far a device is, and stop where that meets the criteria."""
        with self._lock:
            self.executions[thing] = Execution(status, now, reason)
            self._judge()

    def stop(self, why: str, now: dt.datetime) -> None:
        """Tell no further device."""
        with self._lock:
            self.stopped = self.stopped or why
            for one in self.executions.values():
                if one.status == "QUEUED":
                    one.status, one.changed = "CANCELED", now

    def counts(self) -> Counter[str]:
        """Devices by status, the crowd's included."""
        found = Counter(one.status for one in tuple(self.executions.values()))
        left = self._crowd.devices - self._crowd_told
        found["CANCELED" if self.stopped else "QUEUED"] += left
        found["FAILED"] += self._crowd_failed
        found["SUCCEEDED"] += self._crowd_told - self._crowd_failed
        return found

    def _all_told(self) -> bool:
        return self._told > len(self.executions) + self._crowd.devices

    def _rate_now(self) -> float:
        times = 0
        if self._notified is not None:
            times = int(self._told // self._notified)
        elif self._succeeded is not None:
            times = self.counts()["SUCCEEDED"] // self._succeeded
        return min(MOST_A_MINUTE, self._rate * self._factor ** min(times, 10))

    def _until_faster(self) -> float:
        """Devices to tell before the rate may be another."""
        each = self._notified or self._succeeded
        if each is None:
            return float("inf")
        if self._notified is None:
            return 1.0
        return each - self._told % each

    def _tell_crowd(self) -> None:
        due = min(self._crowd.devices, int(self._told) + 1 - len(self.executions))
        if due <= self._crowd_told:
            return
        every = self._crowd.every_fails
        if not every or not self._abort:
            self._crowd_told = due
            self._crowd_failed = due // every if every else 0
            return
        while self._crowd_told < due and not self.stopped:
            self._crowd_told += 1
            if self._crowd_told % every == 0:
                self._crowd_failed += 1
                self._judge()

    def _judge(self) -> None:
        counts = self.counts() if self._abort else Counter[str]()
        ended = sum(counts[status] for status in ENDED - {"CANCELED"})
        for one in self._abort:
            kinds = {"FAILED", "REJECTED", "TIMED_OUT"}
            if one["failureType"] != "ALL":
                kinds = {one["failureType"]}
            failed = sum(counts[kind] for kind in kinds)
            enough = ended >= one["minNumberOfExecutedThings"]
            if enough and 100 * failed >= one["thresholdPercentage"] * ended:
                self.stop(f"{failed} of {ended} devices failed", self._at)

    def _time_out(self, now: dt.datetime, most: dt.timedelta) -> None:
        for thing, one in list(self.executions.items()):
            if one.status == "IN_PROGRESS" and now - one.changed >= most:
                self.report(thing, "TIMED_OUT", now, "no end was heard of in time")
