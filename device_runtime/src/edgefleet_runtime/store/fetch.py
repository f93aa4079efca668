"""Fetching: which bytes are missing, and how to get them from several sources that may fail.

Rules kept here:

- What is here isn't fetched; what is here in part is continued.
- Sources are asked in order. One that lacks a blob, gives wrong bytes or refuses access is not
  asked for it again; one that is unreachable or busy is, after a pause that doubles, with jitter,
  and one that says when to come back not before then.
- When nobody is left to ask, fetching stops: a blob that is nowhere never becomes a loop.
- Several blobs come at once, within one limit of bandwidth; the first that fails ends the others.
- Only the store decides that bytes are a blob.
"""

from __future__ import annotations

import logging
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec

from edgefleet.errors import (
    AccessDeniedError,
    CancelledError,
    EdgeFleetError,
    IntegrityError,
    NotFoundError,
    ThrottledError,
    UnavailableError,
)
from edgefleet.protocol.digest import CHUNK_BYTES
from edgefleet_runtime.faults import point
from edgefleet_runtime.retry import LONGEST_ASKED_S, pauses

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from edgefleet_runtime.store.bandwidth import Bandwidth
    from edgefleet_runtime.store.blobs import BlobStore
    from edgefleet_runtime.store.sources import Source

_log = logging.getLogger(__name__)

LONGEST_PAUSE_S = 30.0
WORKERS = 4  # blobs at once: enough to fill a link over the pauses of single connections
SLICE_S = 0.5  # after which a pause sees that another blob failed
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
        pause: waits for so many seconds; may return early. Any thread calls it.
        check: called for each chunk and after each pause; raises to stop the fetch. What was
            fetched so far stays and is continued next time. Any thread calls it.
        jitter: source of chance for the pauses.
        tries: rounds over the sources before `UnavailableError` reaches the caller.
        workers: most blobs on their way at once.
        bandwidth: the limit that all of them share; None for none.
    """

    def __init__(
        self,
        store: BlobStore,
        *,
        pause: Callable[[float], object],
        check: Callable[[], None] = lambda: None,
        jitter: random.Random | None = None,
        tries: int = TRIES,
        workers: int = WORKERS,
        bandwidth: Bandwidth | None = None,
    ) -> None:
        self.bytes_fetched = 0
        self._store = store
        self._pause = pause
        self._check = check
        self._jitter = jitter or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._tries = tries
        self._workers = workers
        self._bandwidth = bandwidth
        self._counting = threading.Lock()

    @property
    def _chunk_bytes(self) -> int:
        limit = self._bandwidth
        return CHUNK_BYTES if limit is None else min(CHUNK_BYTES, limit.chunk_bytes)

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
        if len(decided.missing) == 1 or self._workers == 1:
            for item in decided.missing:
                self._fetch_one(item, sources, _Turn(self._pause, self._check))
        elif decided.missing:
            self._fetch_together(decided.missing, sources)

    def _fetch_together(self, wants: Sequence[Want], sources: Sequence[Source]) -> None:
        turn, errors = _SharedTurn(self._pause, self._check), list[BaseException]()

        def fetch(want: Want) -> None:
            try:
                turn.check()
                self._fetch_one(want, sources, turn)
            except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
                errors.append(error)
                turn.stop.set()

        count = min(self._workers, len(wants))
        with ThreadPoolExecutor(count, thread_name_prefix="fetch") as pool:
            for want in wants:
                pool.submit(fetch, want)
        if errors:
            raise errors[0]  # those after it only say that it came

    def _fetch_one(self, want: Want, sources: Sequence[Source], turn: _Turn) -> None:
        hopeful, failures = list(sources), dict[str, EdgeFleetError]()
        asked: dict[str, float] = {}  # seconds that busy sources asked us to wait, from now
        for tries, pause in enumerate(pauses(self._jitter, longest_s=LONGEST_PAUSE_S), 1):
            for source in [s for s in hopeful if not asked.get(s.address)]:
                turn.check()
                try:
                    self._continue(want, source, turn)
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
                        asked[source.address] = min(error.retry_after_s or 0.0, LONGEST_ASKED_S)
                else:
                    return
            if not hopeful or tries >= self._tries:
                raise _verdict(want, failures)
            rest = max(pause, min(asked.get(source.address, 0.0) for source in hopeful))
            turn.pause(rest)
            asked = {address: max(0.0, left - rest) for address, left in asked.items()}
            turn.check()

    def _continue(self, want: Want, source: Source, turn: _Turn) -> None:
        """Fetch a blob from one source, going on from what is here."""
        if self._store.partial_bytes(want.digest):
            try:
                self._transfer(want, source, turn)
            except IntegrityError:
                # A power cut may have spoilt what was here: give the source the benefit of a doubt.
                _log.info("%s: what was fetched earlier is damaged; starting again", want.name)
            else:
                return
        self._transfer(want, source, turn)

    def _transfer(self, want: Want, source: Source, turn: _Turn) -> None:
        point("fetch.before")
        with self._store.partial(want.digest) as partial:
            if partial.offset > want.max_bytes:
                partial.reset()
            if not (want.exact and partial.offset == want.max_bytes):
                with source.open(want.digest, partial.offset) as stream:
                    if stream.start != partial.offset:
                        partial.reset()
                    while chunk := stream.read(self._chunk_bytes):
                        if partial.offset + len(chunk) > want.max_bytes:
                            partial.reset()
                            raise IntegrityError(
                                f"blob {want.digest} is longer than {want.max_bytes} bytes"
                            )
                        partial.write(chunk)
                        with self._counting:
                            self.bytes_fetched += len(chunk)
                        if self._bandwidth is not None:
                            turn.pause(self._bandwidth.spend(len(chunk)))
                        turn.check()
            point("fetch.complete")
            partial.commit()


class _Turn:
    """How one fetch pauses, and how it learns that it must end."""

    def __init__(self, pause: Callable[[float], object], check: Callable[[], None]) -> None:
        self._pause = pause
        self._check = check

    def pause(self, seconds: float) -> None:
        if seconds > 0:
            self._pause(seconds)

    def check(self) -> None:
        self._check()


class _SharedTurn(_Turn):
    """The same for blobs that come together: one that fails ends the others soon."""

    def __init__(self, pause: Callable[[float], object], check: Callable[[], None]) -> None:
        super().__init__(pause, check)
        self.stop = threading.Event()

    def pause(self, seconds: float) -> None:
        while seconds > 0 and not self.stop.is_set():
            self._pause(min(seconds, SLICE_S))
            seconds -= SLICE_S

    def check(self) -> None:
        if self.stop.is_set():
            raise CancelledError("another blob of the release could not be fetched")
        super().check()


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
