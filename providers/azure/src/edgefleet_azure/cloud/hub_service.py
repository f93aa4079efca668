"""One IoT Hub on a host of the mock cloud: its state, its API, and what of it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from edgefleet.testing.cloud.calls import Reply
from edgefleet_azure.cloud.hub_keeping import kept, restore
from edgefleet_azure.cloud.hub_rest import HubRest, Request
from edgefleet_azure.cloud.hub_state import HubState
from edgefleet_azure.cloud.hub_throttle import Throttle
from edgefleet_azure.cloud.server import Route

if TYPE_CHECKING:
    from edgefleet_azure.cloud.calls import Call

UNITS = 200  # the most that an S1 hub can have


class HubService:
    """A hub, mounted.

    Args:
        units: of the hub, by which its throttles grow.

    Attributes:
        state: identities, twins, deployments.
        throttle: how often it may be asked what.
    """

    def __init__(self, units: int = UNITS) -> None:
        self.state = HubState()
        self.throttle = Throttle(units)
        self.rest = HubRest(self.state, self.throttle)
        self.routes = [
            Route(f"hub.{operation}", method, path.replace("{mid}", "{module}"), self._answer)
            for method, path, operation in self.rest.paths
        ]

    def _answer(self, call: Call) -> Reply:
        request = Request(call.method, quote(call.path), call.query, call.headers, call.body())
        answer = self.rest.answer(request)
        return Reply(answer.status, answer.document, dict(answer.headers))

    def kept(self) -> dict[str, Any]:
        """Devices, twins and deployments, as JSON."""
        return kept(self.state)

    def restore(self, kept: dict[str, Any]) -> None:
        """Go on with what was kept."""
        restore(self.state, kept)
