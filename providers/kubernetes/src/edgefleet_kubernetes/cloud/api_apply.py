"""Server-side apply: what a manager says, over what there is.

Rules kept here (structured-merge-diff's ``merge/update.go``):

- A manager owns what it applies. To give a field that another owns another value is a conflict,
  unless it is forced, which takes the field over.
- What a manager applied before and doesn't any more goes away, unless another owns it too.
- Lists with keys merge by item, sets by value; other lists are replaced whole.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from edgefleet_kubernetes.cloud.api_fields import (
    HOLDER,
    Owner,
    entries_of,
    is_atomic,
    item_key,
    list_type,
    owners_of,
    shown,
    values,
)
from edgefleet_kubernetes.cloud.api_objects import clone, meta, now
from edgefleet_kubernetes.cloud.api_status import Cause, Refused, bad_request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefleet_kubernetes.cloud.api_fields import Path
    from edgefleet_kubernetes.cloud.api_kinds import Kind
    from edgefleet_kubernetes.cloud.api_objects import Object
    from edgefleet_kubernetes.cloud.api_schema import Node, Schemas


def applied(
    schemas: Schemas,
    kind: Kind,
    live: Object | None,
    config: Object,
    *,
    manager: str,
    subresource: str,
    force: bool,
) -> tuple[Object, list[dict[str, Any]]]:
    """The object after a manager applied its configuration, and its managed fields.

    Raises:
        Refused: others own what would change (409).
    """
    if meta(config).get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    wanted = values(schemas, kind, config)
    fields = {path for path, value in wanted.items() if value is not HOLDER}
    owners = owners_of(live)
    key = (manager, "Apply", subresource)
    own = next((one for one in owners if one.key == key), None)
    others = [one for one in owners if one.key != key]
    before: set[Path] = set()
    if own is None:
        own = Owner(*key, set(), "", kind.api_version)
    else:
        before = own.fields
    if live is None:
        merged = clone(config)
    else:
        merged = _merge(schemas, schemas.of(kind), live, config)
        there, then = values(schemas, kind, live), values(schemas, kind, merged)
        clashes = _clashes(others, fields, there, then)
        if clashes and not force:
            raise _refused(clashes)
        for other, path in clashes:
            other.fields.discard(path)
        kept = fields.union(*(other.fields for other in others))
        for path in sorted(before - fields, key=len):
            if not any(one[: len(path)] == path for one in kept):
                _remove(merged, path, kept)
    if own.fields != fields or not own.time:
        own.fields, own.time, own.api_version = fields, now(), kind.api_version
    after = values(schemas, kind, merged).keys()
    for other in others:
        other.fields &= after
    return merged, entries_of([own, *others])


def _clashes(
    others: Sequence[Owner], fields: set[Path], there: dict[Path, Any], then: dict[Path, Any]
) -> list[tuple[Owner, Path]]:
    """Fields that are applied, are others', and would have another value than they have."""
    return [
        (other, path)
        for other in others
        for path in sorted(other.fields & fields)
        if there.get(path) != then.get(path)
    ]


def _refused(clashes: Sequence[tuple[Owner, Path]]) -> Refused:
    causes = [
        Cause("FieldManagerConflict", f"conflict with {_named(owner)}", shown(path)).document
        for owner, path in clashes
    ]
    if len(clashes) == 1:
        owner, path = clashes[0]
        told = f"Apply failed with 1 conflict: conflict with {_named(owner)}: {shown(path)}"
    else:
        lines: dict[str, list[str]] = {}
        for owner, path in clashes:
            lines.setdefault(_named(owner), []).append(f"- {shown(path)}")
        parts = [
            line for name in sorted(lines) for line in (f"conflicts with {name}:", *lines[name])
        ]
        told = f"Apply failed with {len(clashes)} conflicts: " + "\n".join(parts)
    return Refused(409, "Conflict", told, details={"causes": causes})


def _named(owner: Owner) -> str:
    told = json.dumps(owner.manager)
    if owner.subresource:
        told += f" with subresource {json.dumps(owner.subresource)}"
    return f"{told} using {owner.api_version}" if owner.operation == "Update" else told


def _merge(schemas: Schemas, node: Node, live: Any, config: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(live, dict) and isinstance(config, dict) and not is_atomic(node):
        merged = dict(live)
        for name, value in config.items():
            child = schemas.child(node, name) or {}
            merged[name] = _merge(schemas, child, live[name], value) if name in live else value
        return merged
    if isinstance(live, list) and isinstance(config, list):
        if list_type(node) == "set":
            return live + [one for one in config if one not in live]
        if list_type(node) == "map":
            items = schemas.items(node)
            found = {item_key(node, one): one for one in live}
            for one in config:
                key = item_key(node, one)
                found[key] = _merge(schemas, items, found[key], one) if key in found else one
            return list(found.values())
    return config


def _remove(document: Any, path: Path, kept: set[Path]) -> None:  # noqa: ANN401 - JSON
    """Take a field out, and the maps and lists that are empty without it and nobody's."""
    holders = [document]
    for part in path[:-1]:
        found = _step(holders[-1], part)
        if found is None:
            return
        holders.append(found)
    for depth in range(len(path), 0, -1):
        holder, part = holders[depth - 1], path[depth - 1]
        found = _step(holder, part)
        if depth < len(path) and (found not in ({}, []) or path[:depth] in kept):
            return
        if isinstance(holder, dict):
            holder.pop(part[2:], None)
        elif found is not None:
            holder.remove(found)


def _step(holder: Any, part: str) -> Any:  # noqa: ANN401 - JSON
    kind, rest = part[0], part[2:]
    if isinstance(holder, dict):
        return holder.get(rest)
    wanted = json.loads(rest)
    if kind == "v":
        return wanted if wanted in holder else None
    for item in holder:
        if all(item.get(k, "TCP" if k == "protocol" else None) == v for k, v in wanted.items()):
            return item
    return None
