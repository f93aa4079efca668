"""edgeHub's routes: which messages go to IoT Hub, how soon, and how long they wait. Pure.

Rules kept here, each in ``mock_rules.md``:

- ``FROM <source> [WHERE <condition>] INTO <sink>``; of sinks only ``$upstream`` is carried out
  here, and no condition is.
- A message that no route takes is dropped.
- Priority 0 goes first, 9 last, and a route without one after all of them; of equal ones the oldest
  first.
- A route's ``timeToLiveSecs`` stands in place of the hub's own, which is 7,200 s.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TIME_TO_LIVE_S = 7200.0
LAST = 2_000_000_000
_ROUTE = re.compile(
    r"\s*FROM\s+(?P<source>\S+)(\s+WHERE\s+(?P<where>.+?))?\s+INTO\s+(?P<sink>.+?)\s*",
    re.IGNORECASE,
)


class Route(NamedTuple):
    """One route into ``$upstream``.

    Attributes:
        source: pattern of ``/messages/modules/…``.
        priority: 0 first.
        time_to_live_s: how long a message waits for the network.
    """

    source: str
    priority: int
    time_to_live_s: float

    def takes(self, module: str, output: str) -> bool:
        """Whether it takes a module's messages of an output; "" for messages without one."""
        path = f"/messages/modules/{module}" + (f"/outputs/{output}" if output else "")
        wanted = self.source if self.source.startswith("/messages") else f"/messages{self.source}"
        if wanted.endswith("/*"):
            return f"{path}/".casefold().startswith(wanted[:-1].casefold())
        return path.casefold() == wanted.casefold()


def routes_of(desired: Mapping[str, Any]) -> tuple[Route, ...]:
    """The routes that edgeHub's desired properties hold.

    Raises:
        ValueError: one is not to be understood, or not carried out here.
    """
    settings = desired.get("storeAndForwardConfiguration") or {}
    ttl = float(settings.get("timeToLiveSecs", TIME_TO_LIVE_S))
    found = []
    for name, value in (desired.get("routes") or {}).items():
        given = {"route": value} if isinstance(value, str) else value
        said = _ROUTE.fullmatch(given["route"])
        if said is None:
            raise ValueError(f"route {name!r} makes no sense: {given['route']!r}")
        if said["where"] or said["sink"] != "$upstream":
            raise ValueError(f"route {name!r}: conditions and other sinks are not carried out here")
        own = given.get("timeToLiveSecs")
        # 0 stands for the hub's own: edgeHub's RouteSpec at 1.5.
        found.append(Route(said["source"], int(given.get("priority", LAST)), float(own or ttl)))
    return tuple(found)


def route_for(routes: Iterable[Route], module: str, output: str) -> Route | None:
    """The route with the highest priority that takes a message; None drops it."""
    return min(
        (route for route in routes if route.takes(module, output)),
        key=lambda route: route.priority,
        default=None,
    )
