"""Two models on the same inputs in turn, so that what else the machine does slows both alike.

Each pair of runs is followed by a rest, so that what serves keeps nearly all of the machine.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from edgefleet_runtime.engines.base import LoadedModel

    Inputs = Sequence[Mapping[str, NDArray[Any]]]

SHARE = 0.1  # of the time that it may run
MIN_PAIRS = 5
MAX_PAIRS = 200
ENOUGH_S = 2.0  # of running, after which `MIN_PAIRS` suffice


class Duel:
    """Run times of two models, in microseconds.

    Args:
        inputs: of the runs, one after the other, and again.
        pause: waits for so many seconds; may raise to break off, and `run` goes on later.
        clock: seconds.
    """

    def __init__(
        self,
        inputs: Inputs,
        *,
        pause: Callable[[float], object],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.old_us: list[float] = []
        self.new_us: list[float] = []
        self._inputs = inputs
        self._pause = pause
        self._clock = clock

    @property
    def over(self) -> bool:
        """Whether enough was seen."""
        pairs = len(self.new_us)
        long = sum(self.old_us) + sum(self.new_us) >= ENOUGH_S * 1e6
        return pairs >= MAX_PAIRS or (long and pairs >= MIN_PAIRS)

    def run(self, old: LoadedModel, new: LoadedModel) -> None:
        """Run both once, the one first that was second last, and rest.

        Raises:
            EdgeFleetError: a run failed.
        """
        inputs = self._inputs[len(self.new_us) % len(self._inputs)]
        turns = [(old, self.old_us), (new, self.new_us)]
        took: list[float] = []
        for model, _ in turns if len(self.new_us) % 2 else reversed(turns):
            start = self._clock()
            model.infer(inputs)
            took.append((self._clock() - start) * 1e6)
        old_us, new_us = took if len(self.new_us) % 2 else reversed(took)
        self.old_us.append(old_us)
        self.new_us.append(new_us)
        self._pause(sum(took) / 1e6 * (1 / SHARE - 1))


def percentile(times: Sequence[float], share: float) -> float:
    """The time that so large a share of the times keeps, 0 to 1."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
