"""Deletion: finalizers, grace of pods, garbage collection of what owners leave, namespaces.

Everything happens at once, where a cluster's controllers need a moment. See
https://kubernetes.io/docs/concepts/architecture/garbage-collection/ and ``rest.BeforeDelete``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from edgefleet_kubernetes.cloud.api_objects import clone, meta, now, place

if TYPE_CHECKING:
    from edgefleet_kubernetes.cloud.api_kinds import Kind, Kinds
    from edgefleet_kubernetes.cloud.api_objects import Object

FOREGROUND = "foregroundDeletion"
_ENDED = ("Succeeded", "Failed")
Key = tuple[str, str, str]
"""Kind, namespace and name of an object."""


class Holder(Protocol):
    """What holds the objects: the store, with its lock held."""

    kinds: Kinds

    def objects(self, kind: str | Kind) -> dict[tuple[str, str], Object]: ...
    def put(self, kind: Kind, old: Object | None, new: Object) -> Object: ...
    def drop(self, kind: Kind, old: Object) -> Object: ...


class Removal:
    """Ends objects. Call it with the store's lock held.

    Args:
        store: of the objects.
    """

    def __init__(self, store: Holder) -> None:
        self._store = store
        self._owned: dict[str, set[Key]] = {}

    def owners(self, kind: Kind, old: Object | None, new: Object | None) -> None:
        """Note whom an object belongs to."""
        key = (kind.kind, *place(new or old or {}))
        before, after = _owner_ids(old), _owner_ids(new)
        for uid in before - after:
            self._owned.get(uid, set()).discard(key)
        for uid in after - before:
            self._owned.setdefault(uid, set()).add(key)

    def check_owners(self, kind: Kind, made: Object) -> None:
        """Delete an object whose owners are all gone, as the garbage collector does."""
        references = meta(made).get("ownerReferences") or ()
        if references and not any(self._lives(one, place(made)[0]) for one in references):
            self._delete((kind.kind, *place(made)))

    def is_done(self, new: Object) -> bool:
        """Whether an object that is written now has nothing left to wait for."""
        metadata = meta(new)
        return bool(
            metadata.get("deletionTimestamp")
            and not metadata.get("finalizers")
            and not metadata.get("deletionGracePeriodSeconds")
            and new["kind"] != "Namespace"
        )

    def begin(self, kind: Kind, old: Object, grace_s: int | None, propagation: str) -> Object:
        """Delete an object, or mark it for those who must be done with it first."""
        if propagation == "Orphan":
            self._orphan(meta(old)["uid"])
        if kind.kind == "Namespace":
            return self._begin_namespace(kind, old)
        grace = _grace(kind, old, grace_s)
        finalizers = list(meta(old).get("finalizers") or ())
        if propagation == "Foreground" and self._owned.get(meta(old)["uid"]):
            finalizers = [*(one for one in finalizers if one != FOREGROUND), FOREGROUND]
        if grace == 0 and not finalizers:
            return self._store.drop(kind, old)
        marked = self._mark(kind, old, grace, finalizers)
        if FOREGROUND in finalizers:
            for key in sorted(self._owned.get(meta(old)["uid"], ())):
                self._delete(key, "Foreground")
        return marked

    def gone(self, kind: Kind, old: Object) -> None:
        """Look after what an object that is no more leaves behind."""
        self.owners(kind, old, None)
        uid = meta(old)["uid"]
        for key in sorted(self._owned.pop(uid, ())):
            self._lose_owner(key, uid)
        for reference in meta(old).get("ownerReferences") or ():
            self._finish_foreground(reference, place(old)[0])
        namespace = meta(old).get("namespace")
        if namespace:
            self._finish_namespace(namespace)

    # ------------------------------------------------------------------------------------- own

    def _mark(self, kind: Kind, old: Object, grace: int, finalizers: list[str]) -> Object:
        metadata = meta(old)
        earlier = metadata.get("deletionGracePeriodSeconds")
        there = metadata.get("deletionTimestamp")
        if there and (earlier or 0) <= grace and finalizers == (metadata.get("finalizers") or []):
            return old
        new = clone(old)
        new["metadata"]["deletionGracePeriodSeconds"] = grace
        at = datetime.now(UTC) + timedelta(seconds=grace)
        new["metadata"]["deletionTimestamp"] = at.strftime("%Y-%m-%dT%H:%M:%SZ")
        if finalizers:
            new["metadata"]["finalizers"] = finalizers
        if "generation" in metadata:
            new["metadata"]["generation"] = metadata["generation"] + 1
        return self._store.put(kind, old, new)

    def _delete(self, key: Key, propagation: str = "Background") -> None:
        kind, namespace, name = key
        found = self._store.objects(kind).get((namespace, name))
        if found is not None:
            self.begin(self._store.kinds.named(kind), found, None, propagation)

    def _orphan(self, uid: str) -> None:
        for key in sorted(self._owned.pop(uid, ())):
            self._without_owner(key, uid)

    def _without_owner(self, key: Key, uid: str) -> Object | None:
        kind, namespace, name = key
        found = self._store.objects(kind).get((namespace, name))
        if found is None:
            return None
        new = clone(found)
        left = [one for one in new["metadata"]["ownerReferences"] if one["uid"] != uid]
        new["metadata"]["ownerReferences"] = left
        if not left:
            del new["metadata"]["ownerReferences"]
        return self._store.put(self._store.kinds.named(kind), found, new)

    def _lose_owner(self, key: Key, uid: str) -> None:
        kind, namespace, name = key
        found = self._store.objects(kind).get((namespace, name))
        if found is None:
            return
        others = [one for one in meta(found)["ownerReferences"] if one["uid"] != uid]
        if any(self._lives(one, namespace) for one in others):
            self._without_owner(key, uid)
        else:
            self._delete(key)

    def _lives(self, reference: dict[str, Any], namespace: str) -> bool:
        found = self._owner(reference, namespace)
        return found is not None and meta(found)["uid"] == reference["uid"]

    def _owner(self, reference: dict[str, Any], namespace: str) -> Object | None:
        try:
            kind = self._store.kinds.named(reference["kind"])
        except Exception:  # noqa: BLE001 - a kind that there isn't has no objects
            return None
        where = namespace if kind.namespaced else ""
        return self._store.objects(kind).get((where, reference["name"]))

    def _finish_foreground(self, reference: dict[str, Any], namespace: str) -> None:
        owner = self._owner(reference, namespace)
        if owner is None or FOREGROUND not in (meta(owner).get("finalizers") or ()):
            return
        if self._owned.get(meta(owner)["uid"]):
            return
        kind = self._store.kinds.named(owner["kind"])
        new = clone(owner)
        new["metadata"]["finalizers"].remove(FOREGROUND)
        if self.is_done(new):
            self._store.drop(kind, owner)
        else:
            self._store.put(kind, owner, new)

    # ------------------------------------------------------------------------------ namespaces

    def _begin_namespace(self, kind: Kind, old: Object) -> Object:
        name = meta(old)["name"]
        if not meta(old).get("deletionTimestamp"):
            new = clone(old)
            new["metadata"]["deletionTimestamp"] = now()
            new["status"] = {**new.get("status", {}), "phase": "Terminating"}
            old = self._store.put(kind, old, new)
            for one in self._store.kinds:
                if one.namespaced:
                    for key in sorted(self._store.objects(one)):
                        if key[0] == name:
                            self._delete((one.kind, *key))
        self._finish_namespace(name)
        return old

    def _finish_namespace(self, name: str) -> None:
        found = self._store.objects("Namespace").get(("", name))
        if found is None or not meta(found).get("deletionTimestamp"):
            return
        for kind in self._store.kinds:
            if kind.namespaced and any(key[0] == name for key in self._store.objects(kind)):
                return
        self._store.drop(self._store.kinds.named("Namespace"), found)


def _owner_ids(document: Object | None) -> set[str]:
    return {one["uid"] for one in meta(document or {}).get("ownerReferences") or ()}


def _grace(kind: Kind, old: Object, grace_s: int | None) -> int:
    """How long an object has to end, in seconds; only pods that a kubelet has need any."""
    spec = old.get("spec") or {}
    if kind.kind != "Pod" or not spec.get("nodeName"):
        return 0
    if (old.get("status") or {}).get("phase") in _ENDED:
        return 0
    if grace_s is not None:
        return grace_s
    there = meta(old).get("deletionGracePeriodSeconds")
    return int(spec.get("terminationGracePeriodSeconds", 30) if there is None else there)
