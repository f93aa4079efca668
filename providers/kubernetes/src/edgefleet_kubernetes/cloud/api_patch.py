"""Patches of objects: JSON merge patch, JSON patch, strategic merge patch, and apply.

See RFC 7396, RFC 6902, and apimachinery's ``pkg/util/strategicpatch/patch.go``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgefleet_kubernetes.cloud.api_apply import applied
from edgefleet_kubernetes.cloud.api_status import Refused, bad_request

if TYPE_CHECKING:
    from edgefleet_kubernetes.cloud.api_kinds import Kind
    from edgefleet_kubernetes.cloud.api_objects import Object
    from edgefleet_kubernetes.cloud.api_schema import Node, Schemas
    from edgefleet_kubernetes.cloud.api_writes import Write

TYPES = {
    "application/apply-patch+yaml": "apply",
    "application/apply-patch+json": "apply",
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
}
"""Media types of patches."""
_PATCH = "$patch"
_RETAIN = "$retainKeys"
_FROM_LIST = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"


def patched(
    schemas: Schemas,
    kind: Kind,
    old: Object | None,
    patch: Any,  # noqa: ANN401 - JSON
    *,
    type: str,  # noqa: A002 - Kubernetes' word
    how: Write,
) -> tuple[Object, list[Any] | None]:
    """An object after a patch; for ``apply``, its managed fields too.

    Args:
        schemas: of the kind.
        kind: of the object.
        old: the object, which may be changed; None where there is none.
        patch: the change.
        type: ``apply``, ``json``, ``merge`` or ``strategic``.
        how: it is written.

    Raises:
        Refused: it can't be patched so.
    """
    if type == "apply":
        if not isinstance(patch, dict):
            raise bad_request("the configuration that is applied is no object")
        return applied(
            schemas,
            kind,
            old,
            patch,
            manager=how.by,
            subresource=how.subresource,
            force=how.force,
        )
    if type == "json":
        return json_patch(old, patch), None
    if not isinstance(patch, dict):
        raise bad_request("the patch is no object")
    if type == "merge":
        return merge_patch(old, patch), None
    if kind.schema is not None:
        raise Refused(
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: "
            "application/json-patch+json, application/merge-patch+json, "
            "application/apply-patch+yaml",
        )
    return _strategic(schemas, schemas.of(kind), old or {}, patch), None


def merge_patch(document: Any, patch: Any) -> Any:  # noqa: ANN401 - JSON
    """RFC 7396: a document after a JSON merge patch."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(document) if isinstance(document, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


# ----------------------------------------------------------------------------------- JSON patch


def json_patch(document: Any, operations: Any) -> Any:  # noqa: ANN401 - JSON
    """RFC 6902: a document, which is changed, after a JSON patch.

    Raises:
        Refused: an operation can't be done, or a test fails.
    """
    if not isinstance(operations, list):
        raise bad_request("a JSON patch is a list of operations")
    root = {"": document}
    for one in operations:
        try:
            _operate(root, one)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            told = f"the server rejected our request due to an error in our request: {error!r}"
            raise Refused(422, "Invalid", told) from error
    return root[""]


def _operate(root: dict[str, Any], one: dict[str, Any]) -> None:
    operation = one["op"]
    if operation == "test":
        if _lookup(root, one["path"]) != one["value"]:
            raise ValueError(f"testing path {one['path']} value failed")
    elif operation == "remove":
        _take(root, one["path"])
    elif operation == "replace":
        _take(root, one["path"])
        _put(root, one["path"], one["value"])
    elif operation == "add":
        _put(root, one["path"], one["value"])
    elif operation == "move":
        _put(root, one["path"], _take(root, one["from"]))
    elif operation == "copy":
        _put(root, one["path"], _lookup(root, one["from"]))
    else:
        raise ValueError(f"unexpected kind: {operation}")


