"""What the parts of the mock's Azure ML share: storage, members of bodies, pages of listings."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from edgefleet.testing.cloud.calls import Refused, Reply

if TYPE_CHECKING:
    from edgefleet_azure.cloud.calls import Call


class Storage(Protocol):
    """The slice of the mock's storage account that Azure ML works with."""

    @property
    def account(self) -> str:
        """Name of the account."""
        ...

    def names(self, container: str, prefix: str) -> list[str]:
        """Names of the blobs below a prefix, sorted."""
        ...

    def read(self, container: str, name: str) -> bytes:
        """A blob's content; `KeyError` when there is none."""
        ...

    def write(self, container: str, name: str, data: bytes) -> None:
        """Put a blob; the container is made if need be."""
        ...

    def append(self, container: str, name: str, data: bytes) -> None:
        """Add to a blob's end; made if need be."""
        ...

    def link(self, container: str, name: str) -> str:
        """An address with a SAS that reads one blob."""
        ...


def missing(what: str) -> Refused:
    """What Azure ML says of things that don't exist."""
    return Refused(404, "UserError", f"{what} was not found.")


def now() -> str:
    """The time as Azure writes it."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def members_of(call: Call) -> dict[str, Any]:
    """``properties`` of a request's body.

    Raises:
        Refused: there are none.
    """
    properties = call.json().get("properties")
    if not isinstance(properties, dict):
        raise Refused(400, "ValidationError", "The request body has no properties.")
    return {key: value for key, value in properties.items() if value is not None}


def page(found: list[dict[str, Any]], call: Call, size: int) -> Reply:
    """A page of a listing; the next one's address carries where it starts."""
    start = int(call.query.get("$skip") or 0)
    body: dict[str, Any] = {"value": found[start : start + size]}
    if start + size < len(found):
        query = {**call.query, "$skip": str(start + size)}
        told = "&".join(f"{key}={value}" for key, value in query.items())
        body["nextLink"] = f"{call.base}{call.path}?{told}"
    return Reply(200, body)
