"""What a storage account of the mock holds: containers, blobs, blocks that nobody committed yet.

Rules kept here, each in ``mock_rules.md``:

- Every write gives a new ETag, also one of the same bytes; nothing is changed in place, so whoever
  reads a blob reads one state of it to the end.
- Blocks belong to a blob's name until they are committed, a week at most; their ids have one
  length. What a list of blocks doesn't name is dropped with its commit.
- Bytes lie in files, the rest in memory.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import secrets
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

from edgefleet.testing.cloud.calls import Refused

if TYPE_CHECKING:
    from pathlib import Path

# https://learn.microsoft.com/azure/storage/blobs/scalability-targets
MAX_BLOCK_BYTES = 4000 << 20
MAX_PUT_BYTES = 5000 << 20
MAX_BLOCKS = 50_000
MAX_UNCOMMITTED = 100_000
MAX_POLICIES = 5
UNCOMMITTED_S = 7 * 24 * 3600.0
_CHUNK = 1 << 20


@dataclass
class Content:
    """Bytes in a file.

    Attributes:
        file: its name.
        size: of it, in bytes.
        md5: of it, in base64.
    """

    file: str
    size: int
    md5: str


@dataclass
class Block:
    """A block of a blob.

    Attributes:
        content: its bytes.
        at: when it came, in seconds of the epoch.
    """

    content: Content
    at: float


@dataclass
class Blob:
    """A blob.

    Attributes:
        content: its bytes.
        etag: of this state.
        modified: when it came to be so, in seconds of the epoch.
        created: when there was first a blob of its name.
        headers: that were set with it: content type and so on.
        metadata: that was set with it.
        blocks: ids and sizes of those it was committed from; empty for one that was put whole.
    """

    content: Content
    etag: str
    modified: float
    created: float
    headers: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    blocks: list[tuple[str, int]] = field(default_factory=list)


@dataclass
class Policy:
    """A stored access policy.

    Attributes:
        start: from when on; empty where each SAS says it.
        expiry: until when; empty where each SAS says it.
        permission: letters; empty where each SAS says them.
    """

    start: str = ""
    expiry: str = ""
    permission: str = ""


@dataclass
class Container:
    """A container.

    Attributes:
        etag: of its properties.
        modified: when they were changed.
        public: ``blob``, ``container`` or empty.
        policies: stored access policies by their ids.
        metadata: of it.
        blobs: by name.
        blocks: that nobody committed, by blob's name and id.
    """

    etag: str
    modified: float
    public: str = ""
    policies: dict[str, Policy] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    blobs: dict[str, Blob] = field(default_factory=dict)
    blocks: dict[str, dict[str, Block]] = field(default_factory=dict)


class StorageAccount:
    """A storage account.

    Args:
        name: of it.
        folder: for bytes.
        hierarchical: whether it has a hierarchical namespace.
        clock: gives the time, in seconds of the epoch.

    Attributes:
        keys: the two account keys, in base64.
        resource: its resource id, which roles are assigned at.
        lock: held while containers and blobs are looked at and changed in one go.
        containers: by name.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        hierarchical: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name, self.hierarchical, self.clock = name, hierarchical, clock
        self.resource = f"/{name}"
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.keys = [base64.b64encode(secrets.token_bytes(64)).decode() for _ in range(2)]
        self.lock = threading.RLock()
        self.containers: dict[str, Container] = {}
        self._stamp = 0

    def container(self, name: str) -> Container:
        """A container.

        Raises:
            Refused: there is none.
        """
        found = self.containers.get(name)
        if found is None:
            raise Refused(404, "ContainerNotFound", "The specified container does not exist.")
        return found

    def blob(self, container: str, name: str) -> Blob:
        """A blob.

        Raises:
            Refused: there is none.
        """
        found = self.container(container).blobs.get(name)
        if found is None:
            raise Refused(404, "BlobNotFound", "The specified blob does not exist.")
        return found

    def new_etag(self) -> str:
        """An ETag that nothing had before."""
        with self.lock:
            self._stamp = max(self._stamp + 1, time.time_ns() // 100)
            return f'"0x8{self._stamp:014X}"'

    def create(self, name: str, *, public: str = "") -> Container:
        """Make a container.

        Raises:
            Refused: there is one.
        """
        with self.lock:
            if name in self.containers:
                raise Refused(
                    409, "ContainerAlreadyExists", "The specified container already exists."
                )
            made = Container(self.new_etag(), self.clock(), public)
            self.containers[name] = made
            return made

    def delete(self, name: str) -> None:
        """Delete a container with all that is in it.

        Raises:
            Refused: there is none.
        """
        with self.lock:
            gone = self.container(name)
            del self.containers[name]
            for blob in gone.blobs.values():
                self.drop(blob.content)
            for blocks in gone.blocks.values():
                for block in blocks.values():
                    self.drop(block.content)

    def take_in(self, stream: BinaryIO, most: int) -> Content:
        """Keep a stream's bytes.

        Raises:
            Refused: there are more than ``most``.
        """
        name = uuid.uuid4().hex
        digest, size = hashlib.md5(usedforsecurity=False), 0
        try:
            with (self._folder / name).open("wb") as file:
                while data := stream.read(_CHUNK):
                    size += len(data)
                    _check_size(size, most)
                    digest.update(data)
                    file.write(data)
        except BaseException:
            (self._folder / name).unlink(missing_ok=True)
            raise
        return Content(name, size, base64.b64encode(digest.digest()).decode())

    def joined(self, parts: list[Content]) -> Content:
        """Bytes one after another, as new bytes."""
        name = uuid.uuid4().hex
        with (self._folder / name).open("wb") as file:
            for part in parts:
                with (self._folder / part.file).open("rb") as source:
                    shutil.copyfileobj(source, file, _CHUNK)
        return Content(name, sum(part.size for part in parts), "")

    def drop(self, content: Content) -> None:
        """Forget bytes; whoever reads them already reads on."""
        (self._folder / content.file).unlink(missing_ok=True)

    def open(self, content: Content) -> BinaryIO:
        """Bytes, to read."""
        return (self._folder / content.file).open("rb")

    def stage(self, container: str, blob: str, block_id: str, content: Content) -> None:
        """Keep a block that a later list may name.

        Raises:
            Refused: its id is not like the others'.
        """
        with self.lock:
            blocks = self.container(container).blocks.setdefault(blob, {})
            self._forget_old(blocks)
            lengths = {len(_decoded(other)) for other in blocks}
            if lengths and lengths != {len(_decoded(block_id))}:
                raise Refused(
                    400, "InvalidBlobOrBlock", "The specified blob or block content is invalid."
                )
            if len(blocks) >= MAX_UNCOMMITTED and block_id not in blocks:
                raise Refused(
                    409,
                    "BlockCountExceedsLimit",
                    "The uncommitted block count cannot exceed the maximum limit of 100,000.",
                )
            before = blocks.get(block_id)
            blocks[block_id] = Block(content, self.clock())
            if before is not None:
                self.drop(before.content)

    def uncommitted(self, container: str, blob: str) -> dict[str, Block]:
        """Blocks of a name that nobody has committed, in the order in which they came."""
        with self.lock:
            blocks = self.container(container).blocks.get(blob, {})
            self._forget_old(blocks)
            return dict(blocks)

    def put(self, container: str, name: str, made: Blob) -> None:
        """Have a blob be so from now on; blocks of its name that nobody committed are dropped."""
        with self.lock:
            place = self.container(container)
            before = place.blobs.get(name)
            place.blobs[name] = made
            if before is not None:
                self.drop(before.content)
            for block in place.blocks.pop(name, {}).values():
                self.drop(block.content)

    def extend(self, container: str, name: str, data: bytes) -> None:
        """Add bytes to a blob's end, as a service does with a log.

        Raises:
            Refused: there is no such blob.
        """
        with self.lock:
            blob = self.blob(container, name)
            with (self._folder / blob.content.file).open("ab") as file:
                file.write(data)
            blob.content = Content(blob.content.file, blob.content.size + len(data), "")
            blob.etag, blob.modified = self.new_etag(), self.clock()

    def remove(self, container: str, name: str) -> None:
        """Delete a blob.

        Raises:
            Refused: there is none.
        """
        with self.lock:
            gone = self.blob(container, name)
            del self.container(container).blobs[name]
            self.drop(gone.content)

    def _forget_old(self, blocks: dict[str, Block]) -> None:
        limit = self.clock() - UNCOMMITTED_S
        for block_id in [one for one, block in blocks.items() if block.at < limit]:
            self.drop(blocks.pop(block_id).content)

    def kept(self) -> dict[str, Any]:
        """Everything but bytes."""
        with self.lock:
            containers = {name: asdict(one) for name, one in self.containers.items()}
            return {"keys": self.keys, "stamp": self._stamp, "containers": containers}

    def restore(self, kept: dict[str, Any]) -> None:
        """Become what `kept` told; bytes that nothing names are deleted."""
        self.keys, self._stamp = list(kept["keys"]), kept["stamp"]
        self.containers = {name: _container(one) for name, one in kept["containers"].items()}
        named = {content.file for content in self._contents()}
        for file in self._folder.iterdir():
            if file.name not in named:
                with contextlib.suppress(OSError):
                    os.unlink(file)  # noqa: PTH108 - a path from iterdir

    def _contents(self) -> Iterator[Content]:
        for container in self.containers.values():
            yield from (blob.content for blob in container.blobs.values())
            for blocks in container.blocks.values():
                yield from (block.content for block in blocks.values())


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise Refused(413, "RequestBodyTooLarge", "The request body is too large.")


def _decoded(block_id: str) -> bytes:
    try:
        found = base64.b64decode(block_id, validate=True)
    except ValueError:
        found = b""
    if not 0 < len(found) <= 64:
        raise Refused(
            400,
            "InvalidQueryParameterValue",
            "Value for one of the query parameters specified in the request URI is invalid.",
            detail={"QueryParameterName": "blockid"},
        )
    return found


def _container(kept: dict[str, Any]) -> Container:
    return Container(
        kept["etag"],
        kept["modified"],
        kept["public"],
        {name: Policy(**one) for name, one in kept["policies"].items()},
        kept["metadata"],
        {
            name: Blob(
                **{
                    **one,
                    "content": Content(**one["content"]),
                    "blocks": [(block, size) for block, size in one["blocks"]],
                }
            )
            for name, one in kept["blobs"].items()
        },
        {
            name: {
                block: Block(Content(**one["content"]), one["at"]) for block, one in blocks.items()
            }
            for name, blocks in kept["blocks"].items()
        },
    )
