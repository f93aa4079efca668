"""A loop's state: one document, changed only by compare-and-swap. Pure.

Rules kept here:

- A turn goes through `STEPS` in their order, and only forward; from any it may go to ``discard``.
- What a step found is written before the next one begins, so that whoever goes on needs nothing
  else: no file of this machine, no memory of a process.
- A person's wish lies beside the turn: no step overwrites it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from edgefleet.protocol.digest import Digest
from edgefleet.protocol.documents import Document, decode, encode

MAX_BYTES = 256 << 10
MAX_HISTORY = 50  # turns kept for people, and for the budget
MAX_TEXT = 2000  # characters of a reason

Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]
Step = Literal[
    "dataset", "train", "optimize", "compare", "push", "approve", "shadow", "promote", "discard"
]
STEPS: tuple[Step, ...] = (
    "dataset",
    "train",
    "optimize",
    "compare",
    "push",
    "approve",
    "shadow",
    "promote",
)
Outcome = Literal["promoted", "discarded", "failed"]


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """Who works at the loop now.

    Attributes:
        holder: host, process and a random part.
        renewals: rises as long as the holder lives; nobody's clock is asked.
        ttl_s: who sees the same number for so long may take the lease.
    """

    holder: str
    renewals: int
    ttl_s: float


class Samples(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The samples of a turn.

    Attributes:
        version: digest of the dataset.
        reference: its ``model:number``.
        blob: digest of the file that the turn uses, in the registry's blob store.
        size: bytes of that file.
        count: samples found.
        labelled: those with a label, which alone are used.
        held_back: of these, what isn't trained on.
        taken: when; None where that isn't recorded. Later labels are new to the next turn.
    """

    version: str
    reference: str
    blob: Digest
    size: int
    count: int
    labelled: int
    held_back: int
    taken: Timestamp | None = None


class Scores(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Active model and candidate by the same metric on the same data."""

    active: float
    candidate: float
    samples: int

    @property
    def gain(self) -> float:
        """What the candidate is better; negative where it is worse."""
        return self.candidate - self.active


class ShadowSeen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a shadow, over all devices that tell.

    Attributes:
        devices: of the groups.
        telling: those whose report holds the candidate as a shadow.
        rejected: those that rejected it.
        compared: answers compared.
        dropped: requests that it got no copy of.
        agreement: share of results with the same class, weighted by answers; None for none.
        scores: on samples labelled since the shadow began; None before there are enough.
        labelled: how many those are.
    """

    devices: int = 0
    telling: int = 0
    rejected: int = 0
    compared: int = 0
    dropped: int = 0
    agreement: float | None = None
    scores: Scores | None = None
    labelled: int = 0


class Turn(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One time around.

    Attributes:
        number: of the turn, from 1.
        began: when its trigger held.
        trigger: why it began.
        since: samples and drift count from here; None for everything.
        step: the one that comes next.
        parent: the version that was active then, ``name:version``.
        parent_bundle: digest of its bundle.
        samples: what it learns and is compared on.
        run: id of the training run.
        run_hours: what the run took, times its machines.
        bundle: digest of the candidate's bundle.
        frozen: scores on the frozen test set.
        recent: scores on the samples held back.
        version: the candidate as it was pushed.
        approved_by: who let it go to devices.
        shadowed: when it began as a shadow.
        shadow: what was seen of it so far.
        why: what decided its end.
        failed: it ends because something broke, not because the candidate was judged.
        outcome: how it ended; None before.
        ended: when.
    """

    number: int
    began: Timestamp
    trigger: str
    parent: str
    parent_bundle: Digest
    since: Timestamp | None = None
    step: Step = "dataset"
    samples: Samples | None = None
    run: str = ""
    run_hours: float = 0.0
    bundle: Digest | None = None
    frozen: Scores | None = None
    recent: Scores | None = None
    version: str = ""
    approved_by: str = ""
    shadowed: Timestamp | None = None
    shadow: ShadowSeen | None = None
    why: str = ""
    failed: bool = False
    outcome: Outcome | None = None
    ended: Timestamp | None = None

    def to(self, step: Step, **found: Any) -> Turn:  # noqa: ANN401 - the fields' own types
        """The turn before that step, with what was found."""
        return msgspec.structs.replace(self, step=step, **found)

    def discard(self, why: str, *, failed: bool = False) -> Turn:
        """The turn on its way out."""
        return msgspec.structs.replace(
            self, step="discard", why=why[:MAX_TEXT], failed=failed or self.failed
        )


class Wish(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A person wants a turn discarded."""

    turn: int
    by: str
    reason: str = ""


class LoopRecord(Document, frozen=True, kw_only=True):
    """What a loop has done and is about to do.

    Attributes:
        loop: its name.
        model: the model it keeps.
        created: when it was run for the first time; schedules count from here before any turn.
        lease: who works at it.
        turn: the one that isn't over.
        waits: what the last run waited for; empty where it didn't.
        wish: of a person.
        history: turns that are over, oldest first.
    """

    loop: str
    model: str
    created: Timestamp
    lease: Lease | None = None
    turn: Turn | None = None
    waits: str = ""
    wish: Wish | None = None
    history: tuple[Turn, ...] = ()

    @property
    def number(self) -> int:
        """Of the last turn that began; 0 before the first."""
        last = self.turn or (self.history[-1] if self.history else None)
        return 0 if last is None else last.number

    @property
    def wished(self) -> Wish | None:
        """The wish, where it is about the turn that isn't over."""
        wish = self.wish
        return wish if wish and self.turn is not None and wish.turn == self.turn.number else None


def key_of(loop: str) -> str:
    """Where a loop's state lies."""
    return f"loops/{loop}.json"


def read_record(data: bytes) -> LoopRecord:
    """Decode a loop's state; see `documents.decode` for the errors."""
    return decode(LoopRecord, data, max_bytes=MAX_BYTES)


def encode_record(record: LoopRecord) -> bytes:
    """Canonical bytes. The oldest turns are forgotten."""
    kept = msgspec.structs.replace(record, history=record.history[-MAX_HISTORY:])
    return encode(kept, max_bytes=MAX_BYTES)


def with_end(record: LoopRecord, turn: Turn, outcome: Outcome, at: datetime) -> LoopRecord:
    """The record after its turn is over."""
    over = msgspec.structs.replace(turn, outcome=outcome, ended=at)
    return msgspec.structs.replace(
        record, turn=None, waits="", wish=None, history=(*record.history, over)
    )
