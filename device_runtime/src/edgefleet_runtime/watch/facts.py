"""What conditions, windows and messages may name of a request that is watched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.protocol.expression import MAX_ITEMS
from edgefleet_runtime.rules.facts import of_answers

if TYPE_CHECKING:
    from edgefleet.protocol.event import Number
    from edgefleet.protocol.policy import TelemetryPolicy
    from edgefleet_runtime.rules.facts import Facts
    from edgefleet_runtime.watch.seen import Seen

MAX_VALUES = 64  # numbers of one prediction or reading
VALUES = 16  # of each output in the answers, where the policy keeps none


def answered_values(policy: TelemetryPolicy) -> int:
    """How many values of each output what watches may name."""
    return policy.output_values or VALUES


def of_seen(seen: Seen) -> Facts:
    """What a condition may name of a request that is watched."""
    facts = of_answers(seen.answers)
    facts.update(
        model=seen.model,
        version=seen.version,
        variant=seen.variant,
        latency_us=seen.run_us,
        disagrees=bool(seen.disagrees),
        drifted=list(seen.drifted[:MAX_ITEMS]),
    )
    return facts


def numbers_of(seen: Seen) -> dict[str, Number]:
    """The numbers of a request that windows and spans reduce, by name."""
    numbers: dict[str, Number] = {"latency_us": seen.run_us}
    scored = next((answer for answer in seen.answers if answer.score), None)
    if scored is not None:
        numbers["score"] = scored.score[0]
    if seen.answers:
        values = seen.answers[0].values[: MAX_VALUES - len(numbers)]
        numbers.update((f"values[{index}]", value) for index, value in enumerate(values))
    return numbers
