"""How a loop stands, for people and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from edgefleet.interfaces.values import Value
from edgefleet.loop.record import Turn
from edgefleet.loop.triggers import Reading
from edgefleet.protocol.documents import to_builtins

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet.loop.record import Scores, ShadowSeen

State = Literal["idle", "waiting", "promoted", "discarded", "failed"]


class LoopStatus(Value):
    """A loop at one moment.

    Attributes:
        loop: its name.
        model: the model that it keeps.
        groups: of devices.
        state: ``idle`` where no turn is on its way; ``waiting`` for something outside; how the turn
            ended that this run went through.
        why: what it waits for, or what decided.
        turn: the one on its way, or the last one.
        readings: the triggers as they stand; empty where they weren't asked.
        holder: who works at it now; None for nobody.
        history: turns that are over, newest first.
    """

    loop: str
    model: str
    groups: tuple[str, ...]
    state: State
    why: str
    turn: Turn | None = None
    readings: tuple[Reading, ...] = ()
    holder: str | None = None
    history: tuple[Turn, ...] = ()

    def facts(self) -> dict[str, Any]:
        """The status as JSON-ready data."""
        return {
            "loop": self.loop,
            "model": self.model,
            "groups": [*self.groups],
            "state": self.state,
            "why": self.why,
            "turn": None if self.turn is None else to_builtins(self.turn),
            "readings": [reading._asdict() for reading in self.readings],
            "holder": self.holder,
            "history": [to_builtins(turn) for turn in self.history],
        }

    def __str__(self) -> str:
        return "\n".join(self._text())

    def __repr__(self) -> str:
        return str(self)

    def _text(self) -> Iterator[str]:
        where = ", ".join(self.groups)
        yield f"loop {self.loop}: {self.model} on {where}: {self.state}"
        if self.why:
            yield f"  {self.why}"
        if self.holder is not None:
            yield f"  held by    {self.holder}"
        for reading in self.readings:
            yield f"  {reading.name:<10} {reading.says}{': holds' if reading.holds else ''}"
        if self.turn is not None:
            yield from _turn_text(self.turn)
        for turn in self.history:
            if self.turn is None or turn.number != self.turn.number:
                yield f"  turn {turn.number}: {turn.outcome}: {turn.why}"


def _turn_text(turn: Turn) -> Iterator[str]:
    stands = f"at {turn.step}" if turn.outcome is None else turn.outcome
    yield f"  turn {turn.number} ({stands}), began {turn.began:%Y-%m-%d %H:%M:%S} UTC"
    yield f"    trigger  {turn.trigger}"
    yield f"    parent   {turn.parent}"
    if (found := turn.samples) is not None:
        back = f"{found.held_back} of them held back"
        yield f"    samples  {found.count}, {found.labelled} labelled, {back}"
        yield f"    dataset  {found.reference}"
    if turn.run:
        took = f", {turn.run_hours:.3g} machine hours" if turn.run_hours else ""
        yield f"    training {turn.run}{took}"
    if turn.frozen is not None:
        yield f"    frozen   {_scores_text(turn.frozen)}"
    if turn.recent is not None:
        yield f"    recent   {_scores_text(turn.recent)}"
    if turn.version:
        by = f", approved by {turn.approved_by}" if turn.approved_by else ""
        yield f"    version  {turn.version}{by}"
    if turn.shadow is not None:
        yield f"    shadow   {_shadow_text(turn.shadow)}"


def _scores_text(scores: Scores) -> str:
    return f"{scores.active:.4g} -> {scores.candidate:.4g} on {scores.samples} samples"


def _shadow_text(seen: ShadowSeen) -> str:
    agreement = "" if seen.agreement is None else f", agreement {seen.agreement:.3f}"
    better = "" if seen.scores is None else f", labelled {_scores_text(seen.scores)}"
    return (
        f"{seen.compared} answers compared on {seen.telling} of {seen.devices} devices"
        f"{agreement}{better}"
    )
