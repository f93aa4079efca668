"""Sending a large blob in parts: cut, checked on the way, several under way at once.

Rules kept here:

- The last part is given away only when the whole has hashed to its digest: a store that shows a
  blob when its last part is there never shows a wrong one.
- At most ``SENDERS + 1`` parts are in memory.
- The first part that fails ends the work; parts that haven't begun are not sent.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from edgefleet.protocol.layout import checked_chunks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from edgefleet.protocol.bundle import Descriptor

    Progress = Callable[[int], object]

SENDERS = 4  # parts under way at once
MIB = 1 << 20

Sent = TypeVar("Sent")


class Told:
    """Progress of a blob that may be sent more than once: told up to its size, never beyond.

    Args:
        progress: called with the bytes of each step; None for nobody.
    """

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self._told = progress, 0

    def up_to(self, total: int) -> None:
        """Tell that so many bytes are done."""
        if self._progress is not None and total > self._told:
            self._progress(total - self._told)
        self._told = max(self._told, total)


def size_of_parts(descriptor: Descriptor, *, wanted: int, most: int) -> int:
    """Size of a blob's parts, in bytes.

    Args:
        descriptor: of the blob.
        wanted: size that is taken where the parts aren't too many then.
        most: parts that the store takes.
    """
    least = -(-descriptor.size // most)
    return max(wanted, -(-least // MIB) * MIB)


def send_in_parts(
    stream: BinaryIO,
    descriptor: Descriptor,
    part_bytes: int,
    send: Callable[[int, bytes], Sent],
    told: Told,
) -> list[Sent]:
    """Send a blob's parts, several at once.

    Args:
        stream: gives the blob's bytes.
        descriptor: of the blob.
        part_bytes: size of each part but the last.
        send: sends one: its number from 1 and its bytes; called in several threads.
        told: progress, by parts whose sending has begun.

    Returns:
        What ``send`` gave, in the parts' order.

    Raises:
        IntegrityError: the stream holds other bytes than the descriptor says.
    """
    slots = threading.Semaphore(SENDERS)
    sent: list[Future[Sent]] = []
    done = 0

    def one(number: int, data: bytes) -> Sent:
        try:
            return send(number, data)
        finally:
            slots.release()

    with ThreadPoolExecutor(SENDERS, thread_name_prefix="edgefleet-upload") as pool:
        try:
            for number, data in enumerate(in_parts(stream, descriptor, part_bytes), 1):
                slots.acquire()
                _raise_first(sent)
                sent.append(pool.submit(one, number, data))
                done += len(data)
                told.up_to(done)
            return [part.result() for part in sent]
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def in_parts(stream: BinaryIO, descriptor: Descriptor, part_bytes: int) -> Iterator[bytes]:
    """The stream's bytes in parts of one size, the last one shorter; checked to the end."""
    held = bytearray()
    for chunk in checked_chunks(stream, descriptor):
        held += chunk
        while len(held) > part_bytes:
            yield bytes(held[:part_bytes])
            del held[:part_bytes]
    yield bytes(held)


def _raise_first(sent: list[Future[Sent]]) -> None:
    """Raise the error of a part that has failed already."""
    for one in sent:
        if one.done() and (error := one.exception()) is not None:
            raise error
