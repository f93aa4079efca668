"""Hot events as messages: ``{"events": [CloudEvents in JSON, …]}``, as full as a vendor's limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.protocol.documents import encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefleet.protocol.event import Event

_START, _END = b'{"events":[', b"]}"


def packed(events: Sequence[Event], max_bytes: int) -> list[bytes]:
    """Events as messages of at most so many bytes; one that is longer has a message to itself."""
    messages: list[bytes] = []
    batch: list[bytes] = []
    size = room = max_bytes - len(_START) - len(_END)
    for data in map(encode, events):
        if batch and size < len(data) + 1:
            messages.append(_START + b",".join(batch) + _END)
            batch, size = [], room
        batch.append(data)
        size -= len(data) + 1
    if batch:
        messages.append(_START + b",".join(batch) + _END)
    return messages
