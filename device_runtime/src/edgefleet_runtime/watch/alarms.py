"""Alarms: conditions over predictions, readings and spans of time that hold often enough.

Rules kept here:

- What an alarm does at once is begun before its event is stored; both happen whatever becomes of
  the other.
- A rule that names ``disagrees`` looks at what a shadow has answered, too, and at nothing else.
- An alarm that has begun ends: when its condition says so, or when its rule or key goes.
- Time is the monotonic clock's. Each key of a stream has a state of its own; of `MAX_KEYS` of a
  rule, and of spans that hold more than `MAX_CELLS` sums together, the one heard least recently
  goes, which is told once.
"""

from __future__ import annotations

import logging
import re
from collections import OrderedDict, deque
from datetime import UTC, datetime
from math import isfinite
from typing import TYPE_CHECKING

from edgefleet.protocol.event import Alarm, HealthEvent, new_event
from edgefleet.protocol.expression import PREDICTION, READING, SPAN
from edgefleet.protocol.policy_problems import PLACEHOLDER
from edgefleet_runtime.rules.facts import of_reading
from edgefleet_runtime.rules.judge import Judge
from edgefleet_runtime.watch.facts import MAX_VALUES, numbers_of, of_seen
from edgefleet_runtime.watch.spans import Span
from edgefleet_runtime.watch.tap import asks_a_shadow
from edgefleet_runtime.watch.windows import LATEST_S

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from edgefleet.protocol.event import Event, Number
    from edgefleet.protocol.policy import AlarmRule
    from edgefleet.protocol.release import Release
    from edgefleet_runtime.rules.facts import Facts
    from edgefleet_runtime.rules.judge import Tell
    from edgefleet_runtime.watch.seen import Heard, Seen

MAX_KEYS = 1024  # of one rule
AT_ONCE = 16  # keys whose spans are looked at before others have their turn
MAX_CELLS = 1 << 17  # sums in the spans of all rules, about 20 MB
MAX_MESSAGE = 1024  # characters, once filled in

_log = logging.getLogger(__name__)


