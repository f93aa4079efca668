"""Samples by the policy's rules: every n-th, where a condition holds, around alarms.

Rules kept here:

- A rule that names ``disagrees`` looks at what a shadow has answered, too, and at nothing else.
- Recent requests are held only where a rule asks for what came before an alarm.
- A rule takes no more than it may an hour, by the monotonic clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.protocol.event import HealthEvent
from edgefleet.protocol.expression import PREDICTION
from edgefleet.protocol.policy import TelemetryPolicy
from edgefleet_runtime.rules.judge import Judge
from edgefleet_runtime.watch.facts import of_seen
from edgefleet_runtime.watch.ring import MAX_BYTES, Ring
from edgefleet_runtime.watch.tap import asks_a_shadow

if TYPE_CHECKING:
    from edgefleet.protocol.policy import CaptureRule
    from edgefleet.protocol.release import Release
    from edgefleet_runtime.rules.facts import Facts
    from edgefleet_runtime.rules.judge import Tell
    from edgefleet_runtime.watch.keeping import Keeper
    from edgefleet_runtime.watch.seen import Heard, Seen

HOUR_S = 3600.0
TELL_S = 60.0  # between two health events about samples that found no room


class _Rule:
    """A rule, and what it has taken so far."""

    def __init__(self, rule: CaptureRule, tell: Tell) -> None:
        self.rule = rule
        self.compared = asks_a_shadow(rule.when)
        self.judge = Judge(f"captures.{rule.name}", rule.when, PREDICTION, tell)
        self.after = 0
        self._held = 0
        self._hour: float | None = None
        self._taken = 0

    def concerns(self, seen: Seen) -> bool:
        """Whether it looks at requests of this model."""
        return self.rule.model in {None, seen.model}

    def wants(self, facts: Facts) -> bool:
        """Whether the condition holds, for the so-many-th time."""
        if not self.judge.holds(facts):
            return False
        self._held += 1
        return (self._held - 1) % self.rule.every == 0

    def may(self, at: float) -> bool:
        """Whether it may take one more in this hour, which then counts."""
        if self._hour is None or at - self._hour >= HOUR_S:
            self._hour, self._taken = at, 0
        self._taken += 1
        return self._taken <= self.rule.per_hour


class Capturer:
    """The watch's part that captures; see `edgefleet_runtime.watch.seen.Watcher`.

    Args:
        keeper: writes samples.
        tell: takes health events.
        ring_bytes: what recent requests may take.
    """

    def __init__(self, keeper: Keeper, tell: Tell, *, ring_bytes: int = MAX_BYTES) -> None:
        self._keeper = keeper
        self._tell = tell
        self._policy = TelemetryPolicy()
        self._rules: dict[str, _Rule] = {}
        self._ring = Ring(ring_bytes)
        self._lost = 0
        self._told_at: float | None = None

    def follow(self, release: Release) -> None:
        """Go by this release's rules; those that are as before go on."""
        self._policy = release.telemetry
        before, self._rules = self._rules, {}
        depths: dict[str | None, int] = {}
        for rule in release.telemetry.captures:
            held = before.get(rule.name)
            same = held is not None and held.rule == rule
            self._rules[rule.name] = held if held and same else _Rule(rule, self._tell)
            if rule.alarm is not None:
                depths[rule.model] = max(depths.get(rule.model, 0), rule.before)
        self._ring.keep(depths)

    def see(self, seen: Seen) -> None:
        """Look at a request."""
        self._look(seen, compared=False)
        for rule in self._rules.values():
            if rule.after and rule.concerns(seen):
                rule.after -= 1
                self._take(rule, seen, seen.at)
        self._ring.add(seen)

    def see_compared(self, seen: Seen) -> None:
        """Look at a request that a shadow has answered, too."""
        self._look(seen, compared=True)

    def hear(self, heard: Heard) -> None:
        """Readings aren't captured."""

    def began(self, alarm: str, model: str | None, at: float) -> None:
        """An alarm of this rule has begun, at a request of that model if there is one."""
        for rule in self._rules.values():
            if rule.rule.alarm != alarm:
                continue
            for seen in self._ring.last(rule.rule.before, rule.rule.model):
                self._take(rule, seen, at)
            # The request that raised it is handed to this part behind it.
            rule.after = rule.rule.after + (model is not None)

    def turn(self, at: float, time: float) -> None:
        """Tell of samples that found no room."""
        del time
        self._lost += self._keeper.take_lost()
        recently = self._told_at is not None and at - self._told_at < TELL_S
        if self._lost and not recently:
            message = f"{self._lost} samples found no room"
            self._lost, self._told_at = 0, at
            self._tell(HealthEvent(what="samples-dropped", message=message))

    def close(self) -> None:
        """Write what waits."""
        self._keeper.close()

    def _look(self, seen: Seen, *, compared: bool) -> None:
        facts: Facts | None = None
        for rule in self._rules.values():
            asked = rule.rule.alarm is None and rule.compared is compared
            if not asked or not rule.concerns(seen):
                continue
            facts = facts or of_seen(seen)
            if rule.wants(facts):
                self._take(rule, seen, seen.at)

    def _take(self, rule: _Rule, seen: Seen, at: float) -> None:
        if rule.may(at):
            inputs = rule.rule.inputs
            self._keeper.keep(seen, rule.rule.name, self._policy, inputs=inputs)
