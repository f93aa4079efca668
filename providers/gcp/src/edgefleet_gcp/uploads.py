"""Resumable uploads to Cloud Storage: one session a blob, which goes on after a kill.

https://cloud.google.com/storage/docs/performing-resumable-uploads. Rules kept here:

- A session is made to create only (generation 0), so that nobody's blob is overwritten.
- Cloud Storage lists no sessions, so each is remembered on this machine until it is done
  (`upload_memory`). It is good for a week.
- How much has arrived the session says, never we. Chunks are multiples of 256 KiB but the last.
- The last chunk carries the CRC32C of the whole, and is sent only when the whole has hashed to its
  digest: what an interrupted upload of other bytes left there makes no blob.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

from edgefleet.errors import IntegrityError, UnavailableError
from edgefleet.interfaces.sending import in_parts
from edgefleet.interfaces.upload_memory import upload_memory
from edgefleet.protocol.digest import hex_of
from edgefleet_gcp.answers import said_by, status_of
from edgefleet_gcp.checksums import Crc32c

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import BinaryIO

    from edgefleet.interfaces.sending import Told
    from edgefleet.protocol.bundle import Descriptor
    from edgefleet_gcp.clients import Clients

QUANTUM = 256 << 10  # bytes; chunks are multiples of it
STUCK = 5  # chunks in a row of which nothing arrived
_ENDED = {404, 410}
_THERE = re.compile(r"\Abytes=0-(\d{1,18})\Z")


class UploadEnded(Exception):  # noqa: N818 - it is begun anew
    """The session is gone, or holds other bytes."""


class BlobThere(Exception):  # noqa: N818 - no failure
    """Somebody else has stored the blob meanwhile."""


class Session:
    """One resumable upload.

    Args:
        clients: to reach Cloud Storage with.
        address: of the session, which is a secret.
        total: bytes of the blob.
        known: whether nothing has been sent yet.
    """

    def __init__(self, clients: Clients, address: str, total: int, *, known: bool) -> None:
        self._clients = clients
        self._address = address
        self._total = total
        self._arrived: int | None = 0 if known else None

    @classmethod
    def begin(cls, clients: Clients, blob: Any, total: int) -> tuple[Session, str]:  # noqa: ANN401 - google-cloud-storage has no types
        """A new session to create an object, and its address.

        Raises:
            BlobThere: it is there.
        """
        try:
            address = blob.create_resumable_upload_session(
                content_type="application/octet-stream",
                size=total,
                if_generation_match=0,
                checksum=None,
                retry=clients.retries,
            )
        except Exception as error:
            if status_of(error) == 412:
                raise BlobThere from error
            raise
        return cls(clients, address, total, known=True), address

    def arrived(self) -> int:
        """How many bytes have arrived; the blob's size when it is done.

        Raises:
            UploadEnded: there is no such session any more.
        """
        if self._arrived is None:
            asked = {"Content-Range": f"bytes */{self._total}", "Content-Length": "0"}
            self._arrived = self._take(self._call, asked, b"")
        return self._arrived

    def send(
        self,
        opening: Callable[[], BinaryIO],
        descriptor: Descriptor,
        told: Told,
        chunk_bytes: int,
    ) -> None:
        """Send what is missing.

        Args:
            opening: opens the blob's bytes from their start.
            descriptor: of the blob.
            told: progress.
            chunk_bytes: about the size of a chunk.

        Raises:
            IntegrityError: the source holds other bytes; nothing is shown.
            UploadEnded: there is no such session any more, or other bytes have arrived.
            BlobThere: somebody else has stored the blob meanwhile.
        """
        self._clients.retries(self.arrived)()
        chunk = max(QUANTUM, chunk_bytes // QUANTUM * QUANTUM)
        checksum, start = Crc32c(), 0
        with opening() as stream:
            for data in in_parts(stream, descriptor, chunk):
                checksum.update(data)
                end = start + len(data)
                last = end == self._total
                digest = str(checksum) if last else None
                self._send_chunk(start, data, digest)
                told.up_to(end)
                start = end

    def cancel(self) -> None:
        """Give the session up; no error where it is gone."""
        with contextlib.suppress(Exception):  # it ends by itself in a week
            self._clients.call("DELETE", self._address, headers={"Content-Length": "0"})

    def _send_chunk(self, start: int, data: bytes, digest: str | None) -> None:
        """Send a chunk, or what of it hasn't arrived."""
        end, stuck = start + len(data), 0
        while (before := self._clients.retries(self.arrived)()) < end:
            self._clients.retries(self._send_rest)(start, data, digest)
            stuck = stuck + 1 if self._arrived == before else 0
            if stuck >= STUCK:
                raise UnavailableError(
                    "Cloud Storage takes nothing of an upload", cure="push again, it goes on"
                )

    def _send_rest(self, start: int, data: bytes, digest: str | None) -> None:
        at = self.arrived()
        rest = memoryview(data)[max(0, at - start) :]
        if not rest:
            return
        last = at + len(rest) - 1
        headers = {"Content-Range": f"bytes {at}-{last}/{self._total}"}
        if digest is not None:
            headers["X-Goog-Hash"] = f"crc32c={digest}"
        self._arrived = None  # until the answer is there
        self._arrived = self._take(self._call, headers, bytes(rest))

    def _call(self, headers: dict[str, str], data: bytes) -> Any:  # noqa: ANN401 - an answer
        return self._clients.call("PUT", self._address, headers=headers, data=data)

    def _take(self, call: Callable[..., Any], headers: dict[str, str], data: bytes) -> int:
        try:
            answer = call(headers, data)
        except Exception as error:
            status = status_of(error)
            if status in _ENDED or (status == 400 and "crc32c" in said_by(error).lower()):
                raise UploadEnded from error
            if status == 412:
                raise BlobThere from error
            raise
        if answer.status_code != 308:
            return self._total
        there = _THERE.match(answer.headers.get("Range", ""))
        return int(there[1]) + 1 if there else 0


def send(
    clients: Clients,
    blob: Any,  # noqa: ANN401 - google-cloud-storage has no types
    opening: Callable[[], BinaryIO],
    descriptor: Descriptor,
    told: Told,
    *,
    chunk_bytes: int,
    folder: Path,
) -> bool:
    """Upload a blob, or what is missing of it; False where its session ended meanwhile.

    Args:
        clients: to reach Cloud Storage with.
        blob: to be made.
        opening: opens the blob's bytes from their start.
        descriptor: of the blob.
        told: progress.
        chunk_bytes: about the size of a chunk.
        folder: where sessions are remembered.

    Raises:
        IntegrityError: the source holds other bytes; the upload is given up.
    """
    with upload_memory(folder, hex_of(descriptor.digest)) as memory:
        address = memory.address()
        session = None
        try:
            if address is None:
                session, address = Session.begin(clients, blob, descriptor.size)
                memory.keep(address)
            else:
                session = Session(clients, address, descriptor.size, known=False)
            session.send(opening, descriptor, told, chunk_bytes)
        except UploadEnded:
            memory.forget()
            return False
        except IntegrityError:
            if session is not None:
                session.cancel()
            memory.forget()
            raise
        except BlobThere:
            if session is not None:
                session.cancel()
        memory.forget()
    told.up_to(descriptor.size)
    return True
