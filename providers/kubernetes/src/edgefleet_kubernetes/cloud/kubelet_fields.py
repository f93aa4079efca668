"""What a pod may be told of itself: the downward API's fields and resources.

As ``pkg/fieldpath`` and ``pkg/api/v1/resource`` of kubernetes/kubernetes give them.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from edgefleet_kubernetes.cloud.api_quantities import amount

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefleet_kubernetes.cloud.api_objects import Object

_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]\Z")


class FieldError(ValueError):
    """A pod has no such field."""


def field_of(pod: Object, path: str) -> str:
    """What a ``fieldPath`` gives.

    Raises:
        FieldError: it is none that pods are told.
    """
    meta, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    if found := _SUBSCRIPT.match(path):
        return str((meta.get(found.group(1)) or {}).get(found.group(2), ""))
    if path in ("metadata.labels", "metadata.annotations"):
        values: Mapping[str, str] = meta.get(path.partition(".")[2]) or {}
        return "\n".join(f'{key}="{_quoted(values[key])}"' for key in sorted(values))
    plain = {
        "metadata.name": meta["name"],
        "metadata.namespace": meta["namespace"],
        "metadata.uid": meta["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.hostIP": status.get("hostIP", ""),
        "status.hostIPs": status.get("hostIP", ""),
        "status.podIP": status.get("podIP", ""),
        "status.podIPs": status.get("podIP", ""),
    }
    if path not in plain:
        raise FieldError(f"unsupported fieldPath: {path}")
    return str(plain[path])


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def resource_of(pod: Object, reference: Mapping[str, Any], container: Object | None = None) -> str:
    """What a ``resourceFieldRef`` gives: units of its divisor, rounded up.

    Raises:
        FieldError: no such container or resource.
    """
    name = reference.get("containerName")
    if name is not None:
        container = next((one for one in pod["spec"]["containers"] if one["name"] == name), None)
    if container is None:
        raise FieldError(f"container {name} not found")
    which, _, resource = reference["resource"].partition(".")
    given = ((container.get("resources") or {}).get(which) or {}).get(resource)
    if given is None:
        if which not in ("limits", "requests"):
            raise FieldError(f"unsupported container resource: {reference['resource']}")
        return "0"
    divisor = amount(reference.get("divisor") or 1) or amount(1)
    return str(math.ceil(amount(given) / divisor))
