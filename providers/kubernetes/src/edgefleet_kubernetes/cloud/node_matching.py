"""How Kubernetes compares: node selectors, taints and tolerations, shares, conditions, owners.

Pure functions over objects as the API has them, as ``component-helpers/scheduling/corev1`` of
kubernetes/kubernetes has them.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from edgefleet_kubernetes.cloud.api_objects import Object


def share(value: str | int, whole: int, *, up: bool) -> int:
    """A number or a percentage of a whole.

    Args:
        value: such as 1 or ``25%``.
        whole: that percentages are of.
        up: whether a fraction counts as one more.
    """
    if isinstance(value, int):
        return value
    exact = Fraction(value.removesuffix("%")) * whole / 100
    return -(-exact.numerator // exact.denominator) if up else int(exact)


def _requirement(one: Mapping[str, Any], values: Mapping[str, str]) -> bool:
    key, wanted = one["key"], one.get("values") or []
    has = key in values
    tests: dict[str, Callable[[], bool]] = {
        "In": lambda: has and values[key] in wanted,
        "NotIn": lambda: not has or values[key] not in wanted,
        "Exists": lambda: has,
        "DoesNotExist": lambda: not has,
        "Gt": lambda: has and values[key].isdecimal() and int(values[key]) > int(wanted[0]),
        "Lt": lambda: has and values[key].isdecimal() and int(values[key]) < int(wanted[0]),
    }
    return tests[one["operator"]]()


def fits_node(spec: Mapping[str, Any], node: Object) -> bool:
    """Whether a pod's node selector and required node affinity take a node."""
    labels = node["metadata"].get("labels") or {}
    wanted: Mapping[str, str] = spec.get("nodeSelector") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    return _selects(affinity.get("requiredDuringSchedulingIgnoredDuringExecution"), node)


def holds_volume(volume: Object, node: Object) -> bool:
    """Whether a PersistentVolume can be used on a node; one without node affinity can anywhere."""
    return _selects((volume["spec"].get("nodeAffinity") or {}).get("required"), node)


def _selects(selector: Mapping[str, Any] | None, node: Object) -> bool:
    """Whether one of a node selector's terms takes a node; no selector takes all."""
    if selector is None:
        return True
    labels = node["metadata"].get("labels") or {}
    fields = {"metadata.name": node["metadata"]["name"]}
    return any(
        (term.get("matchExpressions") or term.get("matchFields"))
        and all(_requirement(one, labels) for one in term.get("matchExpressions") or ())
        and all(_requirement(one, fields) for one in term.get("matchFields") or ())
        for term in selector["nodeSelectorTerms"]
    )


def tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    """Whether a toleration is for a taint."""
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return bool(toleration.get("key")) and (toleration.get("value") or "") == (
        taint.get("value") or ""
    )


def untolerated(
    spec: Mapping[str, Any], node: Object, effects: Iterable[str]
) -> Mapping[str, Any] | None:
    """The first taint of a node, with one of these effects, that a pod doesn't tolerate."""
    tolerations: Sequence[Mapping[str, Any]] = spec.get("tolerations") or ()
    for taint in (node.get("spec") or {}).get("taints") or ():
        if taint["effect"] in effects and not any(tolerates(one, taint) for one in tolerations):
            found: Mapping[str, Any] = taint
            return found
    return None


def condition(thing: Object, name: str) -> Object | None:
    """A condition of an object's status; None where it isn't there."""
    found: Iterable[Object] = (thing.get("status") or {}).get("conditions") or ()
    return next((one for one in found if one["type"] == name), None)


def is_true(thing: Object, name: str) -> bool:
    """Whether a condition of an object's status is there and true."""
    found = condition(thing, name)
    return found is not None and found["status"] == "True"


def owned(thing: Object, owner: Object) -> bool:
    """Whether an object's controller is this one."""
    return any(
        one.get("controller") and one["uid"] == owner["metadata"]["uid"]
        for one in thing["metadata"].get("ownerReferences") or ()
    )


def owner_of(owner: Object) -> Object:
    """The reference that makes an object's controller known."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
