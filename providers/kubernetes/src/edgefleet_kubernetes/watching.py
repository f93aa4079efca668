"""Watching objects of a cluster without missing a change, however often the connection breaks.

Rules kept here (https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes):

- What there is comes first, then each change after that resource version.
- A watch that ends goes on from the last version that it told of. Where the server no longer knows
  what came since (410), all is listed anew and compared: what differs is told as a change.
- While the server is away it is asked again, with pauses that grow.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import httpx2
from lightkube import ApiError

from edgefleet_kubernetes.errors import reason_of
from edgefleet_kubernetes.retries import backoff_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from edgefleet_kubernetes.clients import Clients

PAGE = 500
WATCH_S = 240  # a watch is asked anew after so long
QUIET_S = WATCH_S + 30.0  # one on which nothing comes for so long, its end neither, is dead
_GONE = ("Expired", "Gone")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Change:
    """What became of an object.

    Attributes:
        type: ``ADDED``, ``MODIFIED`` or ``DELETED``.
        object: after it; what it was last, for one that was deleted.
    """

    type: str
    object: dict[str, Any]


class Watching:
    """Changes of the objects at an address, from now on; iterate it.

    Args:
        clients: to reach the cluster with.
        path: of the objects, such as ``api/v1/namespaces/edgefleet/pods``.
        query: selectors.
        context: of the kubeconfig; None for the first of the profile's.
        wait: waits so many seconds before the server is asked again.
    """

    def __init__(
        self,
        clients: Clients,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        context: str | None = None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clients, self._path, self._context, self._wait = clients, path, context, wait
        self._query = dict(query or {})
        self._known: dict[str, dict[str, Any]] = {}
        self._version = ""

    def __iter__(self) -> Iterator[Change]:
        """Every change; ends only when whoever iterates does, or the server refuses for good.

        Raises:
            lightkube.ApiError: the API server says no, and would again.
        """
        tries = 0
        while True:
            before = self._version
            tries += 1
            try:
                if not self._version:
                    yield from self._listed()
                yield from self._watched()
                tries = 1  # it ended in its time
            except httpx2.TransportError as error:
                _log.debug("watch of %s broke: %s", self._path, error)
            except ApiError as error:
                if reason_of(error) in _GONE:
                    self._version = ""
                elif (error.status.code or 500) < 500 and error.status.code != 429:
                    raise
            if self._version != before:
                tries = 0
            else:
                self._wait(backoff_s(tries))

    def _listed(self) -> Iterator[Change]:
        """List all, and tell what differs from what was known."""
        query = {**self._query, "limit": str(PAGE)}
        found: dict[str, dict[str, Any]] = {}
        while True:
            page = self._clients.call("GET", self._path, query=query, context=self._context)
            found |= {one["metadata"]["uid"]: one for one in page["items"]}
            query["continue"] = page["metadata"].get("continue") or ""
            if not query["continue"]:
                break
        before, self._known = self._known, found
        for uid, one in before.items():
            if uid not in found:
                yield Change("DELETED", one)
        for uid, one in found.items():
            if uid not in before:
                yield Change("ADDED", one)
            elif _version_of(before[uid]) != _version_of(one):
                yield Change("MODIFIED", one)
        self._version = page["metadata"]["resourceVersion"]

    def _watched(self) -> Iterator[Change]:
        query = {
            **self._query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(WATCH_S),
        }
        stream = self._clients.stream(
            self._path, query=query, context=self._context, quiet_s=QUIET_S
        )
        with stream as lines:
            for line in lines:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise _refused(event["object"])
                version = _version_of(event["object"])
                if event["type"] != "BOOKMARK":
                    yield from self._told(Change(event["type"], event["object"]))
                self._version = version

    def _told(self, change: Change) -> Iterator[Change]:
        uid = change.object["metadata"]["uid"]
        if change.type == "DELETED":
            self._known.pop(uid, None)
        else:
            self._known[uid] = change.object
        yield change


def _version_of(found: Mapping[str, Any]) -> str:
    return str(found["metadata"]["resourceVersion"])


def _refused(status: dict[str, Any]) -> ApiError:
    from lightkube.models.meta_v1 import Status  # noqa: PLC0415 - slow to import

    return ApiError(status=cast("Status", Status.from_dict(status)))
