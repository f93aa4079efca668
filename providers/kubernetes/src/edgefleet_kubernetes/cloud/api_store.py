"""The objects of a cluster, and the rules of reading and writing them, in process.

The API server answers from it over HTTPS; controllers, scheduler and kubelet use it directly, with
the same rules. Objects are plain dicts; whoever gets one gets a copy.

Rules kept here (see apiserver's ``registry/generic/registry/store.go``):

- Every change has a new resource version; a write that changes nothing has none.
- A write that names a resource version or uid which isn't the object's is a conflict.
- Name, namespace, uid and creation can't change; status changes through its subresource only.
- An object that is being deleted stays until its finalizers, and a pod's kubelet, are done.
"""

from __future__ import annotations

import threading
import uuid
from typing import TYPE_CHECKING, Any

from edgefleet_kubernetes.cloud.api_checks import check
from edgefleet_kubernetes.cloud.api_defaults import fill
from edgefleet_kubernetes.cloud.api_fields import owned_after
from edgefleet_kubernetes.cloud.api_kinds import Kinds, kind_of_definition
from edgefleet_kubernetes.cloud.api_objects import (
    clone,
    field_selector,
    generated,
    label_selector,
    meta,
    now,
    place,
)
from edgefleet_kubernetes.cloud.api_patch import patched
from edgefleet_kubernetes.cloud.api_removal import Removal
from edgefleet_kubernetes.cloud.api_schema import newest, schemas
from edgefleet_kubernetes.cloud.api_status import (
    already_exists,
    bad_request,
    conflict,
    forbidden,
    invalid,
    not_found,
)
from edgefleet_kubernetes.cloud.api_watch import History, Watch
from edgefleet_kubernetes.cloud.api_writes import (
    REMOVING,
    Asked,
    Write,
    carry_over,
    content,
    precondition,
    received,
    replace_managed,
    same,
)

Managed = list[dict[str, Any]]
Objects = list[dict[str, Any]]

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet_kubernetes.cloud.api_kinds import Kind
    from edgefleet_kubernetes.cloud.api_objects import Object

    Admission = list[Callable[[Asked], None]]
    Told = list[Callable[[Kind, Object | None, Object | None], None]]

PLAIN = Write()
HISTORY = 10_000
"""Changes that can still be watched from; etcd keeps five minutes of them."""


