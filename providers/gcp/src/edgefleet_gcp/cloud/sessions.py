"""Resumable uploads of the mock: what has arrived, and the rules of each chunk.

https://cloud.google.com/storage/docs/performing-resumable-uploads. A session's address is all that
its requests need, no token; it is good for a week.
"""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from edgefleet.testing.cloud.calls import Refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

QUANTUM = 256 << 10  # bytes; chunks are multiples of it, but the last
GOOD_S = 7 * 86_400
_RANGE = re.compile(r"bytes (?:\*|(\d+)-(\d+))/(\*|\d+)")


@dataclass
class Session:
    """One upload.

    Attributes:
        id: that its address has.
        bucket: of the object.
        name: of the object.
        kind: media type of the object.
        metadata: of the object, as the request that began it said.
        wanted: preconditions.
        email: of whoever began it.
        ends: when it is over, in seconds of the epoch.
        total: bytes of the whole; None while that wasn't said.
        arrived: bytes that have.
    """

    id: str
    bucket: str
    name: str
    kind: str
    metadata: dict[str, Any]
    wanted: dict[str, int]
    email: str
    ends: float
    total: int | None = None
    arrived: int = 0


class Sessions:
    """All uploads that are under way.

    Args:
        folder: for what has arrived.
        clock: gives the time, in seconds of the epoch.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._clock = folder, clock
        self._sessions: dict[str, Session] = {}

    def begin(
        self,
        bucket: str,
        name: str,
        *,
        kind: str,
        metadata: dict[str, Any],
        wanted: dict[str, int],
        email: str,
    ) -> Session:
        """A new upload of which nothing has arrived."""
        ends = self._clock() + GOOD_S
        session = Session(
            secrets.token_urlsafe(32), bucket, name, kind, metadata, wanted, email, ends
        )
        self._sessions[session.id] = session
        self._path(session).write_bytes(b"")
        return session

    def get(self, identifier: str) -> Session:
        """An upload.

        Raises:
            Refused: there is none, or it is over.
        """
        session = self._sessions.get(identifier)
        if session is None:
            raise Refused(404, "notFound", "The upload session was not found.")
        if session.ends <= self._clock():
            self.end(session)
            raise Refused(410, "gone", "The upload session is over.")
        return session

    def take(self, session: Session, told: str, data: bytes) -> bytes | None:
        """Take a chunk.

        Args:
            session: that it is sent to.
            told: its ``Content-Range``; empty for the whole in one.
            data: its bytes.

        Returns:
            The whole, when it has arrived; None before.

        Raises:
            Refused: the chunk breaks a rule.
        """
        if not told:
            return data
        found = _RANGE.fullmatch(told)
        if found is None:
            raise _wrong(f"Failed to parse Content-Range header: {told!r}")
        self._check_total(session, found[3])
        if found[1] is None:
            if data:
                raise _wrong("A request for the status has no body.")
            return self.whole(session)
        first, last = int(found[1]), int(found[2])
        if last - first + 1 != len(data):
            raise _wrong("Content-Range and the length of the body differ.")
        if first > session.arrived:
            raise _wrong(f"Bytes {session.arrived} to {first - 1} are missing.")
        is_last = session.total is not None and last + 1 >= session.total
        if not is_last and len(data) % QUANTUM:
            raise _wrong(
                f"Invalid request. There were {len(data)} byte(s) in the request body. There "
                f"should have been a multiple of {QUANTUM} bytes."
            )
        new = data[session.arrived - first :]  # what is there already is passed over
        with self._path(session).open("ab") as stream:
            stream.write(new)
        session.arrived += len(new)
        return self.whole(session)

    def whole(self, session: Session) -> bytes | None:
        """All bytes, when they have arrived."""
        if session.total is None or session.arrived < session.total:
            return None
        return self._path(session).read_bytes()

    def end(self, session: Session) -> None:
        """Have an upload be over; what has arrived is dropped."""
        self._sessions.pop(session.id, None)
        self._path(session).unlink(missing_ok=True)

    def __len__(self) -> int:
        """How many are under way."""
        return len(self._sessions)

    @staticmethod
    def _check_total(session: Session, said: str) -> None:
        if said == "*":
            return
        if session.total is not None and session.total != int(said):
            raise _wrong(f"The size was {session.total} bytes, and is {said} now.")
        session.total = int(said)

    def _path(self, session: Session) -> Path:
        return self._folder / session.id

    def kept(self) -> list[dict[str, Any]]:
        """Uploads as JSON has them."""
        return [asdict(session) for session in self._sessions.values()]

    def restore(self, kept: list[dict[str, Any]]) -> None:
        """Become what `kept` told."""
        self._sessions = {told["id"]: Session(**told) for told in kept}


def _wrong(message: str) -> Refused:
    return Refused(400, "invalid", message)