class Alarms:
    """What raises alarms: looks first, or as a part of the watch; for one thread at a time.

    Args:
        act: begins a rule's actions with the alarm's event; returns at once.
        keep: stores the event of an alarm that begins or ends.
        tell: takes health events.
        began: called when an alarm begins with the rule's name, and with the model whose request
            raised it, unless a shadow's answer did.
        max_keys: of one rule.
        max_cells: sums in the spans of all rules, looked at with each turn.
    """

    def __init__(
        self,
        act: Callable[[AlarmRule, Event], object],
        keep: Callable[[Event], object],
        tell: Tell,
        *,
        began: Callable[[str, str | None], object] = lambda *_: None,
        max_keys: int = MAX_KEYS,
        max_cells: int = MAX_CELLS,
    ) -> None:
        self._act = act
        self._keep = keep
        self._tell = tell
        self._began = began
        self._max_keys = max_keys
        self._max_cells = max_cells
        self._rules: dict[str, _Rule] = {}

    def follow(self, release: Release) -> None:
        """Go by this release's rules; alarms of rules that changed end."""
        wanted = {rule.name: rule for rule in release.telemetry.alarms}
        for name, held in tuple(self._rules.items()):
            if wanted.get(name) != held.rule:
                for key, state in held.states.items():
                    self._drop(held, key, state, "its rule was changed or taken away")
                del self._rules[name]
        for name, rule in wanted.items():
            if name not in self._rules:
                self._rules[name] = _Rule(rule, self._tell)

    def see(self, seen: Seen) -> None:
        """Look at a request."""
        self._look(seen, compared=False)

    def see_compared(self, seen: Seen) -> None:
        """Look at a request that a shadow has answered, too."""
        self._look(seen, compared=True)

    def _look(self, seen: Seen, *, compared: bool) -> None:
        facts: Facts | None = None
        for rule in self._rules.values():
            if rule.rule.model != seen.model or rule.compared is not compared:
                continue
            if rule.rule.over_s is not None:
                self._add(rule, "", numbers_of(seen), seen.at, seen.time)
            else:
                facts = facts or of_seen(seen)
                self._weigh(rule, "", facts, seen.at, seen.time)

    def hear(self, heard: Heard) -> None:
        """Look at a reading."""
        facts: Facts | None = None
        reading = heard.reading
        for rule in self._rules.values():
            if rule.rule.stream != reading.stream:
                continue
            if rule.rule.over_s is not None:
                self._add(rule, reading.key, reading.values, heard.at, heard.time)
            else:
                facts = facts or of_reading(reading)
                self._weigh(rule, reading.key, facts, heard.at, heard.time)

    def turn(self, at: float, time: float, between: Callable[[], object] = lambda: None) -> None:
        """Look at spans from which numbers have gone by now.

        Args:
            at: monotonic seconds.
            time: since 1970.
            between: called now and then; it may have requests, readings and releases looked at.
        """
        spanning = [rule for rule in self._rules.values() if rule.rule.over_s is not None]
        for rule in spanning:
            cells = 0
            for number, (key, state) in enumerate(tuple(rule.states.items())):
                if number % AT_ONCE == 0:
                    between()
                if state.span is None or not self._has(rule, key, state):
                    continue
                facts = state.span.facts(key, at)
                if facts is not None:
                    self._judge(rule, key, state, facts, at, time)
                cells += state.span.cells
            while rule.states and cells > self._max_cells // len(spanning):
                cells -= self._forget_oldest(rule)

    def close(self) -> None:
        """Nothing: an alarm that holds goes on while the process doesn't run."""

    def _has(self, rule: _Rule, key: str, state: _State) -> bool:
        """Whether a rule and its key are still looked at."""
        return self._rules.get(rule.rule.name) is rule and rule.states.get(key) is state

    def _add(
        self, rule: _Rule, key: str, numbers: Mapping[str, Number], at: float, time: float
    ) -> None:
        state = self._state(rule, key)
        if state.span is None:
            state.span = Span(rule.rule.over_s or 0.0, at)
        state.span.add(numbers, at)
        facts = state.span.facts(key, at)
        if facts is not None:
            self._judge(rule, key, state, facts, at, time)

    def _weigh(self, rule: _Rule, key: str, facts: Facts, at: float, time: float) -> None:
        self._judge(rule, key, self._state(rule, key), facts, at, time)

    def _state(self, rule: _Rule, key: str) -> _State:
        state = rule.states.get(key)
        if state is not None:
            rule.states.move_to_end(key)
            return state
        if len(rule.states) >= self._max_keys:
            self._forget_oldest(rule)
        state = rule.states[key] = _State(rule.rule.within)
        return state

    def _forget_oldest(self, rule: _Rule) -> int:
        """Let go of the key heard least recently; returns how many sums its span held."""
        key, state = rule.states.popitem(last=False)
        rule.crowd(self._tell)
        self._drop(rule, key, state, "too many others came since")
        return 0 if state.span is None else state.span.cells

    def _judge(  # noqa: PLR0917 - one look
        self, rule: _Rule, key: str, state: _State, facts: Facts, at: float, time: float
    ) -> None:
        holds = rule.when.holds(facts)
        state.remember(holds=holds)
        if state.active:
            over = rule.clear.holds(facts) if rule.rule.clear else not holds
            state.clear = state.clear + 1 if over else 0
            if state.clear >= rule.rule.clear_after:
                state.end()
                self._keep(_event(rule.rule, key, facts, time, ended=True))
            return
        due = state.began_at is None or at - state.began_at >= rule.rule.every_s
        if state.held >= rule.rule.needs and due:
            state.begin(at)
            event = _event(rule.rule, key, facts, time)
            if rule.rule.actions:
                self._act(rule.rule, event)
            self._keep(event)
            # What a shadow has answered is handed on once more only to who asks for that.
            self._began(rule.rule.name, None if rule.compared else rule.rule.model)

    def _drop(self, rule: _Rule, key: str, state: _State, why: str) -> None:
        if state.active:
            message = f"{_titled(rule.rule, key)}: ended, because {why}"
            alarm = Alarm(
                rule=rule.rule.name,
                message=message,
                severity=rule.rule.severity,
                model=rule.rule.model,
                stream=rule.rule.stream,
                key=key,
                ended=True,
            )
            self._keep(new_event(alarm))


