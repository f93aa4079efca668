"""Fetching: which bytes are missing, and how to get them from several sources that may fail.

Rules kept here:

- What is here isn't fetched; what is here in part is continued.
- Sources are asked in order. One that lacks a blob, gives wrong bytes or refuses access is not
  asked for it again; one that is unreachable or busy is, after a pause that doubles, with jitter.
- When nobody is left to ask, fetching stops: a blob that is nowhere never becomes a loop.
- Only the store decides that bytes are a blob.
"""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING

import msgspec

from edgefleet.errors import (
    AccessDeniedError,
    EdgeFleetError,
    IntegrityError,
    NotFoundError,
    ThrottledError,
    UnavailableError,
)
from edgefleet.protocol.digest import CHUNK_BYTES
from edgefleet_runtime.faults import point
from edgefleet_runtime.retry import pauses

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from edgefleet_runtime.store.blobs import BlobStore
    from edgefleet_runtime.store.sources import Source

_log = logging.getLogger(__name__)

LONGEST_PAUSE_S = 30.0
TRIES = 6  # rounds over the sources, about half a minute, before the caller is told


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """A blob that is needed.

    Attributes:
        digest: what it hashes to.
        name: what it is, for people: a file of a variant, a release, ….
        max_bytes: its size where it is known, else the most it may have.
        exact: whether ``max_bytes`` is its size.
    """

    digest: str
    name: str
    max_bytes: int
    exact: bool = True


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What has to come over the network. ``bytes`` is the most it can be."""

    missing: tuple[Want, ...]
    bytes: int


def plan(
    have: Collection[str], want: Iterable[Want], *, begun: Callable[[str], int] = lambda _: 0
) -> Plan:
    """Decide which blobs to fetch and how many bytes that costs.

    Args:
        have: digests in the store.
        want: what is needed; each digest is fetched once.
        begun: bytes of a blob that are here in part.
    """
    missing = {item.digest: item for item in want if item.digest not in have}
    cost = sum(max(0, item.max_bytes - begun(item.digest)) for item in missing.values())
    return Plan(missing=tuple(missing.values()), bytes=cost)


class Fetcher:
    """Fills a store from sources.

    Args:
        store: where blobs go.
        pause: waits for so many seconds; may return early.
        check: called for each chunk and after each pause; raises to stop the fetch. What was
            fetched so far stays and is continued next time.
        jitter: source of chance for the pauses.
        tries: rounds over the sources before `UnavailableError` reaches the caller.
    """

    def __init__(
        self,
        store: BlobStore,
        *,
        pause: Callable[[float], object],
        check: Callable[[], None] = lambda: None,
        jitter: random.Random | None = None,
        tries: int = TRIES,
    ) -> None:
        self.bytes_fetched = 0
        self._store = store
        self._pause = pause
        self._check = check
        self._jitter = jitter or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._tries = tries

    def plan(self, want: Iterable[Want]) -> Plan:
        """Decide what is missing from the store; see the function of the same name."""
        return plan(self._store.have(), want, begun=self._store.partial_bytes)

    def fetch(self, want: Iterable[Want], sources: Sequence[Source]) -> None:
        """Get everything into the store that is not there yet.

        Raises:
            NotFoundError: a blob is at none of the sources.
            IntegrityError: those that have it give other content.
            AccessDeniedError: those that may have it refuse.
            UnavailableError: they could not be reached in all tries.
            StorageFullError: no room.
        """
        decided = self.plan(want)
        exact = sum(item.max_bytes for item in decided.missing if item.exact)
        begun = sum(self._store.partial_bytes(item.digest) for item in decided.missing)
        self._store.make_room(max(0, exact - begun))
        for item in decided.missing:
            self._fetch_one(item, sources)

    def _fetch_one(self, want: Want, sources: Sequence[Source]) -> None:
        hopeful, failures = list(sources), dict[str, EdgeFleetError]()
        for tries, pause in enumerate(pauses(self._jitter, longest_s=LONGEST_PAUSE_S), 1):
            asked = 0.0  # seconds that a busy source asked us to wait
            for source in tuple(hopeful):
                self._check()
                try:
                    self._continue(want, source)
                except (
                    UnavailableError,
                    NotFoundError,
                    AccessDeniedError,
                    IntegrityError,
                ) as error:
                    _log.info("%s from %s: %s", want.name, source.address, error.message)
                    failures[source.address] = error
                    if not (isinstance(error, UnavailableError) and error.retryable):
                        hopeful.remove(source)
                    if isinstance(error, ThrottledError):
                        asked = max(asked, error.retry_after_s or 0.0)
                else:
                    return
            if not hopeful or tries >= self._tries:
                raise _verdict(want, failures)
            self._pause(max(pause, min(asked, LONGEST_PAUSE_S)))
            self._check()

    def _continue(self, want: Want, source: Source) -> None:
        """Fetch a blob from one source, going on from what is here."""
        if self._store.partial_bytes(want.digest):
            try:
                self._transfer(want, source)
            except IntegrityError:
                # A power cut may have spoilt what was here: give the source the benefit of a doubt.
                _log.info("%s: what was fetched earlier is damaged; starting again", want.name)
            else:
                return
        self._transfer(want, source)

    def _transfer(self, want: Want, source: Source) -> None:
        point("fetch.before")
        with self._store.partial(want.digest) as partial:
            if partial.offset > want.max_bytes:
                partial.reset()
            if not (want.exact and partial.offset == want.max_bytes):
                with source.open(want.digest, partial.offset) as stream:
                    if stream.start != partial.offset:
                        partial.reset()
                    while chunk := stream.read(CHUNK_BYTES):
                        if partial.offset + len(chunk) > want.max_bytes:
                            partial.reset()
                            raise IntegrityError(
                                f"blob {want.digest} is longer than {want.max_bytes} bytes"
                            )
                        partial.write(chunk)
                        self.bytes_fetched += len(chunk)
                        self._check()
            point("fetch.complete")
            partial.commit()


def _verdict(want: Want, failures: dict[str, EdgeFleetError]) -> EdgeFleetError:
    """One error for all sources: the most hopeful one, with what each of them said."""
    order = (AccessDeniedError, UnavailableError, IntegrityError, NotFoundError)
    for kind in order:
        worst = [error for error in failures.values() if isinstance(error, kind)]
        if worst:
            break
    else:
        return UnavailableError(f"{want.name}: there is no source to fetch it from")
    said = "; ".join(f"{address}: {error.message}" for address, error in failures.items())
    cures = {
        NotFoundError: "push the model again, then deploy it again",
        IntegrityError: "push the model again: what lies at the source is damaged",
    }
    error = worst[0]
    cure = error.cure or cures.get(type(error))
    return type(error)(f"cannot fetch {want.name}: {said}", cure=cure, retryable=error.retryable)
