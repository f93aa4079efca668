"""Requests of operators to devices, as documents that a gateway hands on.

The request and its answer are documents of their own; the bell tells gateways that one waits.
Whoever asked takes all three away, also when no answer came in time. What somebody left who was
killed, and what came too late for whoever asked, the next who asks for something sweeps away.
"""

from __future__ import annotations

import logging
import time
import uuid
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from edgefleet.errors import (
    EdgeFleetError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    UnavailableError,
)
from edgefleet.interfaces.requests import reply_of
from edgefleet.protocol.documents import decode, encode
from edgefleet.protocol.gateway import MAX_ANSWER_BYTES, WaitingRequest
from edgefleet_gateway.records import AnswerRecord, Bell, Keys, RequestRecord
from edgefleet_gateway.roster import Roster, delete, utc_now

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.interfaces.abilities import Reply
    from edgefleet.interfaces.state import StateStore

MAX_BODY_BYTES = MAX_ANSWER_BYTES  # in base64 below what a state document holds
MAX_WAITING = 32  # requests to one device at once; its runtime takes no more
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 0.5  # between two looks for an answer
LEFT_S = 600.0  # what is older than this after its end was left behind
_log = logging.getLogger(__name__)


class Requests:
    """Carries requests to devices and answers back.

    Args:
        roster: of the fleet.
        state: gives the profile's state store.
        keys: where its documents lie.
        clock: tells the time.
    """

    def __init__(
        self,
        roster: Roster,
        state: Callable[[], StateStore],
        keys: Keys,
        *,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._roster, self._state, self._keys, self._clock = roster, state, keys, clock
        self._swept: datetime | None = None

    def ask(
        self,
        device: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        timeout_s: float,
        *,
        why_silent: Callable[[str], EdgeFleetError],
    ) -> Reply:
        """Carry one exchange to a device.

        Args:
            device: its name.
            path: what is asked for.
            body: a POST with these bytes; None for a GET.
            headers: of the request.
            timeout_s: how long to wait for the answer, in seconds.
            why_silent: gives what to raise when none came.

        Raises:
            NotFoundError: no such device.
            UnavailableError: it doesn't answer, or was told to sync no more.
            LimitExceededError: the request is too large, or too many wait.
        """
        if not path.startswith("/"):
            raise InvalidInputError(f"a path on a device begins with a slash: {path[:200]!r}")
        if body is not None and len(body) > MAX_BODY_BYTES:
            raise LimitExceededError(
                f"a request of {len(body)} bytes is over the limit of {MAX_BODY_BYTES}",
                cure="send fewer rows at once, or ask the device's own endpoint from beside it",
            )
        record = self._roster.find(device)
        if record is None:
            raise NotFoundError(
                f"no device {device!r}", cure="list the devices with: edgefleet devices"
            )
        if record.revoked:
            raise why_silent(device)
        request = WaitingRequest(id=uuid.uuid4().hex, path=path, headers=headers, body=body)
        deadline = time.monotonic() + timeout_s
        ends = self._clock() + timedelta(seconds=timeout_s)
        data = encode(RequestRecord(request=request, ends=ends))
        self._state().write(self._keys.request(device, request.id), data, expect=None)
        try:
            self._roster.change_bell(lambda bell: _with(bell, device, request.id))
            answer = self._await(self._keys.answer(device, request.id), deadline)
        finally:
            self._take_away(device, request.id)
        if answer is None:
            raise why_silent(device)
        return reply_of(device, answer.answer)

    def _await(self, key: str, deadline: float) -> AnswerRecord | None:
        """The answer; None when it didn't come in time."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                stored = self._state().read(key)
            except UnavailableError as error:  # for a moment, or for longer than we wait
                if time.monotonic() >= deadline:
                    raise
                _log.debug("no look for an answer: %s", error)
                stored = None
            if stored is not None:
                return decode(AnswerRecord, stored.data)
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return None
            time.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _take_away(self, device: str, request: str) -> None:
        """Leave nothing of a request; what can't be deleted now is swept away later."""
        try:
            self._roster.change_bell(lambda bell: _without(bell, {request}))
            delete(self._state(), self._keys.request(device, request))
            delete(self._state(), self._keys.answer(device, request))
            self._sweep()
        except EdgeFleetError as error:
            _log.warning("left request %s to %s behind: %s", request, device, error.message)

    def _sweep(self) -> None:
        """Delete what others left behind, now and then."""
        now = self._clock()
        if self._swept is not None and now - self._swept < timedelta(seconds=LEFT_S):
            return
        self._swept = now
        state, long = self._state(), timedelta(seconds=LEFT_S)
        waiting: set[str] = set()
        for key in list(state.keys(self._keys.requests)):
            stored = state.read(key)
            if stored is None:
                continue
            record = decode(RequestRecord, stored.data)
            if now - record.ends > long:
                delete(state, key)
            else:
                waiting.add(record.request.id)
        for key in list(state.keys(self._keys.answers)):
            stored = state.read(key)
            if stored is not None and now - decode(AnswerRecord, stored.data).came > long:
                delete(state, key)
        self._sweep_bell(waiting)

    def _sweep_bell(self, waiting: set[str]) -> None:
        gone = {
            one
            for device, ids in self._roster.bell().waiting.items()
            for one in ids
            # One that was asked since the documents were listed has one all the same.
            if one not in waiting and self._state().read(self._keys.request(device, one)) is None
        }
        if gone:
            self._roster.change_bell(lambda bell: _without(bell, gone))


def _with(bell: Bell, device: str, request: str) -> Bell:
    """The bell when one more request waits."""
    there = bell.waiting.get(device, ())
    if len(there) >= MAX_WAITING:
        raise LimitExceededError(
            f"{len(there)} requests wait for {device!r} already", cure="repeat the call later"
        )
    waiting = {**bell.waiting, device: (*there, request)}
    return msgspec.structs.replace(bell, number=bell.number + 1, waiting=waiting)


def _without(bell: Bell, requests: set[str]) -> Bell:
    """The bell when some requests wait no longer."""
    left = {
        device: tuple(one for one in ids if one not in requests)
        for device, ids in bell.waiting.items()
    }
    waiting = {device: ids for device, ids in left.items() if ids}
    if waiting == bell.waiting:
        return bell
    return msgspec.structs.replace(bell, number=bell.number + 1, waiting=waiting)
