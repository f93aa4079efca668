"""Resource quotas of namespaces: how many objects, and how much their pods may ask for.

See https://kubernetes.io/docs/concepts/policy/resource-quotas/; words are those of apiserver's
``pkg/admission/plugin/resourcequota``.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from edgefleet_kubernetes.cloud.api_objects import meta
from edgefleet_kubernetes.cloud.api_quantities import amount, written
from edgefleet_kubernetes.cloud.api_status import forbidden

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefleet_kubernetes.cloud.api_kinds import Kind
    from edgefleet_kubernetes.cloud.api_objects import Object
    from edgefleet_kubernetes.cloud.api_store import Store
    from edgefleet_kubernetes.cloud.api_writes import Asked

_SHORT = ("cpu", "memory", "ephemeral-storage")  # without a prefix these are requests
_ENDED = ("Succeeded", "Failed")
Amounts = dict[str, Decimal]


def check_quotas(store: Store, asked: Asked) -> None:
    """Nothing where a new object stays within its namespace's quotas.

    Raises:
        Refused: it doesn't, or doesn't say how much it asks for (403).
    """
    if not asked.namespace or asked.object is None or asked.how.subresource:
        return
    quotas = store.list("ResourceQuota", asked.namespace)
    if not quotas:
        return
    with store.lock:
        there = [
            one for place, one in store.objects(asked.kind).items() if place[0] == asked.namespace
        ]
    for quota in quotas:
        hard: Mapping[str, Any] = (quota.get("spec") or {}).get("hard") or {}
        wanted = _usage(asked.kind, asked.object)
        names = [name for name in hard if _plain(name) in wanted]
        if asked.kind.kind == "Pod":
            _check_said(quota, asked, hard, wanted)
        used: Amounts = {}
        for one in there:
            for name, value in _usage(asked.kind, one).items():
                used[name] = used.get(name, Decimal(0)) + value
        over = [
            name
            for name in sorted(names)
            if used.get(_plain(name), Decimal(0)) + wanted[_plain(name)] > amount(hard[name])
        ]
        if over:
            parts = (
                ("requested", {name: wanted[_plain(name)] for name in over}),
                ("used", {name: used.get(_plain(name), Decimal(0)) for name in over}),
                ("limited", {name: amount(hard[name]) for name in over}),
            )
            told = ", ".join(f"{title}: {_shown(values)}" for title, values in parts)
            raise forbidden(
                asked.kind, asked.name, f"exceeded quota: {meta(quota)['name']}, {told}"
            )


def _check_said(quota: Object, asked: Asked, hard: Mapping[str, Any], wanted: Amounts) -> None:
    """A quota of processors or memory needs every container to say how much it asks for."""
    missing = [
        name
        for name in sorted(hard)
        if _plain(name).partition(".")[2] in _SHORT and _plain(name) not in wanted
    ]
    if missing:
        containers = ",".join(one["name"] for one in (asked.object or {})["spec"]["containers"])
        told = "; ".join(f"must specify {name} for: {containers}" for name in missing)
        name = meta(quota)["name"]
        raise forbidden(asked.kind, asked.name, f"failed quota: {name}: {told}")


def _plain(name: str) -> str:
    return f"requests.{name}" if name in _SHORT else name


def _shown(values: Mapping[str, Decimal]) -> str:
    return ",".join(f"{name}={written(value)}" for name, value in values.items())


def _usage(kind: Kind, document: Object) -> Amounts:
    """What an object counts as."""
    if kind.kind == "Pod" and (document.get("status") or {}).get("phase") in _ENDED:
        return {}
    counted = f"count/{kind.plural}" + (f".{kind.group}" if kind.group else "")
    found: Amounts = {counted: Decimal(1)}
    if not kind.group:
        found[kind.plural] = Decimal(1)
    if kind.kind == "Pod":
        for container in document["spec"]["containers"]:
            resources = container.get("resources") or {}
            for part in ("requests", "limits"):
                for name, value in (resources.get(part) or {}).items():
                    key = f"{part}.{name}"
                    found[key] = found.get(key, Decimal(0)) + amount(value)
    return found
