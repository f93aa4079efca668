"""Reading over HTTP: lists in pages, watches as streams, metadata alone."""

from __future__ import annotations

import json
import secrets
import select
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from edgefleet_kubernetes.cloud.api_status import Refused, bad_request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet_kubernetes.cloud.api_calls import ApiCall, Target
    from edgefleet_kubernetes.cloud.api_objects import Object
    from edgefleet_kubernetes.cloud.api_store import Store
    from edgefleet_kubernetes.cloud.api_watch import Watch

    Objects = list[Object]

MOST_PAGES = 64
"""Lists that are half read; of more, the oldest can't be gone on with."""
BOOKMARK_S = 60.0
LONGEST_WATCH_S = 1800.0  # apiserver's ``--min-request-timeout``
_LOOK_S = 0.5  # how often a watch looks whether its client is still there


class Reading:
    """Answers reads from a store.

    Args:
        store: of objects.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pages: OrderedDict[str, tuple[Objects, str]] = OrderedDict()
        self._watches: set[Watch] = set()

    def list(self, call: ApiCall, target: Target) -> dict[str, Any]:
        """A list, or a page of it.

        Raises:
            Refused: a parameter is wrong, or the rest of the list is no longer known (410).
        """
        token, limit = call.query.get("continue", ""), int(call.query.get("limit") or 0)
        if token:
            try:
                items, version = self._pages.pop(token)
            except KeyError:
                told = (
                    "The provided continue parameter is too old to display a consistent list "
                    "result. You can start a new list without the continue parameter."
                )
                raise Refused(410, "Expired", told) from None
        else:
            items, version = self._store.listed(target.kind, target.namespace, **_selectors(call))
        metadata: dict[str, Any] = {"resourceVersion": version}
        if limit and len(items) > limit:
            metadata["continue"] = self._keep_page(items[limit:], version)
            metadata["remainingItemCount"] = len(items) - limit
            items = items[:limit]
        kind = target.kind
        if _metadata_only(call):
            return {
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
                "items": [_partial(one) for one in items],
            }
        return {
            "kind": f"{kind.kind}List",
            "apiVersion": kind.api_version,
            "metadata": metadata,
            "items": items,
        }

    def watch(self, call: ApiCall, target: Target) -> Iterator[bytes]:
        """Changes, a line each, until the time is over or the client goes.

        Raises:
            Refused: a parameter is wrong.
        """
        if call.flag("sendInitialEvents"):
            told = "sendInitialEvents is forbidden for watch unless the WatchList feature gate is"
            raise Refused(422, "Invalid", f"{told} enabled")
        since = call.query.get("resourceVersion") or None
        if since is not None and not since.isdecimal():
            raise bad_request(f'resourceVersion: Invalid value: "{since}"')
        selectors = _selectors(call)
        return self._stream(call, target, None if since == "0" else since, selectors)

    @property
    def watching(self) -> int:
        """How many watches stand that came over HTTP."""
        return len(self._watches)

    def end_watches(self) -> None:
        """End every watch that came over HTTP."""
        for watch in tuple(self._watches):
            watch.close()

    def forget(self) -> None:
        """Know nothing of the past: neither of lists half read nor of changes."""
        self._pages.clear()
        self._store.forget()

    # ------------------------------------------------------------------------------------ own

    def _keep_page(self, items: Objects, version: str) -> str:
        token = secrets.token_urlsafe(16)
        self._pages[token] = (items, version)
        while len(self._pages) > MOST_PAGES:
            self._pages.popitem(last=False)
        return token

    def _stream(
        self, call: ApiCall, target: Target, since: str | None, selectors: dict[str, str]
    ) -> Iterator[bytes]:
        yield b""  # the answer's head leaves before anything happened
        try:
            watch = self._store.watch(target.kind, target.namespace, since=since, **selectors)
        except Refused as refused:
            # As apiserver's watch cache does: an event, once the request itself was right.
            yield _line("ERROR", refused.document)
            return
        self._watches.add(watch)
        try:
            yield from self._changes(call, target, watch)
        finally:
            self._watches.discard(watch)
            watch.close()

    def _changes(self, call: ApiCall, target: Target, watch: Watch) -> Iterator[bytes]:
        began = time.monotonic()
        longest = float(call.query.get("timeoutSeconds") or LONGEST_WATCH_S)
        marks, marked = call.flag("allowWatchBookmarks"), began
        partial = _metadata_only(call)
        while (now := time.monotonic()) < began + longest:
            version = self._store.version
            change = watch.next(min(_LOOK_S, BOOKMARK_S, began + longest - now))
            if change is not None:
                shown = _partial(change.object) if partial else change.object
                yield _line(change.type, shown)
            elif watch.closed or _is_gone(call):
                return
            elif marks and now - marked >= BOOKMARK_S:
                marked = now
                yield _line(
                    "BOOKMARK",
                    {
                        "kind": target.kind.kind,
                        "apiVersion": target.kind.api_version,
                        "metadata": {"resourceVersion": version, "creationTimestamp": None},
                    },
                )


def _line(type_: str, document: Object) -> bytes:
    return json.dumps({"type": type_, "object": document}).encode() + b"\n"


def _selectors(call: ApiCall) -> dict[str, str]:
    query = call.query
    return {"labels": query.get("labelSelector", ""), "fields": query.get("fieldSelector", "")}


def _metadata_only(call: ApiCall) -> bool:
    return "as=PartialObjectMetadata" in call.headers.get("accept", "")


def _partial(document: Object) -> Object:
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": document["metadata"],
    }


def _is_gone(call: ApiCall) -> bool:
    """Whether whoever watches hung up: they send nothing while they watch."""
    connection = call.environ.get("werkzeug.socket")
    if connection is None or connection.fileno() < 0:
        return connection is not None
    return bool(select.select([connection], [], [], 0)[0])