class Store:
    """All objects of one cluster. Safe to share between threads.

    Args:
        version: of Kubernetes, such as ``1.31``; None for the newest there are schemas of.
        history: how many changes can be watched from.

    Attributes:
        kinds: of objects that there are.
        lock: held while something is written; hold it to do several things as one.
        admission: each is asked about a write before it is done, raises `Refused` to refuse it,
            and may change the object.
        on_write: told of every change, with the lock held: kind, before, after.
    """

    def __init__(self, *, version: str | None = None, history: int = HISTORY) -> None:
        self.schemas = schemas(version or newest())
        self.kinds = Kinds()
        self.lock = threading.RLock()
        self.admission: Admission = []
        self.on_write: Told = []
        self._history = History(history, self.lock)
        self._objects: dict[str, dict[tuple[str, str], Object]] = {}
        self._removal = Removal(self)

    # ------------------------------------------------------------------------------- reading

    @property
    def version(self) -> str:
        """Resource version of the last change."""
        return str(self._history.version)

    def get(self, kind: str | Kind, name: str, namespace: str = "") -> Object:
        """An object.

        Raises:
            Refused: there is none of that name (404), or no such kind.
        """
        return clone(self._found(self.kinds.named(kind), namespace, name))

    def find(self, kind: str | Kind, name: str, namespace: str = "") -> Object | None:
        """An object; None where there is none of that name."""
        found = self._of(self.kinds.named(kind)).get((namespace, name))
        return None if found is None else clone(found)

    def list(
        self, kind: str | Kind, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> Objects:
        """Objects, sorted by namespace and name.

        Args:
            kind: of them.
            namespace: empty for all.
            labels: a selector, such as ``app=x,tier in (a,b)``; empty for all.
            fields: a selector, such as ``spec.nodeName=cam-1``; empty for all.
        """
        return self.listed(kind, namespace, labels=labels, fields=fields)[0]

    def listed(
        self, kind: str | Kind, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> tuple[Objects, str]:
        """Objects as `list` gives them, and the resource version that they are of."""
        fits = _fits(namespace, labels, fields)
        with self.lock:
            found = [one for one in self._of(self.kinds.named(kind)).values() if fits(one)]
            version = self.version
        return [clone(one) for one in sorted(found, key=place)], version

    def watch(
        self,
        kind: str | Kind,
        namespace: str = "",
        *,
        since: str | None = None,
        labels: str = "",
        fields: str = "",
    ) -> Watch:
        """Changes of objects as they come.

        Args:
            kind: of them.
            namespace: empty for all.
            since: resource version after which changes are wanted; None for what there is, each as
                ``ADDED``, and all changes after.
            labels: a selector of labels.
            fields: a selector of fields.

        Raises:
            Refused: what came after the version is no longer known (410).
        """
        found, fits = self.kinds.named(kind), _fits(namespace, labels, fields)
        with self.lock:
            after = None if since is None else int(since)
            return self._history.watch(found.kind, fits, after, list(self._of(found).values()))

    def forget(self) -> None:
        """Have no history, as after a compaction: who watches from the past gets 410."""
        with self.lock:
            self._history.forget()

    def close(self) -> None:
        """End every watch."""
        with self.lock:
            self._history.close()

    # ------------------------------------------------------------------------------- writing

    def create(self, document: Object, *, namespace: str = "", how: Write = PLAIN) -> Object:
        """Have a new object.

        Args:
            document: with ``apiVersion`` and ``kind``; it is left as it is.
            namespace: that it must be in; empty for the one it names.
            how: to write it.

        Raises:
            Refused: it exists, is invalid or isn't admitted.
        """
        kind = self.kinds.of(document)
        with self.lock:
            new = received(self.schemas, kind, clone(document), namespace, how)
            metadata = new["metadata"]
            for name in ("uid", "creationTimestamp", "generation", "managedFields", *REMOVING):
                metadata.pop(name, None)
            if metadata.pop("resourceVersion", None):
                raise bad_request("resourceVersion should not be set on objects to be created")
            if kind.status and not how.subresource:
                new.pop("status", None)
            return self._create(kind, new, how)

    def update(self, document: Object, *, namespace: str = "", how: Write = PLAIN) -> Object:
        """Replace an object.

        Args:
            document: whole; where it has a resource version, the object must have it too.
            namespace: that it must be in; empty for the one it names.
            how: to write it.

        Raises:
            Refused: there is none (404), it was changed (409), or it may not be so.
        """
        kind = self.kinds.of(document)
        with self.lock:
            new = received(self.schemas, kind, clone(document), namespace, how)
            old = self._found(kind, *place(new))
            return self._replace(kind, old, new, how)

    def patch(
        self,
        kind: str | Kind,
        name: str,
        patch: Any,  # noqa: ANN401 - JSON
        namespace: str = "",
        *,
        type: str = "merge",  # noqa: A002 - Kubernetes' word
        how: Write = PLAIN,
    ) -> Object:
        """Change an object.

        Args:
            kind: of it.
            name: of it.
            patch: the change.
            namespace: of it.
            type: ``merge`` (RFC 7396), ``json`` (RFC 6902), ``strategic`` or ``apply``
                (server-side; makes the object where there is none).
            how: to write it.

        Raises:
            Refused: as `update`; with ``apply``, when others own what would change (409).
        """
        found = self.kinds.named(kind)
        with self.lock:
            old = self._of(found).get((namespace, name))
            if old is None and (type != "apply" or how.subresource):
                raise not_found(found, name)
            new, managed = patched(
                self.schemas, found, clone(old), clone(patch), type=type, how=how
            )
            new = received(self.schemas, found, new, namespace, how, name=name)
            if old is None:
                return self._create(found, new, how, managed=managed)
            return self._replace(found, old, new, how, managed=managed)

    def delete(
        self,
        kind: str | Kind,
        name: str,
        namespace: str = "",
        *,
        grace_s: int | None = None,
        propagation: str = "Background",
        uid: str = "",
        version: str = "",
        how: Write = PLAIN,
    ) -> Object:
        """Delete an object, or mark it for those who must be done with it first.

        Args:
            kind: of it.
            name: of it.
            namespace: of it.
            grace_s: how long a pod has to end; None for what the pod says.
            propagation: what becomes of what it owns: ``Background``, ``Foreground``, ``Orphan``.
            uid: that it must have; empty for any.
            version: that it must have; empty for any.
            how: to do it.

        Returns:
            It as it was last.

        Raises:
            Refused: there is none (404), or it is another (409).
        """
        found = self.kinds.named(kind)
        with self.lock:
            old = self._found(found, namespace, name)
            if uid and uid != meta(old)["uid"]:
                raise conflict(found, name, precondition("UID", uid, meta(old)["uid"]))
            if version and version != meta(old)["resourceVersion"]:
                told = precondition("ResourceVersion", version, meta(old)["resourceVersion"])
                raise conflict(found, name, told)
            self.admit(Asked("DELETE", found, namespace, name, None, clone(old), how))
            if how.dry_run:
                return clone(old)
            return clone(self._removal.begin(found, old, grace_s, propagation))

    def admit(self, asked: Asked) -> None:
        """Ask all of `admission`.

        Raises:
            Refused: one of them says no.
        """
        for ask in self.admission:
            ask(asked)

    # ------------------------------------------------------------------ for those who are below

    def objects(self, kind: str | Kind) -> dict[tuple[str, str], Object]:
        """Objects as they are kept, not to be changed, by namespace and name; hold `lock`."""
        return self._of(self.kinds.named(kind))

    def put(self, kind: Kind, old: Object | None, new: Object) -> Object:
        """Keep an object with the next version; hold `lock`."""
        self._history.version += 1
        new["metadata"]["resourceVersion"] = self.version
        self._of(kind)[place(new)] = new
        self._removal.owners(kind, old, new)
        self._history.add(kind.kind, old, new)
        if kind.kind == "CustomResourceDefinition":
            self.kinds.add(kind_of_definition(new))
        for told in tuple(self.on_write):
            told(kind, old, new)
        return new

    def drop(self, kind: Kind, old: Object) -> Object:
        """Keep an object no longer; hold `lock`."""
        self._history.version += 1
        last = {**old, "metadata": {**old["metadata"], "resourceVersion": self.version}}
        del self._of(kind)[place(old)]
        self._history.add(kind.kind, old, None, last)
        if kind.kind == "CustomResourceDefinition":
            self.kinds.remove(kind_of_definition(old).kind)
        for told in tuple(self.on_write):
            told(kind, old, None)
        self._removal.gone(kind, old)
        return last

    # -------------------------------------------------------------------------------- keeping

    def kept(self) -> Any:  # noqa: ANN401 - JSON
        """All objects, and the version."""
        with self.lock:
            kept = {kind: list(found.values()) for kind, found in self._objects.items() if found}
            return {"version": self._history.version, "objects": clone(kept)}

    def restore(self, kept: Any) -> None:  # noqa: ANN401 - JSON
        """Have the objects that `kept` told; who watched before must list again."""
        with self.lock:
            self._objects = {}
            first = kept["objects"].get("CustomResourceDefinition", ())
            for document in first:
                self.kinds.add(kind_of_definition(document))
            for name, documents in kept["objects"].items():
                kind = self.kinds.named(name)
                for document in documents:
                    self._of(kind)[place(document)] = document
                    self._removal.owners(kind, None, document)
            self._history.restart(kept["version"])

    # ------------------------------------------------------------------------------------ own

    def _of(self, kind: Kind) -> dict[tuple[str, str], Object]:
        return self._objects.setdefault(kind.kind, {})

    def _found(self, kind: Kind, namespace: str, name: str) -> Object:
        found = self._of(kind).get((namespace if kind.namespaced else "", name))
        if found is None:
            raise not_found(kind, name)
        return found

    def _create(
        self, kind: Kind, new: Object, how: Write, *, managed: Managed | None = None
    ) -> Object:
        metadata = new["metadata"]
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = generated(metadata["generateName"])
        namespace, name = place(new)
        self._check_namespace(kind, namespace, name)
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = now()
        if kind.spec:
            metadata["generation"] = 1
        self._admit_and_check(kind, "CREATE", None, new, how)
        if (namespace, name) in self._of(kind):
            raise already_exists(kind, name)
        metadata["managedFields"] = (
            managed if managed is not None else self._owned(kind, None, new, how)
        )
        if how.dry_run:
            return new
        made = self.put(kind, None, new)
        self._removal.check_owners(kind, made)
        return clone(made)

    def _replace(
        self,
        kind: Kind,
        old: Object,
        new: Object,
        how: Write,
        *,
        managed: Managed | None = None,
    ) -> Object:
        name = meta(old)["name"]
        carry_over(kind, old, new, how)
        self._admit_and_check(kind, "UPDATE", old, new, how)
        if kind.spec and content(old) != content(new):
            new["metadata"]["generation"] = meta(old).get("generation", 0) + 1
        given = new["metadata"].pop("managedFields", None)
        fresh = managed
        if fresh is None:
            base = replace_managed(old, given)
            fresh = self._owned(kind, base, new, how)
        new["metadata"]["managedFields"] = fresh
        if same(old, new):
            return clone(old)
        if how.dry_run:
            return new
        if self._removal.is_done(new):
            self._of(kind)[place(old)] = new
            return clone(self.drop(kind, new))
        if name != meta(new)["name"]:
            raise bad_request("the name of the object does not match the name on the URL")
        return clone(self.put(kind, old, new))

    def _admit_and_check(
        self, kind: Kind, operation: str, old: Object | None, new: Object, how: Write
    ) -> None:
        fill(kind, new)
        namespace, name = place(new)
        self.admit(
            Asked(operation, kind, namespace, name, new, None if old is None else clone(old), how)
        )
        wrong = self.schemas.wrong(kind, new)
        wrong = wrong or check(kind, old, new)
        if wrong:
            raise invalid(kind, name, wrong)

    def _owned(self, kind: Kind, old: Object | None, new: Object, how: Write) -> Managed:
        return owned_after(
            self.schemas, kind, old=old, new=new, manager=how.by, subresource=how.subresource
        )

    def _check_namespace(self, kind: Kind, namespace: str, name: str) -> None:
        if not kind.namespaced:
            return
        home = self._found(self.kinds.named("Namespace"), "", namespace)
        if meta(home).get("deletionTimestamp"):
            told = f"unable to create new content in namespace {namespace} because it is being"
            raise forbidden(kind, name, f"{told} terminated")


def _fits(namespace: str, labels: str, fields: str) -> Callable[[Any], bool]:
    tests: list[Callable[[Any], bool]] = []
    if namespace:
        tests.append(lambda one: meta(one).get("namespace") == namespace)
    if labels:
        tests.append(label_selector(labels))
    if fields:
        tests.append(field_selector(fields))
    return lambda one: all(test(one) for test in tests)
