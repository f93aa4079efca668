"""Sending a blob to an OCI registry: whole, or in chunks that go on where they stopped.

Rules kept here:

- A registry shows a blob when its upload was closed and its bytes hashed to its digest. We close it
  when ours did.
- A blob of one chunk goes in one request. A larger one goes in chunks, in order; where the
  connection is lost, the registry is asked how far it came. Where it takes no chunks, or keeps
  only the first of them, the blob goes in one request, too.
- The address of an upload under way is kept (`upload_memory`), so that a push that was killed goes
  on.
- An upload that the registry has forgotten, or whose bytes turn out to be others, is begun anew.
  distribution/distribution forgets one whose connection broke in the middle of a chunk. The last
  try sends the blob whole.
- Registries that don't keep to the specification are told by what they answer, never by their name:
  Google's takes no chunks, Amazon's drops all but the first (aws/containers-roadmap 2831).
"""

from __future__ import annotations

import hashlib
import logging
import re
from contextlib import nullcontext
from typing import TYPE_CHECKING, BinaryIO, NamedTuple
from urllib.parse import urljoin, urlsplit, urlunsplit

import httpx2

from edgefleet.errors import UnavailableError
from edgefleet.interfaces.sending import Told, in_parts
from edgefleet.interfaces.upload_memory import UploadMemory, upload_memory
from edgefleet.protocol.layout import checked_bytes, checked_chunks
from edgefleet_kubernetes.oci_errors import RegistryRefusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from edgefleet.protocol.bundle import Descriptor
    from edgefleet_kubernetes.oci import Answer, RegistryClient

MAX_TRIES = 3  # of an upload that the registry forgot, or of a chunk whose connection was lost
_RANGE = re.compile(r"(?:bytes=)?0-(\d+)")
_BYTES = "application/octet-stream"
# Answers to how far an upload came that mean "begin anew": a signed address ends, and refuses then.
_ENDED = frozenset({400, 403, 404, 405, 410, 416})
# Answers to a first chunk that mean "not in chunks": what they say differs from one to the next.
_NO_CHUNKS = frozenset({400, 404, 405, 411, 413, 415, 416, 501})

_log = logging.getLogger(__name__)


class _Forgotten(Exception):  # noqa: N818 - the next try begins anew
    """The upload is gone, or is no use."""


class _Whole(Exception):  # noqa: N818 - the next try sends the blob in one request
    """The registry takes no chunks."""


class _Upload(NamedTuple):
    """An upload under way.

    Attributes:
        url: of it; another after each call.
        sent: bytes that the registry holds.
        least: bytes that a chunk but the last must have; 0 where it doesn't matter.
    """

    url: str
    sent: int = 0
    least: int = 0


