"""What conditions may name of a prediction or a reading."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.protocol.expression import MAX_ITEMS

if TYPE_CHECKING:
    from edgefleet.protocol.event import OutputSummary, Prediction, Reading

Facts = dict[str, object]


def of_prediction(prediction: Prediction) -> Facts:
    """What a condition may name of a prediction event."""
    facts = of_answers(prediction.outputs)
    facts.update(
        model=prediction.model,
        version=prediction.model_version,
        variant=prediction.variant,
        latency_us=prediction.latency_us,
    )
    return facts


def of_reading(reading: Reading) -> Facts:
    """What a condition may name of a reading; values that are null are absent."""
    values = {name: value for name, value in reading.values.items() if value is not None}
    return {"stream": reading.stream, "key": reading.key, "values": values}


def of_answers(answers: tuple[OutputSummary, ...]) -> Facts:
    """Scores and values, without those that aren't there: a condition that needs one fails."""
    facts: Facts = {"scores": []}
    scored = next((answer for answer in answers if answer.score), None)
    if scored is not None:
        facts["scores"] = [score for score in scored.score[:MAX_ITEMS] if score is not None]
        if scored.score[0] is not None:
            facts.update(score=scored.score[0], top=scored.top[0])
    if answers:
        facts["values"] = list(answers[0].values[:MAX_ITEMS])
    return facts
