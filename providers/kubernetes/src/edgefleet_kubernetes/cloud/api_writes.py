"""Writing an object: what a caller says of it, and what of that counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgefleet_kubernetes.cloud.api_objects import clone, meta
from edgefleet_kubernetes.cloud.api_status import (
    bad_request,
    conflict,
    forbidden,
    invalid,
    required,
)
from edgefleet_kubernetes.cloud.api_users import SYSTEM, User

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet_kubernetes.cloud.api_kinds import Kind
    from edgefleet_kubernetes.cloud.api_objects import Object
    from edgefleet_kubernetes.cloud.api_schema import Schemas

REMOVING = ("deletionTimestamp", "deletionGracePeriodSeconds")
"""Members of metadata that only a deletion sets."""
_KEPT = ("name", "namespace", "uid", "creationTimestamp", "generateName", "selfLink")


@dataclass(frozen=True)
class Write:
    """How something is written.

    Attributes:
        user: who writes.
        manager: name of the field manager; empty for one of the user's name.
        subresource: such as ``status``; empty for the object itself.
        dry_run: go through all checks, and keep nothing.
        force: take over fields that others own, in server-side apply.
        fields: what becomes of unknown ones: ``Strict`` refuses, ``Warn`` and ``Ignore`` drop.
        warn: told of what was dropped.
    """

    user: User = SYSTEM
    manager: str = ""
    subresource: str = ""
    dry_run: bool = False
    force: bool = False
    fields: str = "Strict"
    warn: Callable[[str], None] = lambda _warning: None

    @property
    def by(self) -> str:
        """The field manager."""
        return self.manager or self.user.name


@dataclass(frozen=True)
class Asked:
    """What admission looks at.

    Attributes:
        operation: ``CREATE``, ``UPDATE`` or ``DELETE``.
        kind: of the object.
        namespace: empty for an object of the whole cluster.
        name: of it.
        object: as it would be; None when it is deleted.
        old: as it is; None when it is created.
        how: it is written.
    """

    operation: str
    kind: Kind
    namespace: str
    name: str
    object: Object | None
    old: Object | None
    how: Write


def received(
    schemas: Schemas, kind: Kind, new: Object, namespace: str, how: Write, *, name: str = ""
) -> Object:
    """An object that came, with its place checked and unknown fields dealt with."""
    if not isinstance(new.get("metadata"), dict):
        new["metadata"] = {}
    metadata = new["metadata"]
    if name and metadata.setdefault("name", name) != name:
        told = f"the name of the object ({metadata['name']}) does not match the name on the"
        raise bad_request(f"{told} URL ({name})")
    given = metadata.get("namespace") or ""
    if not kind.namespaced:
        metadata.pop("namespace", None)
    elif namespace and given and given != namespace:
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    else:
        metadata["namespace"] = given or namespace or "default"
    new["apiVersion"], new["kind"] = kind.api_version, kind.kind
    new = _without_nulls(new)
    _drop_unknown(schemas, kind, new, how)
    return new


def _drop_unknown(schemas: Schemas, kind: Kind, new: Object, how: Write) -> None:
    if how.fields == "Strict":
        unknown = schemas.unknown(kind, new)
        if unknown:
            told = ", ".join(f'unknown field "{path}"' for path in unknown)
            raise bad_request(
                f"{kind.kind} in version {kind.version!r} cannot be handled as a {kind.kind}: "
                f"strict decoding error: {told}"
            )
    else:
        for path in schemas.prune(kind, new):
            if how.fields == "Warn":
                how.warn(f'unknown field "{path}"')


def carry_over(kind: Kind, old: Object, new: Object, how: Write) -> None:
    """Give what is written what the caller may not change, and refuse where they try."""
    before, metadata, name = meta(old), new["metadata"], meta(old)["name"]
    version = metadata.get("resourceVersion")
    if version and version != before["resourceVersion"]:
        raise conflict(kind, name)
    if not version and kind.schema is not None:
        raise invalid(
            kind,
            name,
            [required("metadata.resourceVersion", "must be specified for an update")],
        )
    uid = metadata.get("uid")
    if uid and uid != before["uid"]:
        raise conflict(kind, name, precondition("UID", uid, before["uid"]))
    for key in (*_KEPT, *REMOVING, "generation", "resourceVersion"):
        if key in before:
            metadata[key] = before[key]
        else:
            metadata.pop(key, None)
    _carry_status(kind, old, new, how)
    if before.get("deletionTimestamp"):
        added = set(metadata.get("finalizers") or ()) - set(before.get("finalizers") or ())
        if added:
            told = "no new finalizers can be added if the object is being deleted"
            raise forbidden(kind, name, f"{told}, found new finalizers {sorted(added)}", code=422)


def _carry_status(kind: Kind, old: Object, new: Object, how: Write) -> None:
    """Status changes through its subresource, and nothing else does."""
    if how.subresource == "status" or (kind.status and not how.subresource):
        kept = {key for key in (*old, *new) if (key == "status") is (not how.subresource)}
        for key in kept - {"metadata", "apiVersion", "kind"}:
            if key in old:
                new[key] = clone(old[key])
            else:
                new.pop(key, None)


def replace_managed(old: Object, given: list[Any] | None) -> Object:
    """The object as it was; without managed fields where the caller resets them."""
    if given != [{}]:
        return old
    return {**old, "metadata": {**meta(old), "managedFields": []}}


def _without_nulls(value: Any) -> Any:  # noqa: ANN401 - JSON
    """A document whose members that are null are missing, as Go reads it."""
    if isinstance(value, dict):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value


def precondition(what: str, given: str, there: str) -> str:
    """Why a delete or update whose precondition fails is a conflict."""
    return f"Precondition failed: {what} in precondition: {given}, {what} in object meta: {there}"


def content(document: Object) -> Object:
    """What ``metadata.generation`` counts changes of."""
    return {key: one for key, one in document.items() if key not in {"metadata", "status"}}


def same(old: Object, new: Object) -> bool:
    """Whether nothing but the times of managed fields differs."""
    if any(old.get(key) != new.get(key) for key in {*old, *new} if key != "metadata"):
        return False
    return _timeless(meta(old)) == _timeless(meta(new))


def _timeless(metadata: dict[str, Any]) -> dict[str, Any]:
    managed = [
        {key: one for key, one in entry.items() if key != "time"}
        for entry in metadata.get("managedFields") or ()
    ]
    return {**metadata, "managedFields": managed}
