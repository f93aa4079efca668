"""Files to the gateway in parts, going on where it says that it is.

Rules kept here:

- The gateway is asked first how much it has: a part is sent only from there on.
- Each part is read through what the channel was given to open files with, so that it takes no more
  of the link than it may; one part is in memory.
- Parts grow while they go fast and shrink when one takes long or breaks off, so that a link that
  never holds for long gets some through. What takes long may be the limit of bandwidth, too.
- What breaks off goes on at once as long as something got through since the last break; else the
  caller hears of it, and comes again.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote

from edgefleet.errors import (
    ConflictError,
    LimitExceededError,
    NotFoundError,
    ThrottledError,
    UnavailableError,
)
from edgefleet.protocol.digest import digest_of_file
from edgefleet.protocol.gateway import (
    COMPLETE_HEADER,
    DIGEST_HEADER,
    FILES,
    LENGTH_HEADER,
    MAX_FILE_BYTES,
    MAX_PART_BYTES,
    OFFSET_HEADER,
    UPLOAD_TYPE,
    digest_field,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefleet_runtime.channels.pull.gateways import Gateways
    from edgefleet_runtime.channels.pull.https import Answered

LEAST_PART_BYTES = 64 << 10
QUICK_S, SLOW_S = 4.0, 15.0  # of a part: below it the next is longer, above it shorter
YES, NO = "?1", "?0"
MAX_DIGITS = 20  # of a number that is believed


class Uploads:
    """Sends files of one device.

    Args:
        gateways: that take them.
        opened: opens a file for reading.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        gateways: Gateways,
        opened: Callable[[Path], BinaryIO],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gateways, self._opened, self._clock = gateways, opened, clock
        self._part_bytes = LEAST_PART_BYTES

    def put(self, path: str, file: Path) -> None:
        """Have a file taken under a path below the device's prefix.

        Raises:
            LimitExceededError: it is too long.
            UnavailableError: it broke off; it goes on from there when this is called again.
            CancelledError: it may not go on now.
            EdgeFleetError: the gateway refuses it.
        """
        digest, size = digest_of_file(file)
        if size > MAX_FILE_BYTES:
            raise LimitExceededError(f"{path} has {size} bytes: at most {MAX_FILE_BYTES} are taken")
        upload = _Upload(self._gateways, f"{FILES}/{quote(path)}", digest, size)
        reached = -1
        while not upload.whole:
            before = upload.offset
            try:
                upload.look()
                self._go_on(upload, file)
            except ThrottledError:
                raise
            except (UnavailableError, ConflictError, NotFoundError) as error:
                self._part_bytes = max(LEAST_PART_BYTES, self._part_bytes // 2)
                if upload.offset <= max(reached, before):
                    if isinstance(error, UnavailableError):
                        raise
                    raise UnavailableError(f"{path} is not taken: {error.message}") from error
                reached = upload.offset

    def _go_on(self, upload: _Upload, file: Path) -> None:
        with self._opened(file) as stream:
            stream.seek(upload.offset)
            while not upload.whole:
                # Reading counts, too: where the policy lets it go slowly, parts stay short, so that
                # no burst is longer than a few seconds of what is allowed.
                began = self._clock()
                due = min(self._part_bytes, upload.size - upload.offset)
                part = _read(stream, due)
                if len(part) < due:
                    raise ConflictError(f"{file.name} has become shorter")
                upload.send(part)
                took = self._clock() - began
                if took < QUICK_S:
                    self._part_bytes = min(MAX_PART_BYTES, self._part_bytes * 2)
                elif took > SLOW_S:
                    self._part_bytes = max(LEAST_PART_BYTES, self._part_bytes // 2)


class _Upload:
    """One file on its way to one gateway.

    Attributes:
        offset: bytes that the gateway has, as far as is known.
        whole: whether it has them all, and has kept the file.
    """

    def __init__(self, gateways: Gateways, path: str, digest: str, size: int) -> None:
        self.offset, self.size, self.whole = 0, size, False
        self._gateways, self._path = gateways, path
        self._headers = {DIGEST_HEADER: digest_field(digest), LENGTH_HEADER: str(size)}
        self._address = ""

    def look(self) -> None:
        """Ask how much is there: by the gateway that is there, which then takes the parts."""
        try:
            answered = self._gateways.ask("HEAD", self._path, headers=self._headers)
        except NotFoundError:
            self.offset = 0
        else:
            self._learn(answered, 0)
        self._address = self._gateways.addresses[0]

    def send(self, part: bytes) -> None:
        """Send what comes next."""
        end = self.offset + len(part)
        answered = self._gateways.ask(
            "PATCH",
            self._path,
            only=self._address,
            body=part,
            headers={
                **self._headers,
                "Content-Type": UPLOAD_TYPE,
                OFFSET_HEADER: str(self.offset),
                COMPLETE_HEADER: YES if end == self.size else NO,
            },
        )
        self._learn(answered, end)
        if self.offset != end:
            raise UnavailableError(f"the gateway has {self.offset} bytes, and was sent {end}")
        if end == self.size and not self.whole:
            raise UnavailableError("the gateway got all of it, and doesn't say that it is there")

    def _learn(self, answered: Answered, otherwise: int) -> None:
        said = answered.headers.get(OFFSET_HEADER, "").strip()
        known = said.isascii() and said.isdigit() and len(said) < MAX_DIGITS
        offset = int(said) if known else otherwise
        if offset > self.size:
            raise UnavailableError(f"the gateway has {offset} bytes of {self.size}")
        self.offset = offset
        self.whole = answered.headers.get(COMPLETE_HEADER, "").strip() == YES


def _read(stream: BinaryIO, size: int) -> bytes:
    parts = []
    while size > 0 and (data := stream.read(size)):
        parts.append(data)
        size -= len(data)
    return b"".join(parts)