class Uploads:
    """Sends blobs to a repository.

    Args:
        client: of the repository.
        folder: where addresses of uploads under way are kept.
        chunk_bytes: size of chunks.
        mounts: other repositories of the registry, which may have a blob already.
    """

    def __init__(
        self, client: RegistryClient, folder: Path, *, chunk_bytes: int, mounts: tuple[str, ...]
    ) -> None:
        self._client, self._folder = client, folder
        self._chunk_bytes, self._mounts = chunk_bytes, mounts
        self._takes_chunks = True
        for other in mounts:
            client.access.also(f"repository:{other}:pull")

    def send(self, descriptor: Descriptor, source: Callable[[], BinaryIO], told: Told) -> None:
        """Have the registry hold a blob.

        Args:
            descriptor: of the blob.
            source: opens its bytes.
            told: progress.

        Raises:
            IntegrityError: the source holds other bytes than the descriptor says.
            RegistryRefusal, httpx2.HTTPError: the registry refuses, or can't be reached.
            UnavailableError: it forgot the upload again and again.
        """
        with self._kept(descriptor) as kept:
            begun = self._begun(kept)
            for tries in range(1, MAX_TRIES + 1):
                whole = not self._takes_chunks or tries == MAX_TRIES
                upload = begun or self._begin(descriptor)
                begun = None
                if upload is None:  # mounted
                    break
                try:
                    with source() as stream:
                        self._fill(upload, descriptor, stream, told, None if whole else kept)
                    break
                except _Whole:
                    self._takes_chunks = False
                except _Forgotten as why:
                    _log.info("upload of %s begins anew: %s", descriptor.digest, why)
                    kept.forget()
                except httpx2.TransportError:
                    if self._there(descriptor):  # its last answer was lost
                        break
                    in_chunks = not whole and descriptor.size > self._chunk_bytes
                    if in_chunks or tries == MAX_TRIES:  # chunks had their tries
                        raise
            else:
                raise UnavailableError(
                    f"{self._client.repository.host} forgot the upload of {descriptor.digest} "
                    f"{MAX_TRIES} times",
                    cure="push again; it goes on after the blobs that are there",
                )
            kept.forget()
            told.up_to(descriptor.size)

    def prove(self) -> None:
        """Begin an upload and drop it: raises what sending a blob would."""
        begin = f"{self._client.url}/blobs/uploads/"
        begun = self._next(begin, self._client.call("POST", begin, "an upload", content=b""))
        try:
            self._client.call("DELETE", begun.url, "an upload")
        except RegistryRefusal as refusal:  # it ends by itself, then
            _log.debug("an upload can't be dropped: %s", refusal)

    def _there(self, descriptor: Descriptor) -> bool:
        url = f"{self._client.url}/blobs/{descriptor.digest}"
        try:
            self._client.call("HEAD", url, f"blob {descriptor.digest}")
        except RegistryRefusal as refusal:
            if refusal.status == 404:
                return False
            raise
        return True

    # Uploads that are kept between two pushes

    def _kept(self, descriptor: Descriptor) -> AbstractContextManager[UploadMemory]:
        if descriptor.size <= self._chunk_bytes:
            return nullcontext(UploadMemory())
        place = f"{self._client.url} {descriptor.digest}"
        return upload_memory(self._folder, hashlib.sha256(place.encode()).hexdigest()[:32])

    def _begun(self, kept: UploadMemory) -> _Upload | None:
        """The upload that an earlier push left, if the registry still knows it."""
        url = kept.address()
        if url is None or not self._takes_chunks:
            return None
        try:
            return self._status(_Upload(url))
        except _Forgotten:
            kept.forget()
            return None

    def _begin(self, descriptor: Descriptor) -> _Upload | None:
        """A new upload; None where another repository had the blob."""
        begin = f"{self._client.url}/blobs/uploads/"
        for other in self._mounts:
            asked = f"{begin}?mount={descriptor.digest}&from={other}"
            answer = self._client.call("POST", asked, "a mount", content=b"")
            if answer.status == 201:
                return None
            if other == self._mounts[-1]:  # it has begun an upload instead
                return self._next(begin, answer)
        return self._next(begin, self._client.call("POST", begin, "an upload", content=b""))

    def _next(self, url: str, answer: Answer, sent: int = 0, least: int = 0) -> _Upload:
        least = int(answer.headers.get("OCI-Chunk-Min-Length", least))
        return _Upload(urljoin(url, answer.headers["Location"]), sent, least)

    def _status(self, upload: _Upload) -> _Upload:
        try:
            answer = self._client.call("GET", upload.url, "an upload")
        except RegistryRefusal as refusal:
            if refusal.status in _ENDED:
                raise _Forgotten(str(refusal)) from refusal
            raise
        told = _RANGE.match(answer.headers.get("Range", "0-0"))
        end = 0 if told is None else int(told[1])
        # "0-0" is what registries say of nothing; that it was one byte, nobody sends.
        url = urljoin(upload.url, answer.headers.get("Location", upload.url))
        return _Upload(url, end + 1 if end else 0, upload.least)

    # Bytes

    def _fill(
        self,
        upload: _Upload,
        descriptor: Descriptor,
        stream: BinaryIO,
        told: Told,
        kept: UploadMemory | None,
    ) -> None:
        """Send what an upload lacks; whole where nothing of it is to be kept."""
        if descriptor.size <= self._chunk_bytes:
            self._close(upload, descriptor, checked_bytes(stream, descriptor))
        elif kept is None:
            self._close(upload, descriptor, _telling(checked_chunks(stream, descriptor), told))
        else:
            if upload.sent > descriptor.size:
                raise _Forgotten("it holds more than the blob has")
            told.up_to(upload.sent)
            at = 0
            chunk_bytes = max(self._chunk_bytes, upload.least)
            for data in in_parts(stream, descriptor, chunk_bytes):
                end = at + len(data)
                while upload.sent < end:
                    upload = self._send(upload, data[upload.sent - at :], kept, first=not at)
                    told.up_to(upload.sent)
                at = end
            self._close(upload, descriptor, b"")

    def _send(self, upload: _Upload, data: bytes, kept: UploadMemory, *, first: bool) -> _Upload:
        """Send a chunk, and tell how far the registry came, which may be less."""
        sent = upload.sent
        headers = {"Content-Type": _BYTES, "Content-Range": f"{sent}-{sent + len(data) - 1}"}
        for tries in range(1, MAX_TRIES + 1):
            try:
                answer = self._client.call(
                    "PATCH", upload.url, "a chunk", headers=headers, content=data, again=False
                )
            except RegistryRefusal as refusal:
                if refusal.code.startswith("BLOB_UPLOAD_") or (refusal.status == 416 and not first):
                    raise _Forgotten(str(refusal)) from refusal
                if first and refusal.status in _NO_CHUNKS:
                    raise _Whole(str(refusal)) from refusal
                raise
            except httpx2.TransportError as error:
                _log.info("a chunk at byte %d broke off: %r", sent, error)
                upload = self._status(upload)
                if upload.sent != sent:
                    break
                if tries == MAX_TRIES:
                    raise
            else:
                upload = self._next(upload.url, answer, sent + len(data), upload.least)
                told = _RANGE.match(answer.headers.get("Range", ""))
                if told is not None and int(told[1]) + 1 != upload.sent:
                    raise _Whole(f"it holds {told[0]} after byte {upload.sent}")
                break
        kept.keep(upload.url)
        return upload

    def _close(
        self, upload: _Upload, descriptor: Descriptor, body: bytes | Iterator[bytes]
    ) -> None:
        parts = urlsplit(upload.url)
        query = f"{parts.query}&" if parts.query else ""
        url = urlunsplit(parts._replace(query=f"{query}digest={descriptor.digest}"))
        length = len(body) if isinstance(body, bytes) else descriptor.size
        try:
            self._client.call(
                "PUT",
                url,
                f"blob {descriptor.digest}",
                headers={"Content-Type": _BYTES, "Content-Length": str(length)},
                content=body,
                again=False,
            )
        except RegistryRefusal as refusal:
            streamed_with_an_old_token = refusal.status == 401 and not isinstance(body, bytes)
            forgotten = refusal.code.startswith(("BLOB_UPLOAD_", "DIGEST_INVALID"))
            if forgotten or streamed_with_an_old_token:  # beginning anew gets a token, too
                raise _Forgotten(str(refusal)) from refusal
            raise


def _telling(chunks: Iterator[bytes | memoryview], told: Told) -> Iterator[bytes]:
    done = 0
    for chunk in chunks:
        yield bytes(chunk)
        done += len(chunk)
        told.up_to(done)
