"""Filters: which predictions and readings become events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.protocol.expression import ANSWER, READING
from edgefleet_runtime.rules.facts import of_prediction, of_reading
from edgefleet_runtime.rules.judge import Judge

if TYPE_CHECKING:
    from edgefleet.protocol.event import Prediction, Reading
    from edgefleet.protocol.policy import Filter, TelemetryPolicy, WindowRule
    from edgefleet_runtime.rules.judge import Tell


class Filters:
    """Which predictions and readings become events; for one thread.

    Every filter that applies must let one pass, and no window that keeps no single events may take
    it.

    Args:
        policy: of the release.
        tell: takes health events.
    """

    def __init__(self, policy: TelemetryPolicy, tell: Tell) -> None:
        self._filters = [(rule, _filter_judge(rule, tell), _Share(rule)) for rule in policy.filters]
        self._windows = [
            (rule, _window_judge(rule, tell)) for rule in policy.windows if not rule.keep
        ]
        self._any = bool(self._filters or self._windows)

    def passes(self, prediction: Prediction) -> bool:
        """Whether a prediction becomes an event."""
        if not self._any:
            return True
        facts = of_prediction(prediction)
        for rule, judge, share in self._filters:
            applies = rule.stream is None and rule.model in {None, prediction.model}
            if applies and not (judge.holds(facts) and share.takes()):
                return False
        return not any(
            rule.model == prediction.model and judge.holds(facts) for rule, judge in self._windows
        )

    def hears(self, reading: Reading) -> bool:
        """Whether a reading becomes an event."""
        if not self._any:
            return True
        facts = of_reading(reading)
        for rule, judge, share in self._filters:
            if rule.stream == reading.stream and not (judge.holds(facts) and share.takes()):
                return False
        return not any(
            rule.stream == reading.stream and judge.holds(facts) for rule, judge in self._windows
        )


class _Share:
    """Takes a share evenly, by counting."""

    def __init__(self, rule: Filter) -> None:
        self._fraction = rule.fraction
        self._seen = 0

    def takes(self) -> bool:
        before = int(self._seen * self._fraction)
        self._seen += 1
        return int(self._seen * self._fraction) != before


def _filter_judge(rule: Filter, tell: Tell) -> Judge:
    return Judge(f"filters.{rule.name}", rule.when, READING if rule.stream else ANSWER, tell)


def _window_judge(rule: WindowRule, tell: Tell) -> Judge:
    return Judge(f"windows.{rule.name}", rule.when, READING if rule.stream else ANSWER, tell)
