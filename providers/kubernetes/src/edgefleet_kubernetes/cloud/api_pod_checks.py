"""What the API server checks of pods, alone and in templates; see ``ValidatePodSpec``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from edgefleet_kubernetes.cloud.api_objects import clone
from edgefleet_kubernetes.cloud.api_quantities import amount
from edgefleet_kubernetes.cloud.api_status import (
    LABEL_WORDS,
    Cause,
    required,
    unsupported,
    wrong,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet_kubernetes.cloud.api_objects import Object

_CONTAINER = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_PULLS = ("Always", "IfNotPresent", "Never")
_FREE = ("activeDeadlineSeconds", "terminationGracePeriodSeconds", "tolerations")
_FIXED = (
    "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only "
    "additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set "
    "to 1 if it was previously negative)"
)


def pod_spec(spec: dict[str, Any], path: str) -> Iterator[Cause]:
    """What is wrong with a pod's spec that lies at ``path``."""
    volumes: list[str] = []
    for number, volume in enumerate(spec.get("volumes") or ()):
        where, name = f"{path}.volumes[{number}]", volume.get("name", "")
        if name in volumes:
            yield Cause("FieldValueDuplicate", f'Duplicate value: "{name}"', f"{where}.name")
        volumes.append(name)
        sources = [key for key in volume if key != "name"]
        if not sources:
            yield required(where, "must specify a volume type")
        elif len(sources) > 1:
            told = "Forbidden: may not specify more than 1 volume type"
            yield Cause("FieldValueForbidden", told, f"{where}.{sources[1]}")
    if not spec.get("containers"):
        yield required(f"{path}.containers")
    names: list[str] = []
    for kind in ("initContainers", "containers"):
        for number, container in enumerate(spec.get(kind) or ()):
            yield from _container(container, f"{path}.{kind}[{number}]", names, volumes)


def pod_changes(old: Object, new: Object) -> Iterator[Cause]:
    """What of a pod's spec was changed that can't be."""
    before, after = _fixed_part(old), _fixed_part(new)
    if not (old.get("spec") or {}).get("nodeName"):
        before.pop("nodeName", None)
        after.pop("nodeName", None)
    if before != after:
        yield Cause("FieldValueForbidden", _FIXED, "spec")


def _fixed_part(pod: Object) -> dict[str, Any]:
    spec: dict[str, Any] = clone(pod.get("spec") or {})
    for name in _FREE:
        spec.pop(name, None)
    for kind in ("containers", "initContainers"):
        for container in spec.get(kind) or ():
            container.pop("image", None)
    return spec


def _container(
    container: dict[str, Any], path: str, names: list[str], volumes: list[str]
) -> Iterator[Cause]:
    name = container.get("name", "")
    if not _CONTAINER.fullmatch(name):
        yield wrong(f"{path}.name", name, LABEL_WORDS)
    if name in names:
        yield Cause("FieldValueDuplicate", f'Duplicate value: "{name}"', f"{path}.name")
    names.append(name)
    if not container.get("image"):
        yield required(f"{path}.image")
    policy = container.get("imagePullPolicy", "Always")
    if policy not in _PULLS:
        yield unsupported(f"{path}.imagePullPolicy", policy, _PULLS)
    mounted: list[str] = []
    for number, mount in enumerate(container.get("volumeMounts") or ()):
        where = f"{path}.volumeMounts[{number}]"
        if mount["name"] not in volumes:
            yield Cause("FieldValueNotFound", f'Not found: "{mount["name"]}"', f"{where}.name")
        if mount["mountPath"] in mounted:
            yield wrong(f"{where}.mountPath", mount["mountPath"], "must be unique")
        mounted.append(mount["mountPath"])
    yield from _resources(container.get("resources") or {}, f"{path}.resources")


def _resources(resources: dict[str, Any], path: str) -> Iterator[Cause]:
    limits = resources.get("limits") or {}
    for kind in ("limits", "requests"):
        for name, given in (resources.get(kind) or {}).items():
            try:
                value = amount(given)
            except ValueError:
                yield wrong(
                    f"{path}.{kind}[{name}]", given, "quantities must match the regular expression"
                )
                continue
            if kind != "requests":
                continue
            limit = limits.get(name)
            if "/" in name and limit is not None and amount(limit) != value:
                yield wrong(f"{path}.requests", given, f"must be equal to {name} limit of {limit}")
            elif limit is not None and value > amount(limit):
                told = f"must be less than or equal to {name} limit of {limit}"
                yield wrong(f"{path}.requests", given, told)
            elif limit is None and "/" in name:
                yield required(
                    f"{path}.limits[{name}]", "Limit must be set for non overcommitable resources"
                )
