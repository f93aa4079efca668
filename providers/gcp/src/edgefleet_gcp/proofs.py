"""Proves permissions by asking Google which of them the identity in use has.

``testIamPermissions`` changes nothing and needs no permission itself. It answers for a bucket, a
topic or a subscription as a whole: a permission under a condition on objects' names shows as
missing there (https://cloud.google.com/iam/docs/testing-permissions).
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from edgefleet.errors import (
    AccessDeniedError,
    NotFoundError,
)
from edgefleet.interfaces.abilities import Proof
from edgefleet_gcp.clients import pubsub_url, storage_url
from edgefleet_gcp.errors import translate
from edgefleet_gcp.permissions import BUCKET, OPERATOR, SUBSCRIPTION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet_gcp.clients import Clients
    from edgefleet_gcp.settings import GcpSettings


def prove(clients: Clients, settings: GcpSettings, parts: tuple[str, ...]) -> Iterator[Proof]:
    """Ask what parts need, a place at a time.

    Args:
        clients: to reach Google Cloud with.
        settings: of the fleet.
        parts: names in `OPERATOR`.
    """
    for part in parts:
        for place, permissions in OPERATOR[part].items():
            yield from _proved(clients, settings, part, place, permissions)


def _proved(
    clients: Clients, settings: GcpSettings, part: str, place: str, permissions: tuple[str, ...]
) -> Iterator[Proof]:
    name = {BUCKET: settings.bucket, SUBSCRIPTION: settings.subscription}
    if name.get(place) is None:
        for permission in permissions:
            yield Proof(part, permission, tried=False, problem="the profile names none")
        return
    try:
        held = _held(clients, place, str(name[place]), permissions)
    except Exception as error:
        meant = translate(error)
        if not isinstance(meant, AccessDeniedError | NotFoundError):
            raise
        for permission in permissions:
            yield Proof(part, permission, problem=str(meant))
        return
    for permission in permissions:
        problem = None if permission in held else f"not allowed on {place} {name[place]}"
        yield Proof(part, permission, problem=problem)


def _held(clients: Clients, place: str, name: str, permissions: tuple[str, ...]) -> set[str]:
    if place == BUCKET:
        query = urlencode([("permissions", one) for one in permissions])
        url = f"{storage_url()}/storage/v1/b/{quote(name, safe='')}/iam/testPermissions?{query}"
        found = clients.asked(lambda: clients.call("GET", url))
    else:
        path = f"projects/{clients.project}/{place}s/{quote(name, safe='')}"
        url = f"{pubsub_url()}/v1/{path}:testIamPermissions"
        wanted = {"permissions": [*permissions]}
        found = clients.asked(lambda: clients.call("POST", url, json=wanted))
    return set(found.get("permissions", ()))