def _parts(pointer: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")]


def _lookup(root: Any, pointer: str) -> Any:  # noqa: ANN401 - JSON
    found = root
    for part in _parts(pointer):
        found = found[int(part)] if isinstance(found, list) else found[part]
    return found


def _holder(root: Any, pointer: str) -> tuple[Any, str]:  # noqa: ANN401 - JSON
    *before, last = _parts(pointer)
    return (_lookup(root, "/".join(before)) if before else root), last


def _take(root: Any, pointer: str) -> Any:  # noqa: ANN401 - JSON
    holder, last = _holder(root, pointer)
    return holder.pop(int(last) if isinstance(holder, list) else last)


def _put(root: Any, pointer: str, value: Any) -> None:  # noqa: ANN401 - JSON
    holder, last = _holder(root, pointer)
    if isinstance(holder, list):
        at = len(holder) if last == "-" else int(last)
        if not 0 <= at <= len(holder):
            raise IndexError(f"no index {at}")
        holder.insert(at, value)
    else:
        holder[last] = value


# -------------------------------------------------------------------------------- strategic merge


def _strategic(
    schemas: Schemas, node: Node, old: dict[str, Any], patch: dict[str, Any]
) -> dict[str, Any]:
    directive = patch.get(_PATCH)
    if directive == "replace":
        return {name: one for name, one in patch.items() if name != _PATCH}
    if directive == "delete":
        return {}
    retained = patch.get(_RETAIN)
    merged = {name: one for name, one in old.items() if retained is None or name in retained}
    for name, value in patch.items():
        if name.startswith("$"):
            continue
        child = schemas.child(node, name) or {}
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            there = merged.get(name)
            merged[name] = _strategic(
                schemas, child, there if isinstance(there, dict) else {}, value
            )
        elif isinstance(value, list) and "merge" in child.get("x-kubernetes-patch-strategy", ""):
            merged[name] = _merged_list(schemas, child, merged.get(name) or [], value)
        else:
            merged[name] = value
    _follow_directives(schemas, node, merged, patch)
    return merged


def _follow_directives(
    schemas: Schemas, node: Node, merged: dict[str, Any], patch: dict[str, Any]
) -> None:
    for name, value in patch.items():
        if name.startswith(_FROM_LIST):
            field = name.removeprefix(_FROM_LIST)
            merged[field] = [one for one in merged.get(field) or [] if one not in value]
    for name, value in patch.items():
        if name.startswith(_ORDER):
            field = name.removeprefix(_ORDER)
            if isinstance(merged.get(field), list):
                merged[field] = _ordered(schemas.child(node, field) or {}, merged[field], value)


def _merged_list(schemas: Schemas, node: Node, old: list[Any], patch: list[Any]) -> list[Any]:
    key = node.get("x-kubernetes-patch-merge-key")
    if key is None:
        return old + [one for one in patch if one not in old]
    if any(one.get(_PATCH) == "replace" and len(one) == 1 for one in patch):
        return [one for one in patch if _PATCH not in one]
    items, merged = schemas.items(node), list(old)
    for one in patch:
        if key not in one:
            raise bad_request(f"map: {one} does not contain declared merge key: {key}")
        at = next((n for n, there in enumerate(merged) if there.get(key) == one[key]), None)
        if one.get(_PATCH) == "delete":
            merged = [there for there in merged if there.get(key) != one[key]]
        elif at is None:
            merged.append(_strategic(schemas, items, {}, one))
        else:
            merged[at] = _strategic(schemas, items, merged[at], one)
    return merged


def _ordered(node: Node, merged: list[Any], order: list[Any]) -> list[Any]:
    key = node.get("x-kubernetes-patch-merge-key")
    if key is None:
        ranks = {str(one): number for number, one in enumerate(order)}
        return sorted(merged, key=lambda one: ranks.get(str(one), len(ranks)))
    ranks = {str(one.get(key)): number for number, one in enumerate(order)}
    return sorted(merged, key=lambda one: ranks.get(str(one.get(key)), len(ranks)))