class _Rule:
    """A rule, its conditions, and its state by key; the key heard last comes last."""

    def __init__(self, rule: AlarmRule, tell: Tell) -> None:
        scope = READING if rule.stream else PREDICTION
        if rule.over_s is not None:
            scope = SPAN
        self.rule = rule
        self.compared = asks_a_shadow(rule.when) or asks_a_shadow(rule.clear)
        self.when = Judge(f"alarms.{rule.name}.when", rule.when, scope, tell)
        self.clear = Judge(f"alarms.{rule.name}.clear", rule.clear, scope, tell)
        self.states: OrderedDict[str, _State] = OrderedDict()
        self._crowded = False

    def crowd(self, tell: Tell) -> None:
        """Tell, the first time, that there are more keys than are followed."""
        if not self._crowded:
            self._crowded = True
            message = f"alarms.{self.rule.name}: more keys than are followed at a time"
            _log.warning("%s", message)
            tell(HealthEvent(what="alarms-crowded", message=message))


class _State:
    """How often a condition held lately, and whether its alarm has begun."""

    __slots__ = ("_last", "active", "began_at", "clear", "held", "span")

    def __init__(self, within: int) -> None:
        self._last: deque[bool] = deque(maxlen=within)
        self.held = 0
        self.active = False
        self.clear = 0
        self.began_at: float | None = None
        self.span: Span | None = None

    def remember(self, *, holds: bool) -> None:
        if len(self._last) == self._last.maxlen:
            self.held -= self._last[0]
        self._last.append(holds)
        self.held += holds

    def begin(self, at: float) -> None:
        self.active, self.clear, self.began_at = True, 0, at

    def end(self) -> None:
        self.active = False
        self._last.clear()
        self.held = 0


def _event(rule: AlarmRule, key: str, facts: Facts, time: float, *, ended: bool = False) -> Event:
    alarm = Alarm(
        rule=rule.name,
        message=_message(rule, key, facts),
        severity=rule.severity,
        model=rule.model,
        stream=rule.stream,
        key=key,
        ended=ended,
        values=_numbers(facts),
    )
    return new_event(alarm, time=datetime.fromtimestamp(min(max(time, 0.0), LATEST_S), UTC))


def _titled(rule: AlarmRule, key: str) -> str:
    return f"{rule.name} of {key}" if key else rule.name


def _message(rule: AlarmRule, key: str, facts: Facts) -> str:
    if not rule.message:
        return f"{_titled(rule, key)}: {rule.when}"[:MAX_MESSAGE]
    known = {**facts, "rule": rule.name, "model": rule.model, "stream": rule.stream, "key": key}

    def filled(place: re.Match[str]) -> str:
        value: Any = known
        for name in place[1].split(".", 1):
            value = value.get(name) if isinstance(value, dict) else None
        return f"{value:.6g}" if isinstance(value, float) else str(value)

    return PLACEHOLDER.sub(filled, rule.message)[:MAX_MESSAGE]


def _numbers(facts: Facts) -> dict[str, Number]:
    """The numbers among what a condition could name, flat: ``mean.temperature``."""
    numbers: dict[str, Number] = {}
    for name, value in facts.items():
        if isinstance(value, dict):
            prefix = "" if name == "values" else f"{name}."
            numbers.update((f"{prefix}{below}", float(each)) for below, each in value.items())
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers[name] = float(value)
    finite = [(name, value) for name, value in numbers.items() if value is None or isfinite(value)]
    return dict(finite[:MAX_VALUES])
