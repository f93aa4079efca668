"""A stored object as a stream that survives lost connections."""

from __future__ import annotations

import io
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Protocol

from edgefleet.errors import EdgeFleetError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _typeshed import WriteableBuffer

MAX_LOSSES = 5  # of the connection in a row, with no byte between


class Body(Protocol):
    """What an object's bytes come from."""

    def read(self, size: int, /) -> bytes: ...
    def close(self) -> object: ...


class Pieces:
    """An answer's body, as it comes, as a `Body`.

    Args:
        pieces: of it.
        close: ends the answer.
    """

    def __init__(self, pieces: Iterator[bytes], close: Callable[[], object]) -> None:
        self._pieces, self._close = pieces, close
        self._left = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""
        if not self._left:
            self._left = memoryview(next(self._pieces, b""))
        given = bytes(self._left[:size])
        self._left = self._left[size:]
        return given

    def close(self) -> object:
        """End the answer."""
        return self._close()


class ResumingStream(io.RawIOBase):
    """An object's bytes from an offset on. Where the connection is lost it goes on, at that byte.

    Args:
        offset: first byte to read; the object's size for none.

    Raises:
        Exception: when made: what `_fetch` raises.
        UnavailableError: while reading: the connection was lost too often.
        IntegrityError: while reading: the object was replaced by another one.
    """

    store: ClassVar[str]
    """What the connection leads to, for people."""
    lost: ClassVar[tuple[type[Exception], ...]]
    """Errors that mean a lost connection."""

    def __init__(self, offset: int) -> None:
        super().__init__()
        self._next = offset
        self._tag: str | None = None
        self._body: Body | None = None
        self._connect()

    @abstractmethod
    def _fetch(self, offset: int, tag: str | None) -> tuple[Body, str | None]:
        """The object's bytes from an offset on, and its tag.

        Args:
            offset: first byte; at the end of the object there are none.
            tag: that the object must have still; None at first.

        Raises:
            IntegrityError: it has another tag.
        """

    @abstractmethod
    def _is_refusal(self, error: Exception) -> bool:
        """Whether one of the errors in `lost` is an answer of the store after all."""

    @abstractmethod
    def _meaning(self, error: Exception) -> EdgeFleetError | None:
        """The error of ours that the store's answer means."""

    def _connect(self) -> Body:
        self._body, self._tag = self._fetch(self._next, self._tag)
        return self._body

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        losses = 0
        while True:
            try:
                data = (self._body or self._connect()).read(len(view))
            except EdgeFleetError:
                raise
            except Exception as error:
                if not isinstance(error, self.lost) or self._is_refusal(error):
                    raise self._meaning(error) or UnavailableError(str(error)) from error
                losses += 1
                self._drop()
                if losses >= MAX_LOSSES:
                    raise UnavailableError(
                        f"the connection to {self.store} was lost {losses} times in a row: {error}",
                        cure="check the network, then repeat the call",
                    ) from error
            else:
                view[: len(data)] = data
                self._next += len(data)
                return len(data)

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
        self._body = None

    def close(self) -> None:
        self._drop()
        super().close()
