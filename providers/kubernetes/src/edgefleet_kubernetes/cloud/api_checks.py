"""What the API server checks of objects beyond their schemas.

Rules and words are those of kubernetes' ``pkg/apis/*/validation/validation.go``. Only what a caller
of ours, or a person with kubectl, can plausibly get wrong is here.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Any

from edgefleet_kubernetes.cloud.api_objects import at, meta, selects
from edgefleet_kubernetes.cloud.api_pod_checks import pod_changes, pod_spec
from edgefleet_kubernetes.cloud.api_status import (
    LABEL_WORDS,
    Cause,
    immutable,
    required,
    unsupported,
    wrong,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgefleet_kubernetes.cloud.api_kinds import Kind
    from edgefleet_kubernetes.cloud.api_objects import Object

MAX_DATA = 1 << 20  # bytes that a ConfigMap or a Secret may hold
MAX_ANNOTATIONS = 256 << 10  # bytes of all annotations of an object
_SUBDOMAIN = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*")
_LABEL_1123 = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?")
_LABEL_1035 = re.compile(r"[a-z](?:[-a-z0-9]*[a-z0-9])?")
_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?")
_DATA_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_COUNT = re.compile(r"\d+|\d+%")
_PATHS = ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
_SUBDOMAIN_WORDS = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_WORDS = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  "
    "or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_CHOICES: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "CronJob": (("spec.concurrencyPolicy", ("Allow", "Forbid", "Replace")),),
    "DaemonSet": (("spec.updateStrategy.type", ("OnDelete", "RollingUpdate")),),
    "Job": (("spec.completionMode", ("Indexed", "NonIndexed")),),
    "Service": (
        ("spec.type", ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")),
        ("spec.internalTrafficPolicy", ("Cluster", "Local")),
        ("spec.sessionAffinity", ("ClientIP", "None")),
    ),
    "ValidatingAdmissionPolicy": (("spec.failurePolicy", ("Fail", "Ignore")),),
}
_FIXED: dict[str, tuple[str, ...]] = {
    "DaemonSet": ("spec.selector",),
    "Job": ("spec.selector", "spec.completions", "spec.template", "spec.completionMode"),
    "Secret": ("type",),
    "Service": ("spec.clusterIP",),
    "PersistentVolumeClaim": ("spec.accessModes", "spec.storageClassName", "spec.selector"),
    "RuntimeClass": ("handler",),
}


def check(kind: Kind, old: Object | None, new: Object) -> list[Cause]:
    """What is wrong with an object that its schema lets pass; None for ``old``: a new one."""
    found = [*_metadata(kind, new)]
    for path, known in _CHOICES.get(kind.kind, ()):
        value = at(new, path)
        if value is not None and value not in known:
            found.append(unsupported(path, value, known))
    if old is not None:
        found += [
            immutable(path, at(new, path))
            for path in _FIXED.get(kind.kind, ())
            if at(old, path) != at(new, path)
        ]
    checker = _CHECKS.get(kind.kind)
    return found if checker is None else found + list(checker(old, new))


# ------------------------------------------------------------------------------------- metadata


def _metadata(kind: Kind, new: Object) -> Iterator[Cause]:
    metadata = meta(new)
    name = metadata.get("name") or ""
    if not name:
        yield required("metadata.name", "name or generateName is required")
    else:
        yield from _name(kind, name)
    for key, value in (metadata.get("labels") or {}).items():
        yield from _label(key, value, "metadata.labels")
    notes = metadata.get("annotations") or {}
    if sum(len(key.encode()) + len(str(value).encode()) for key, value in notes.items()) > (
        MAX_ANNOTATIONS
    ):
        told = f"Too long: may not be more than {MAX_ANNOTATIONS} bytes"
        yield Cause("FieldValueTooLong", told, "metadata.annotations")


def _name(kind: Kind, name: str) -> Iterator[Cause]:
    if kind.kind in _PATHS:
        if name in {".", ".."} or "/" in name or "%" in name:
            yield wrong("metadata.name", name, "may not contain '/' or '%'")
    elif kind.kind == "Service":
        if len(name) > 63 or not _LABEL_1035.fullmatch(name):
            yield wrong(
                "metadata.name",
                name,
                "a DNS-1035 label must consist of lower case alphanumeric characters or '-', "
                "start with an alphabetic character, and end with an alphanumeric character "
                "(e.g. 'my-name',  or 'abc-123', regex used for validation is "
                "'[a-z]([-a-z0-9]*[a-z0-9])?')",
            )
    elif kind.kind == "Namespace":
        if len(name) > 63 or not _LABEL_1123.fullmatch(name):
            yield wrong("metadata.name", name, LABEL_WORDS)
    elif len(name) > 253 or not _SUBDOMAIN.fullmatch(name):
        yield wrong("metadata.name", name, _SUBDOMAIN_WORDS)


def _label(key: str, value: Any, field: str) -> Iterator[Cause]:  # noqa: ANN401 - JSON
    domain, slash, name = key.rpartition("/")
    if (slash and not _SUBDOMAIN.fullmatch(domain)) or not _NAME.fullmatch(name) or len(name) > 63:
        yield wrong(
            field, key, "name part must consist of alphanumeric characters, '-', '_' or '.'"
        )
    if isinstance(value, str) and value and (len(value) > 63 or not _NAME.fullmatch(value)):
        yield wrong(field, value, _LABEL_WORDS)


# ------------------------------------------------------------------------------------ workloads


def _daemon_set(_old: Object | None, new: Object) -> Iterator[Cause]:
    spec = new["spec"]
    template = spec.get("template") or {}
    labels = meta(template).get("labels") or {}
    selector = spec.get("selector") or {}
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        yield wrong("spec.selector", "{}", "empty selector is invalid for daemonset")
    elif not selects(selector, labels):
        yield wrong(
            "spec.template.metadata.labels", labels, "`selector` does not match template `labels`"
        )
    rolling = at(spec, "updateStrategy.rollingUpdate") or {}
    counts = [str(rolling.get(name, 0)) for name in ("maxUnavailable", "maxSurge")]
    path = "spec.updateStrategy.rollingUpdate"
    for name, count in zip(("maxUnavailable", "maxSurge"), counts, strict=True):
        if not _COUNT.fullmatch(count):
            yield wrong(f"{path}.{name}", count, "a valid percent string must be a numeric string")
    if rolling and all(
        int(count.rstrip("%") or 0) == 0 for count in counts if count.rstrip("%").isdigit()
    ):
        yield required(f"{path}.maxUnavailable", "cannot be 0 when maxSurge is 0")
    policy = at(template, "spec.restartPolicy")
    if policy != "Always":
        yield unsupported("spec.template.spec.restartPolicy", policy, ("Always",))
    yield from pod_spec(template.get("spec") or {}, "spec.template.spec")


def _job(_old: Object | None, new: Object) -> Iterator[Cause]:
    template = new["spec"].get("template") or {}
    policy = at(template, "spec.restartPolicy")
    if policy not in {"OnFailure", "Never"}:
        known = ("OnFailure", "Never")
        yield unsupported("spec.template.spec.restartPolicy", policy, known)
    labels = meta(template).get("labels") or {}
    if not selects(new["spec"].get("selector"), labels):
        yield wrong(
            "spec.template.metadata.labels", labels, "`selector` does not match template `labels`"
        )
    yield from pod_spec(template.get("spec") or {}, "spec.template.spec")


def _pod(old: Object | None, new: Object) -> Iterator[Cause]:
    yield from pod_spec(new["spec"], "spec")
    if old is not None:
        yield from pod_changes(old, new)


def _disruption_budget(_old: Object | None, new: Object) -> Iterator[Cause]:
    spec = new.get("spec") or {}
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        yield wrong("spec", spec, "minAvailable and maxUnavailable cannot be both set")


# --------------------------------------------------------------------------------------- others


def _service(_old: Object | None, new: Object) -> Iterator[Cause]:
    spec = new["spec"]
    ports = spec.get("ports") or []
    if not ports and spec.get("clusterIP") != "None" and spec.get("type") != "ExternalName":
        yield required("spec.ports")
    names = [port.get("name") or "" for port in ports]
    for number, name in enumerate(names):
        if not name and len(ports) > 1:
            yield required(f"spec.ports[{number}].name")
        elif name in names[:number]:
            yield Cause(
                "FieldValueDuplicate", f'Duplicate value: "{name}"', f"spec.ports[{number}].name"
            )


def _config_map(old: Object | None, new: Object) -> Iterator[Cause]:
    data, binary = new.get("data") or {}, new.get("binaryData") or {}
    for field, values in (("data", data), ("binaryData", binary)):
        for key in values:
            if not _DATA_KEY.fullmatch(key) or key in {".", ".."}:
                told = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
                yield wrong(f"{field}[{key}]", key, told)
    for key in sorted(set(data) & set(binary)):
        yield wrong("data", key, "duplicate of key present in binaryData")
    total = sum(len(value.encode()) for value in data.values())
    yield from _too_long(total + _decoded(binary))
    if old is not None and old.get("immutable"):
        for field in ("data", "binaryData", "immutable"):
            if old.get(field) != new.get(field):
                told = "Forbidden: field is immutable when `immutable` is set"
                yield Cause("FieldValueForbidden", told, field)


def _secret(_old: Object | None, new: Object) -> Iterator[Cause]:
    data = new.get("data") or {}
    yield from _too_long(_decoded(data))
    if new.get("type") == "kubernetes.io/dockerconfigjson" and ".dockerconfigjson" not in data:
        yield required("data[.dockerconfigjson]")


def _decoded(values: dict[str, Any]) -> int:
    total = 0
    for value in values.values():
        try:
            total += len(base64.b64decode(value, validate=True))
        except (binascii.Error, TypeError):
            total += len(str(value))
    return total


def _too_long(size: int) -> Iterator[Cause]:
    if size > MAX_DATA:
        yield Cause("FieldValueTooLong", f"Too long: may not be more than {MAX_DATA} bytes", "")


def _binding(old: Object | None, new: Object) -> Iterator[Cause]:
    if old is not None and old.get("roleRef") != new.get("roleRef"):
        yield wrong("roleRef", new.get("roleRef"), "cannot change roleRef")
    for number, subject in enumerate(new.get("subjects") or ()):
        if subject.get("kind") == "ServiceAccount" and not subject.get("namespace"):
            yield required(f"subjects[{number}].namespace")


_CHECKS: dict[str, Callable[[Object | None, Object], Iterator[Cause]]] = {
    "ClusterRoleBinding": _binding,
    "ConfigMap": _config_map,
    "DaemonSet": _daemon_set,
    "Job": _job,
    "Pod": _pod,
    "PodDisruptionBudget": _disruption_budget,
    "RoleBinding": _binding,
    "Secret": _secret,
    "Service": _service,
}
