"""How controllers, scheduler and kubelets use the API server: in process, with its rules.

What is read is not copied: whoever reads an object doesn't change it. Writes are made again where
somebody else wrote in between, and not at all where they would change nothing, as in Kubernetes'
own controllers; a write to an object that is gone, or that the cluster refuses, does nothing but
tell the log, as a controller that will come by again.
"""

from __future__ import annotations

import datetime as dt
import logging
import secrets
from typing import TYPE_CHECKING

from edgefleet_kubernetes.cloud.api_objects import clone, now, place
from edgefleet_kubernetes.cloud.api_status import Refused
from edgefleet_kubernetes.cloud.api_writes import Write

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet_kubernetes.cloud.api_objects import Object
    from edgefleet_kubernetes.cloud.api_store import Store

_log = logging.getLogger(__name__)


class Client:
    """What one component does with the objects of a cluster.

    Args:
        store: of the API server.
        component: the name of the field manager, and of the source of events.
        host: the node that events come from; empty for none.
    """

    def __init__(self, store: Store, component: str, host: str = "") -> None:
        self.store = store
        self._component, self._host = component, host
        self._events: dict[tuple[str, str, str], str] = {}

    def list(self, kind: str) -> list[Object]:
        """All objects of a kind, by namespace and name; not to be changed."""
        with self.store.lock:
            return sorted(self.store.objects(kind).values(), key=place)

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """An object, not to be changed; None where there is none."""
        with self.store.lock:
            return self.store.objects(kind).get((namespace, name))

    def create(self, document: Object) -> Object:
        """Have a new object.

        Raises:
            Refused: it can't be.
        """
        return self.store.create(document, how=self._how())

    def change(
        self, thing: Object, edit: Callable[[Object], None], *, subresource: str = ""
    ) -> Object | None:
        """Change an object as it is now.

        Args:
            thing: as it was read; one that has been made anew since is left alone.
            edit: changes it in place.
            subresource: that is written.

        Returns:
            It as it became; None where it is gone or may not be so.
        """
        namespace, name = place(thing)
        with self.store.lock:
            found = self.get(thing["kind"], namespace, name)
            if found is None or found["metadata"]["uid"] != thing["metadata"]["uid"]:
                return None
            new = clone(found)
            edit(new)
            if new == found:  # each turn of a controller; what is asked and checked takes its time
                return new
            try:
                return self.store.update(new, how=self._how(subresource))
            except Refused as refused:
                _log.info("%s: %s", self._component, refused.message)
                return None

    def set_status(self, thing: Object, **fields: object) -> Object | None:
        """Set fields of an object's status; a field of None goes."""

        def edit(found: Object) -> None:
            status = found.setdefault("status", {})
            for name, value in fields.items():
                if value is None:
                    status.pop(name, None)
                else:
                    status[name] = value

        return self.change(thing, edit, subresource="status")

    def set_condition(self, thing: Object, condition: Object) -> Object | None:
        """Set a condition of an object's status; its transition is now where its status changes."""

        def edit(found: Object) -> None:
            with_condition(found.setdefault("status", {}), condition)

        return self.change(thing, edit, subresource="status")

    def delete(self, thing: Object, *, grace_s: int | None = None) -> None:
        """Delete an object; no error where it is gone."""
        namespace, name = place(thing)
        try:
            self.store.delete(
                thing["kind"],
                name,
                namespace,
                grace_s=grace_s,
                uid=thing["metadata"]["uid"],
                how=self._how(),
            )
        except Refused as refused:
            _log.debug("%s: %s", self._component, refused.message)

    def event(
        self,
        about: Object,
        reason: str,
        message: str,
        *,
        warning: bool = False,
        component: str = "",
        path: str = "",
    ) -> None:
        """Tell what happened to an object; the same again counts up.

        Args:
            about: the object.
            reason: one word.
            message: a sentence.
            warning: whether its type is Warning.
            component: that tells it, where it isn't the client's own.
            path: of the field that it is about.
        """
        meta = about["metadata"]
        key = (str(meta.get("uid")), reason, message)
        namespace = meta.get("namespace") or "default"
        before = self._events.get(key)
        known = None if before is None else self.get("Event", namespace, before)
        if known is not None:

            def again(found: Object) -> None:
                found["count"] = found.get("count", 1) + 1
                found["lastTimestamp"] = now()

            self.change(known, again)
            return
        name = f"{meta['name']}.{secrets.token_hex(8)}"
        involved = {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "name": meta["name"],
            "uid": meta.get("uid", ""),
            **({"namespace": meta["namespace"]} if meta.get("namespace") else {}),
            **({"fieldPath": path} if path else {}),
        }
        source = {
            "component": component or self._component,
            **({"host": self._host} if self._host else {}),
        }
        try:
            self.create(
                {
                    "apiVersion": "v1",
                    "kind": "Event",
                    "metadata": {"name": name, "namespace": namespace},
                    "involvedObject": involved,
                    "reason": reason,
                    "message": message,
                    "type": "Warning" if warning else "Normal",
                    "source": source,
                    "count": 1,
                    "firstTimestamp": now(),
                    "lastTimestamp": now(),
                    "reportingComponent": source["component"],
                    "reportingInstance": self._host,
                }
            )
        except Refused as refused:
            _log.info("event %s: %s", reason, refused.message)
        else:
            self._events[key] = name

    def _how(self, subresource: str = "") -> Write:
        return Write(manager=self._component, subresource=subresource)


def with_condition(status: Object, condition: Object) -> None:
    """Set a condition of a status in place; its transition is now where its status changes."""
    conditions = status.setdefault("conditions", [])
    new = {"lastTransitionTime": now(), **condition}
    for number, found in enumerate(conditions):
        if found["type"] == condition["type"]:
            if found["status"] == condition["status"]:
                new["lastTransitionTime"] = found.get("lastTransitionTime") or now()
            conditions[number] = new
            return
    conditions.append(new)


def age_s(text: str, at: dt.datetime | None = None) -> float:
    """Seconds since a moment that the API wrote."""
    return ((at or dt.datetime.now(dt.UTC)) - dt.datetime.fromisoformat(text)).total_seconds()
