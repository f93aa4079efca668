"""What tells people and monitors about the gateway itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.requests import Request

    from edgefleet_gateway.server.gateway import Gateway


async def health(gateway: Gateway, _request: Request) -> Response:
    """200 as long as polls are answered, even from what is held: no reason to restart it."""
    away = gateway.mirror.away_since
    facts = {
        "status": "ok" if away is None else "degraded",
        "state_away_s": None if away is None else round(gateway.clock() - away, 1),
        "connections": gateway.connections(),
    }
    return Response(
        msgspec.json.encode(facts),
        media_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


async def metrics(gateway: Gateway, _request: Request) -> Response:
    """Figures for Prometheus."""
    return gateway.figures.answer()


async def openapi(gateway: Gateway, _request: Request) -> Response:
    """The OpenAPI document."""
    return Response(gateway.described, media_type="application/json")
