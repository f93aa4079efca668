"""A rule's condition on a device.

Rules kept here:

- A condition that fails, or can't be compiled here, doesn't hold, and is told once.
- Nothing here loads the library for conditions where a policy has none.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from edgefleet.errors import EdgeFleetError
from edgefleet.protocol.event import HealthEvent
from edgefleet.protocol.expression import compile_condition

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.protocol.expression import Condition, Scope
    from edgefleet_runtime.rules.facts import Facts

    Tell = Callable[[HealthEvent], object]

_log = logging.getLogger(__name__)


class Judge:
    """A rule's condition; for one thread.

    Args:
        rule: the rule's name, with its kind in front.
        text: of the condition; empty for one that always holds.
        scope: what it may name.
        tell: takes health events.
    """

    def __init__(self, rule: str, text: str, scope: Scope, tell: Tell) -> None:
        self._rule = rule
        self._tell = tell
        self._told = False
        self._always = not text
        self._condition: Condition | None = None
        try:
            self._condition = compile_condition(text, scope) if text else None
        except EdgeFleetError as error:
            self._fail(str(error))

    @property
    def failures(self) -> int:
        """How often it couldn't be evaluated."""
        return 0 if self._condition is None else self._condition.failures

    def holds(self, facts: Facts) -> bool:
        """Whether the condition holds."""
        condition = self._condition
        if condition is None:
            return self._always
        held = condition.holds(facts)
        if condition.failures and not self._told:
            self._fail(condition.failure)
        return held

    def _fail(self, why: str) -> None:
        self._told = True
        message = f"{self._rule}: {why}"[:1024]
        _log.warning("a condition fails: %s", message)
        self._tell(HealthEvent(what="rule-failed", message=message))
