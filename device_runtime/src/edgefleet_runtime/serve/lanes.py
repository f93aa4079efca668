"""The lanes of all models, with the threads they share: one way for the requests of all protocols.

The servers of a process share it, so that requests queue together however they came. Used on the
event loop's thread that those servers run on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from edgefleet_runtime.serve.door import Door
from edgefleet_runtime.serve.lane import Lane

if TYPE_CHECKING:
    from collections.abc import Hashable

    from edgefleet_runtime.serve.messages import Pending
    from edgefleet_runtime.serve.plan import Plan
    from edgefleet_runtime.serve.table import ModelTable, ServedModel
    from edgefleet_runtime.serve.ticket import Ticket

A = TypeVar("A")

_MAX_KEYS = 256


class Lanes(Door):
    """The lanes of a process's servers; arguments as of `Door`."""

    def __init__(self, table: ModelTable, **shared: Any) -> None:  # noqa: ANN401 - the door's
        super().__init__(table, **shared)
        self._lanes: dict[ServedModel, Lane] = {}
        self._keys: dict[Hashable, Hashable] = {}

    def lane(self, served: ServedModel) -> Lane:
        """The lane of a model."""
        lane = self._lanes.get(served)
        if lane is None:
            # One that is loaded and doesn't serve may come back: what is known of it stays.
            self._lanes = {m: lane for m, lane in self._lanes.items() if not m.retired}
            lane = self._lanes[served] = Lane(served, self)
        return lane

    def take(self, ticket: Ticket[A], served: ServedModel, *, light: bool) -> Pending[A] | A:
        """Read a request and answer it, now or later.

        Args:
            ticket: as it came.
            served: what it asks for.
            light: whether reading it is short to other connections.
        """
        lane = self.lane(served)
        if not light:
            return lane.read(ticket)
        try:
            ticket.read(served)
        except Exception as error:  # noqa: BLE001 - an answer is due, whatever failed
            return lane.refuse(ticket, error)
        return lane.submit(ticket)

    def intern(self, plan: Plan[Any]) -> None:
        """Make equal keys of plans that are kept one object, which is quicker to compare."""
        if len(self._keys) >= _MAX_KEYS:
            self._keys.clear()
        plan.key = self._keys.setdefault(plan.key, plan.key)
