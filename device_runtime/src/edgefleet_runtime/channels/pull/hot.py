"""Hot events to the gateway: batches of CloudEvents, each taken once by its id.

What the gateway refuses for what it is, it would refuse for ever, and all that come after it would
wait. So such a batch is halved until the event is found that it doesn't take, which is dropped.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from edgefleet.errors import InvalidInputError
from edgefleet.protocol.documents import encode
from edgefleet.protocol.gateway import EVENTS, EVENTS_TYPE, MAX_EVENTS_BYTES
from edgefleet_runtime.channels.posts import batches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefleet.protocol.event import Event
    from edgefleet_runtime.channels.pull.gateways import Gateways

_log = logging.getLogger(__name__)


def batch_of(events: Sequence[bytes]) -> bytes:
    """Encoded events as one document of `EVENTS_TYPE`."""
    return b"[" + b",".join(events) + b"]"


def send_hot(gateways: Gateways, events: Sequence[Event]) -> None:
    """Have events taken; all of them or, with an error, maybe some."""
    for batch in batches([encode(event) for event in events], max_bytes=MAX_EVENTS_BYTES - 2):
        _post(gateways, batch)


def _post(gateways: Gateways, batch: Sequence[bytes]) -> None:
    body = batch_of(batch)
    try:
        gateways.ask("POST", EVENTS, body=body, headers={"Content-Type": EVENTS_TYPE})
    except InvalidInputError as error:  # too long for it is one of them
        if len(batch) == 1:
            _log.warning("a hot event of %d bytes is dropped: %s", len(body), error.message)
            return
    else:
        return
    half = len(batch) // 2
    _post(gateways, batch[:half])
    _post(gateways, batch[half:])
