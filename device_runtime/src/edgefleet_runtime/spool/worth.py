"""What an event is worth where there is no room for all: its shelf, and its level on it.

Rules kept here:

- Shelves are strict: while a lower one holds anything, nothing of a higher one is dropped.
- Within a shelf, chance decides, weighted: each event draws ``x = -ln(u) / w``, and those with the
  smallest ``x`` are kept. That is weighted sampling without replacement in one pass, algorithm
  A-Res of Efraimidis and Spirakis, "Weighted random sampling with a reservoir", Information
  Processing Letters 97 (2006): a fair sample of everything that came, however long ago.
- ``u`` is the CRC-32 of the event's id: the same event draws the same again after a crash.
- ``x`` is only known to one of `LEVELS` steps, so that a whole step can be dropped at once.
- No IO here.
"""

from __future__ import annotations

from enum import IntEnum
from math import log, log2
from typing import TYPE_CHECKING
from zlib import crc32

import msgspec

from edgefleet.protocol.event import OutputSummary

if TYPE_CHECKING:
    from edgefleet.protocol.policy import WorthPolicy

LEVELS = 40
UNSORTED = -1  # in place of a level: what isn't sorted by worth yet
_STEPS_PER_OCTAVE = 2  # a step is a factor of 1.41: dropping one costs three tenths of a shelf
_DRAWS = 1 << 32
_LARGEST_X = 128.0  # larger ones, one of 600 at the least weight, are of the lowest level
_SMALLEST_X = _LARGEST_X / 2 ** ((LEVELS - 1) / _STEPS_PER_OCTAVE)  # and these of the highest
_UNSURE = 0.05  # added to 1 - score, so that no prediction weighs nothing
_RAREST = 1 / 64  # smaller shares of a class count as this one


class Shelf(IntEnum):
    """Where events wait; what is on a lower one goes first."""

    ORDINARY = 0
    WINDOWS = 1
    HARD = 2
    SAMPLES = 3
    SKETCHES = 4
    HEALTH = 5
    ACCOUNTS = 6
    ALARMS = 7

    @property
    def label(self) -> str:
        """Its name in figures, tables and messages."""
        return self.name.lower()


BY_AGE = frozenset({Shelf.HEALTH, Shelf.ACCOUNTS, Shelf.ALARMS})
"""Shelves of one level, where the oldest go first."""
LEAN_WITHOUT = frozenset({Shelf.SAMPLES, Shelf.SKETCHES})
"""Shelves that stay where they are over a link that costs."""
_SHELF_OF = {
    "window": Shelf.WINDOWS,
    "sample": Shelf.SAMPLES,
    "sketch": Shelf.SKETCHES,
    "health": Shelf.HEALTH,
    "account": Shelf.ACCOUNTS,
    "alarm": Shelf.ALARMS,
}
_ORDINARY, _HARD = Shelf.ORDINARY, Shelf.HARD  # reading a member of an enumeration takes long
_PLACES = [[(shelf, level) for level in range(LEVELS)] for shelf in Shelf]  # made once


class About(msgspec.Struct, frozen=True):
    """The fields of an event's data that say whom it concerns, and how sure a model was."""

    model: str | None = None
    stream: str | None = None
    outputs: tuple[OutputSummary, ...] = ()


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A prediction in short: the class, and how sure the model was of it."""

    top: int
    score: float


def least_sure(outputs: tuple[OutputSummary, ...]) -> Answer | None:
    """Of the first output that holds scores, the row that the model was least sure of.

    None where no output holds scores; a score that isn't finite counts as 0.
    """
    for output in outputs:
        tops, found = output.top, output.score
        if len(tops) == 1 == len(found):
            return Answer(tops[0], found[0] or 0.0)
        if tops and len(tops) == len(found):
            row = min(range(len(found)), key=[score or 0.0 for score in found].__getitem__)
            return Answer(tops[row], found[row] or 0.0)
    return None


def band_of(score: float) -> int:
    """Tenths of a score: 7 is 0.7 to below 0.8, 9 holds 1.0 and more."""
    return int(score * 10) if 0.0 <= score < 1.0 else 9 * (score > 0.0)


def shelf_of(kind: str) -> Shelf:
    """The shelf of events of a kind, as long as nothing more is known of them."""
    return _SHELF_OF.get(kind, _ORDINARY)


def place(
    kind: str, identity: str, answer: Answer | None, share: float, policy: WorthPolicy
) -> tuple[Shelf, int]:
    """The shelf and level of an event; the lowest level of the lowest shelf goes first.

    Args:
        kind: of event.
        identity: its id.
        answer: of a prediction whose outputs hold scores.
        share: of the answer's class in what was seen of the model, 0 to 1.
        policy: what is hard, and what is rare.
    """
    shelf = shelf_of(kind)
    if shelf in BY_AGE:
        return _PLACES[shelf][0]
    if answer is None:
        return _PLACES[shelf][level(identity, 1.0)]
    score = answer.score
    if score < policy.hard_below or share < policy.rare_below:
        shelf = _HARD
    unsure = _UNSURE + 1.0 - score if score < 1.0 else _UNSURE
    return _PLACES[shelf][level(identity, unsure / max(_RAREST, share))]


def level(identity: str, weight: float) -> int:
    """The level that an event draws: 0, the first to go, to ``LEVELS - 1``."""
    x = -log((crc32(identity.encode()) + 1) / _DRAWS) / weight
    if x <= _SMALLEST_X:
        return LEVELS - 1
    return int(_STEPS_PER_OCTAVE * log2(_LARGEST_X / x)) if x < _LARGEST_X else 0
