"""Who owns which fields: ``metadata.managedFields``, in the form that Kubernetes calls FieldsV1.

A field is a path: ``f:NAME`` for a member, ``k:{…}`` for the item of a list with those keys,
``v:VALUE`` for a value of a set. See structured-merge-diff's ``fieldpath`` and
https://kubernetes.io/docs/reference/using-api/server-side-apply/.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edgefleet_kubernetes.cloud.api_objects import meta, now

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from edgefleet_kubernetes.cloud.api_kinds import Kind
    from edgefleet_kubernetes.cloud.api_objects import Object
    from edgefleet_kubernetes.cloud.api_schema import Node, Schemas

Path = tuple[str, ...]
HOLDER: Final = object()
"""Stands for the value of a map or struct that has members."""
ITEM: Final = object()
"""Stands for the value of an item that a list has by its keys."""
_TOP = ("apiVersion", "kind")
_OWN = (  # of metadata: nobody's
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
)


@dataclass
class Owner:
    """A field manager, and what it owns.

    Attributes:
        manager: its name.
        operation: ``Apply`` or ``Update``.
        subresource: that it wrote through; empty for the object itself.
        fields: paths.
        time: when it last changed what it owns.
        api_version: that it wrote in.
    """

    manager: str
    operation: str
    subresource: str
    fields: set[Path]
    time: str
    api_version: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from others."""
        return (self.manager, self.operation, self.subresource)

    @property
    def entry(self) -> dict[str, Any]:
        """As ``managedFields`` has it."""
        return {
            "manager": self.manager,
            "operation": self.operation,
            "apiVersion": self.api_version,
            "time": self.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": _tree(self.fields),
            **({"subresource": self.subresource} if self.subresource else {}),
        }


def owners_of(document: Object | None) -> list[Owner]:
    """Who owns what of an object."""
    entries = meta(document or {}).get("managedFields") or ()
    return [
        Owner(
            entry.get("manager", ""),
            entry.get("operation", "Update"),
            entry.get("subresource", ""),
            set(_paths(entry.get("fieldsV1") or {}, ())),
            entry.get("time", ""),
            entry.get("apiVersion", ""),
        )
        for entry in entries
    ]


def entries_of(owners: Sequence[Owner]) -> list[dict[str, Any]]:
    """``managedFields`` of owners: those who applied first, the rest by time."""
    kept = [owner for owner in owners if owner.fields]
    return [one.entry for one in sorted(kept, key=lambda one: (one.operation, one.time))]


def owned_after(
    schemas: Schemas,
    kind: Kind,
    *,
    old: Object | None,
    new: Object,
    manager: str,
    subresource: str,
) -> list[dict[str, Any]]:
    """``managedFields`` after a write that is no apply: the writer owns what it changed.

    Args:
        schemas: of the kind.
        kind: of the object.
        old: before; None for a new one.
        new: after.
        manager: that wrote.
        subresource: that it wrote through.
    """
    before = {} if old is None else values(schemas, kind, old)
    after = values(schemas, kind, new)
    changed = {path for path, value in after.items() if before.get(path, before) != value}
    gone = before.keys() - after.keys()
    owners, own = [], None
    for owner in owners_of(old):
        if owner.key == (manager, "Update", subresource):
            own = owner
            owner.fields -= gone
        else:
            owner.fields -= changed | gone
        owners.append(owner)
    if changed:
        if own is None:
            own = Owner(manager, "Update", subresource, set(), "", kind.api_version)
            owners.append(own)
        own.fields |= changed
        own.time, own.api_version = now(), kind.api_version
    return entries_of(owners)


def values(schemas: Schemas, kind: Kind, document: Object) -> dict[Path, Any]:
    """Every field of an object that somebody may own, with its value."""
    content = {key: one for key, one in document.items() if key not in _TOP}
    metadata = {key: one for key, one in meta(document).items() if key not in _OWN}
    content.pop("metadata", None)
    if metadata:
        content["metadata"] = metadata
    found = dict(_values(schemas, schemas.of(kind), content, ()))
    found.pop((), None)
    found.pop(("f:metadata",), None)
    return found


def item_key(node: Node, item: Mapping[str, Any]) -> str:
    """What an item of a list with keys is found by; ``node`` is the list's schema."""
    keys = {
        name: item.get(name, "TCP" if name == "protocol" else None)
        for name in sorted(node["x-kubernetes-list-map-keys"])
    }
    return "k:" + _json({name: one for name, one in keys.items() if one is not None})


def list_type(node: Node) -> str:
    """``map``, ``set`` or ``atomic``: how lists of a schema merge."""
    found: str = node.get("x-kubernetes-list-type") or "atomic"
    return found


def is_atomic(node: Node) -> bool:
    """Whether maps of a schema are replaced whole."""
    return node.get("x-kubernetes-map-type") == "atomic"


def _values(
    schemas: Schemas,
    node: Node,
    value: Any,  # noqa: ANN401 - JSON
    path: Path,
) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value and not is_atomic(node):
        yield path, HOLDER
        for name, one in value.items():
            child = schemas.child(node, name) or {}
            yield from _values(schemas, child, one, (*path, f"f:{name}"))
    elif isinstance(value, list) and value and list_type(node) == "map":
        yield path, HOLDER
        items = schemas.items(node)
        for one in value:
            where = (*path, item_key(node, one))
            for found in _values(schemas, items, one, where):
                yield (where, ITEM) if found[0] == where else found
    elif isinstance(value, list) and value and list_type(node) == "set":
        yield path, HOLDER
        for one in value:
            yield (*path, f"v:{_json(one)}"), one
    else:
        yield path, value


def _json(value: Any) -> str:  # noqa: ANN401 - JSON
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def _tree(paths: set[Path]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for path in sorted(paths):  # a path comes before those below it
        node = root
        for number, name in enumerate(path):
            if name not in node:
                node[name] = {}
            elif not node[name] and path[: number + 1] in paths and number + 1 < len(path):
                node[name]["."] = {}
            node = node[name]
    return root


def _paths(tree: Mapping[str, Any], path: Path) -> Iterator[Path]:
    for name, below in tree.items():
        if name == ".":
            yield path
        elif below:
            yield from _paths(below, (*path, name))
        else:
            yield (*path, name)


def shown(path: Path) -> str:
    """A path as messages have it: ``.spec.containers[name="x"].image``."""
    told = ""
    for part in path:
        kind, _, rest = part.partition(":")
        if kind == "f":
            told += f".{rest}"
        elif kind == "k":
            keys = json.loads(rest)
            told += f"[{','.join(f'{name}={_json(one)}' for name, one in keys.items())}]"
        else:
            told += f"[={rest}]"
    return told
