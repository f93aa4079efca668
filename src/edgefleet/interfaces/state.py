"""StateStore: small shared documents with compare-and-swap.

Everything that two operators could write
at once lives here: the fleet's identity, its counter, each group's record.
"""

from __future__ import annotations

import random
import time
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, final

import msgspec

from edgefleet.errors import ConflictError, InvalidInputError, LimitExceededError
from edgefleet.interfaces.service import Service
from edgefleet.protocol.names import check_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_BYTES = 512 << 10  # bytes of one document; a Kubernetes object holds 1 MiB, encoded as text
MAX_TRIES = 50  # of a contended update before it gives up


class Stored(msgspec.Struct, frozen=True):
    """A document as read: its bytes and the tag that a conditional write names."""

    data: bytes
    tag: str


class StateStore(Service):
    """Documents by key, read and written whole, changed only by compare-and-swap."""

    role: ClassVar[str] = "state"
    longest_pause_s: ClassVar[float] = 0.0
    """Longest pause between tries of an update, in seconds: about what a read and a write take."""

    @final
    def read(self, key: str) -> Stored | None:
        """The document, or None when there is none."""
        check_path(key, what="state key")
        with self._boundary("read"):
            return self._read(key)

    @final
    def write(self, key: str, data: bytes, *, expect: str | None) -> str:
        """Write a document if nobody changed it since it was read.

        Args:
            key: a relative path.
            data: at most `MAX_BYTES`.
            expect: the tag it was read with; None when it must not exist yet.

        Returns:
            The new tag.

        Raises:
            ConflictError: it exists, is gone, or has another tag.
        """
        check_path(key, what="state key")
        if len(data) > MAX_BYTES:
            msg = f"state document {key!r} takes {len(data)} bytes, {MAX_BYTES} are allowed"
            raise LimitExceededError(msg)
        with self._boundary("write"):
            return self._write(key, data, expect)

    @final
    def delete(self, key: str, *, expect: str) -> None:
        """Delete a document if nobody changed it since it was read.

        Raises:
            ConflictError: it is gone or has another tag.
        """
        check_path(key, what="state key")
        with self._boundary("delete"):
            self._delete(key, expect)

    @final
    def keys(self, prefix: str) -> Iterator[str]:
        """Keys below a prefix that ends in ``/``, in sorted order."""
        if not prefix.endswith("/"):
            msg = f"a prefix of state keys ends in a slash: {prefix!r}"
            raise InvalidInputError(msg)
        check_path(prefix[:-1], what="state prefix")
        return self._bounded("keys", lambda: self._keys(prefix))

    @final
    def update(self, key: str, change: Callable[[bytes | None], bytes]) -> bytes:
        """Read, change and write back until nobody else came in between.

        Args:
            key: the document.
            change: called with its bytes, or None; may be called several times.

        Returns:
            What was written, or what was there when ``change`` gave it back unchanged.

        Raises:
            ConflictError: others kept winning, `MAX_TRIES` times.
        """
        for _ in range(MAX_TRIES):
            stored = self.read(key)
            before = None if stored is None else stored.data
            after = change(before)
            if after == before:
                return after
            try:
                self.write(key, after, expect=None if stored is None else stored.tag)
            except ConflictError:
                time.sleep(random.random() * self.longest_pause_s)  # noqa: S311 - spreads retries
                continue
            return after
        msg = f"state document {key!r} changed {MAX_TRIES} times while it was being updated"
        raise ConflictError(msg, cure="repeat the call when fewer operators are at work")

    def _conflict(self, key: str, what: str) -> ConflictError:
        """What a refused condition means; ``what`` says what became of the document."""
        return ConflictError(f"state document {key!r} {what}", cure="read it again and repeat")

    @abstractmethod
    def _read(self, key: str) -> Stored | None: ...

    @abstractmethod
    def _write(self, key: str, data: bytes, expect: str | None) -> str: ...

    @abstractmethod
    def _delete(self, key: str, expect: str) -> None: ...

    @abstractmethod
    def _keys(self, prefix: str) -> Iterator[str]: ...
