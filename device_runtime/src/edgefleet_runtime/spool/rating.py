"""Turns events into what the store keeps: their JSON, what counts them, and what they are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edgefleet.protocol.event import KINDS, PREFIX
from edgefleet.protocol.policy import WorthPolicy
from edgefleet_runtime.spool.tallies import OTHERS
from edgefleet_runtime.spool.worth import About, band_of, least_sure, place

if TYPE_CHECKING:
    from edgefleet.protocol.event import Event, OutputSummary
    from edgefleet_runtime.spool.tallies import Key, Tallies
    from edgefleet_runtime.spool.worth import Shelf

_MAX_NAME = 64  # characters; a longer one is no model's or stream's that we gave
_ABOUT = msgspec.json.Decoder(About)
_ENCODER = msgspec.json.Encoder()
_KIND_OF = {kind: kind for kind in KINDS} | {PREFIX + kind: kind for kind in KINDS}


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An event on its way into the store.

    Attributes:
        data: its JSON.
        key: the tally that counts it.
        place: the shelf and level where it goes.
        event: itself.
    """

    data: bytes
    key: Key
    place: tuple[Shelf, int]
    event: Event

    @property
    def shelf(self) -> Shelf:
        """The shelf where it goes."""
        return self.place[0]


class Rater:
    """Rates events by a policy and by what came before.

    Args:
        tallies: know how common a class is.
    """

    def __init__(self, tallies: Tallies) -> None:
        self.policy = WorthPolicy()
        self.tallies = tallies

    def entry(self, event: Event, outputs: tuple[OutputSummary, ...] | None = None) -> Entry:
        """Rate an event.

        Args:
            event: whose data is only decoded where that is needed.
            outputs: of a prediction, where they are known.
        """
        tallies = self.tallies
        kind = _KIND_OF.get(event.type, OTHERS)
        if outputs is None:
            about = _about(event)
            outputs = about.outputs if kind == "prediction" else ()
            concerns = about.model or about.stream or ""
        else:
            concerns = event.subject or ""
        if len(concerns) > _MAX_NAME:
            concerns = OTHERS
        answer = least_sure(outputs)
        day = event.time.toordinal()
        if answer is None:
            key, share = tallies.key(day, kind, concerns), 1.0
        else:
            key, share = tallies.seen(day, kind, concerns, answer.top, band_of(answer.score))
        where = place(kind, event.id, answer, share, self.policy)
        return Entry(_ENCODER.encode(event), key, where, event)


def _about(event: Event) -> About:
    try:
        return _ABOUT.decode(event.data)
    except msgspec.DecodeError:  # kept as it is: others may know what it means
        return About()
