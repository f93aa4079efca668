"""What every group of measurements is given: a folder, how much to measure, the peers."""

from __future__ import annotations

import random
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.serving import peers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.serving.models import Subject
    from benchmarks.serving.under_test import UnderTest


class Bench(NamedTuple):
    """How to measure.

    Attributes:
        folder: for models and logs; gone afterwards.
        rounds: how often everything that is compared is asked in turn.
        requests: of one client to a tiny model, in a round.
        peers_folder: the environments of other servers; None to leave them out.
    """

    folder: Path
    rounds: int
    requests: int
    peers_folder: Path | None

    def each_round(self) -> range:
        """One number a round."""
        return range(self.rounds)

    def in_turn(self, names: Iterable[str], number: int) -> list[str]:
        """The names in a random order, the same for a round's number.

        Who comes after whom should not decide; turned by one each round, each would follow the
        same one nearly always.
        """
        found = [*names]
        random.Random(number).shuffle(found)  # noqa: S311 - an order, no secret
        return found

    def peers(self, stack: ExitStack, subject: Subject) -> dict[str, UnderTest]:
        """The other servers that are installed, with the model, until the stack ends."""
        if self.peers_folder is None:
            return {}
        return {
            name: stack.enter_context(peers.serving(name, self.peers_folder, subject, self.folder))
            for name in peers.installed(self.peers_folder)
        }
