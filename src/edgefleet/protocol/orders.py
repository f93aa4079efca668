"""Orders: what an operator may have one device do now, over whatever carries requests to it.

A request with one of these paths never reaches the device's endpoint, which any process there may
ask: only what comes over the device's own channel is followed. Bodies are the documents below.

- `ROLLBACK` (POST): serve the release before, until a higher pointer comes.
- `CAPTURE` (POST): keep the next requests of a model as samples, whatever the policy's share.
- `STATUS` (GET): the newest report.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

from edgefleet.protocol.digest import Digest
from edgefleet.protocol.documents import Document
from edgefleet.protocol.names import ModelName
from edgefleet.protocol.report import RolledBack

PREFIX = "/edgefleet/"
ROLLBACK = PREFIX + "rollback"
CAPTURE = PREFIX + "capture"
STATUS = PREFIX + "status"

MAX_ORDER = 4096  # bytes of an order's body
MAX_COUNT = 1000  # samples of one order
MAX_SECONDS = 3600.0
MAX_ACTOR = 60  # characters
MAX_REASON = 300  # characters, as of other texts in a report

Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]
Actor = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ACTOR)]
Reason = Annotated[str, msgspec.Meta(max_length=MAX_REASON)]
OrderId = Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z\-]{8,64}\Z")]


class RollbackOrder(Document, frozen=True, kw_only=True):
    """Serve the release before.

    Attributes:
        by: who orders it, for people.
        reason: why, for people.
    """

    by: Actor = "an operator"
    reason: Reason = ""


class RollbackAnswer(Document, frozen=True, kw_only=True):
    """What became of a rollback.

    Attributes:
        changed: whether this order changed anything; False where the wanted release had been rolled
            back or rejected before.
        epoch: of the pointer that the device holds still.
        number: likewise.
        wanted: digest of the release that this pointer gives the device.
        running: digest of the release that serves now.
        rolled_back: the order that holds; None where the device had rejected the release by itself.
        took_ms: milliseconds from the order's arrival until the release before served.
        remembered: whether it outlives the process; False on a full disk.
    """

    changed: bool
    epoch: int
    number: int
    wanted: Digest
    running: Digest | None = None
    rolled_back: RolledBack | None = None
    took_ms: float = 0.0
    remembered: bool = True


class CaptureOrder(Document, frozen=True, kw_only=True):
    """Keep the next requests of a model.

    Attributes:
        model: name it is served under.
        id: of the order: the same again asks what became of it. A sample's event has this id with a
            full stop and its number, from 0. None has the device make one.
        count: how many requests.
        seconds: when that many didn't come, it ends.
        by: who orders it, for people.
        reason: why, for people.
    """

    model: ModelName
    id: OrderId | None = None
    count: Annotated[int, msgspec.Meta(ge=1, le=MAX_COUNT)] = 1
    seconds: Annotated[float, msgspec.Meta(gt=0.0, le=MAX_SECONDS)] = 300.0
    by: Actor = "an operator"
    reason: Reason = ""


class CaptureAnswer(Document, frozen=True, kw_only=True):
    """What became of a capture so far.

    Attributes:
        id: of the order.
        model: as ordered.
        count: as ordered.
        captured: samples that are kept on the device's disk, or delivered.
        dropped: requests for which there was no room.
        ids: of the samples' events.
        open: whether more are waited for.
        until: when it ends at the latest, by the device's clock.
        inputs: whether samples hold inputs; the policy's ``sample_inputs`` allows them.
    """

    id: OrderId
    model: ModelName
    count: int
    until: Timestamp
    captured: int = 0
    dropped: int = 0
    ids: tuple[str, ...] = ()
    open: bool = False
    inputs: bool = False
