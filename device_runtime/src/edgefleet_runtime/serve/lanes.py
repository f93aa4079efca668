"""Finds the lane and the plan of requests that are like one answered before."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from edgefleet_runtime.serve.lane import Lane
from edgefleet_runtime.serve.plan import plan_of
from edgefleet_runtime.serve.runs import Ticket

if TYPE_CHECKING:
    from edgefleet.protocol.inference import InferRequest
    from edgefleet_runtime.serve.messages import Pending, Prepared, Request, Response
    from edgefleet_runtime.serve.runs import Door
    from edgefleet_runtime.serve.table import ServedModel

INLINE_RUN_US = 1000.0  # µs; five times a hand-over, and still short to other connections
INLINE_BODY_BYTES = 256 * 1024  # parsing more takes as long as a run that isn't short
MAX_HEADER_BYTES = 4096  # of JSON headers that are remembered


class Memo(NamedTuple):
    """What the head of an inference request says."""

    name: str
    version: str | None
    header_length: int


class Lanes:
    """The lanes of a server; used on its event loop's thread."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._lanes: dict[ServedModel, Lane] = {}

    def lane(self, served: ServedModel) -> Lane | None:
        """The lane of a model, if a request to it has been planned."""
        return self._lanes.get(served)

    def take(self, request: Request, memo: Memo) -> Pending | Prepared | Response | None:
        """Take in a request that is like one answered before; None when it isn't like any.

        Raises:
            NotFoundError: the model is not served.
        """
        began = time.perf_counter()
        served = self._door.table.get(memo.name, memo.version)
        lane = self._lanes.get(served)
        if lane is None:
            return None
        body = request.body
        plan = lane.plans.get(body[: memo.header_length])
        if plan is None or plan.body_bytes != len(body):
            return None
        run_us = served.recent_p50_us
        inline = run_us is not None and run_us < INLINE_RUN_US and len(body) <= INLINE_BODY_BYTES
        return lane.submit(Ticket(plan, request, memo.version, began), inline=inline)

    def learn(
        self, served: ServedModel, asked: InferRequest, body: bytes, header_length: int
    ) -> None:
        """Remember how a request was answered, for the next one like it.

        Args:
            served: what answered it.
            asked: the request, decoded.
            body: what it was decoded from.
            header_length: of its JSON header.
        """
        if header_length > MAX_HEADER_BYTES:
            return
        plan = plan_of(asked, body, header_length, served.model.interface)
        if plan is None:
            return
        lane = self._lanes.get(served)
        if lane is None:
            present = set(map(id, self._door.table))
            self._lanes = {m: lane for m, lane in self._lanes.items() if id(m) in present}
            lane = self._lanes[served] = Lane(served, self._door)
        lane.learn(body[:header_length], plan)
        if plan.rows:
            lane.consider(plan.arrays(body), plan.wanted)
