"""What events draw: how finely a full spool can drop."""

from __future__ import annotations

from collections import Counter

import pytest

from edgefleet.protocol.policy import WorthPolicy
from edgefleet_runtime.spool.worth import LEVELS, Answer, place

EVENTS = 4_000


@pytest.mark.parametrize("score", [1.0, 0.9, 0.3])
def test_a_level_holds_no_more_than_a_fifth_of_the_predictions_of_any_score(score: float) -> None:
    drawn = Counter(
        place("prediction", f"{number:032x}", Answer(0, score), 1.0, WorthPolicy())
        for number in range(EVENTS)
    )
    assert max(drawn.values()) < EVENTS / 5
    assert all(0 < level < LEVELS for (_, level), count in drawn.items() if count > EVENTS / 20)
