"""What the API server fills into objects that don't say it.

Values are those of kubernetes' ``pkg/apis/*/v1/defaults.go`` and of the strategies that prepare
objects for creation.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet_kubernetes.cloud.api_kinds import Kind
    from edgefleet_kubernetes.cloud.api_objects import Object

_RBAC = "rbac.authorization.k8s.io"
_POD: dict[str, Any] = {
    "restartPolicy": "Always",
    "dnsPolicy": "ClusterFirst",
    "terminationGracePeriodSeconds": 30,
    "schedulerName": "default-scheduler",
}
_PROBE = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


def fill(kind: Kind, document: Object) -> None:
    """Fill in what an object doesn't say."""
    filler = _FILLERS.get(kind.kind)
    if filler is not None:
        if not isinstance(document.get("spec", {}), dict):
            return  # the schema refuses it
        filler(document)


def _defaults(holder: dict[str, Any], values: dict[str, Any]) -> None:
    for name, value in values.items():
        if holder.get(name) is None:
            holder[name] = value


def _part(holder: dict[str, Any], name: str) -> dict[str, Any]:
    """A member that is an object; where it isn't, one that goes nowhere."""
    found = holder.get(name)
    if found is None:
        found = holder[name] = {}
    return found if isinstance(found, dict) else {}


def _each(holder: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = holder.get(name)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


# ----------------------------------------------------------------------------------------- pods


def _pod_spec(spec: dict[str, Any]) -> None:
    _defaults(spec, _POD)
    _part(spec, "securityContext")
    if spec.get("serviceAccountName"):
        spec.setdefault("serviceAccount", spec["serviceAccountName"])
    for name in ("containers", "initContainers"):
        for container in _each(spec, name):
            _container(container)
    for volume in _each(spec, "volumes"):
        _volume(volume)


def _container(container: dict[str, Any]) -> None:
    image = str(container.get("image", ""))
    tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
    fresh = "@" not in image and tag in {"", "latest"}
    _defaults(
        container,
        {
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "imagePullPolicy": "Always" if fresh else "IfNotPresent",
        },
    )
    resources = _part(container, "resources")
    if isinstance(resources.get("limits"), dict):
        requests = _part(resources, "requests")
        _defaults(requests, dict(resources["limits"]))
    for port in _each(container, "ports"):
        port.setdefault("protocol", "TCP")
    for name in _PROBES:
        if isinstance(container.get(name), dict):
            _defaults(container[name], _PROBE)
            if isinstance(container[name].get("httpGet"), dict):
                _defaults(container[name]["httpGet"], {"path": "/", "scheme": "HTTP"})
    for one in _each(container, "env"):
        _field_reference(one.get("valueFrom"))


def _field_reference(holder: Any) -> None:  # noqa: ANN401 - JSON
    if isinstance(holder, dict) and isinstance(holder.get("fieldRef"), dict):
        holder["fieldRef"].setdefault("apiVersion", "v1")


def _volume(volume: dict[str, Any]) -> None:
    for name in ("configMap", "secret", "projected", "downwardAPI"):
        if isinstance(volume.get(name), dict):
            volume[name].setdefault("defaultMode", 420)
    if isinstance(volume.get("hostPath"), dict):
        volume["hostPath"].setdefault("type", "")
    for source in _each(volume.get("projected") or {}, "sources"):
        token = source.get("serviceAccountToken")
        if isinstance(token, dict):
            token.setdefault("expirationSeconds", 3600)
        for item in _each(source.get("downwardAPI") or {}, "items"):
            _field_reference(item)


def _pod(document: Object) -> None:
    spec = _part(document, "spec")
    _pod_spec(spec)
    _defaults(spec, {"enableServiceLinks": True, "serviceAccountName": "default"})
    spec.setdefault("serviceAccount", spec["serviceAccountName"])
    _part(document, "status").setdefault("phase", "Pending")


def _template(spec: dict[str, Any]) -> None:
    _pod_spec(_part(_part(spec, "template"), "spec"))


# ------------------------------------------------------------------------------------ workloads


def _daemon_set(document: Object) -> None:
    spec = _part(document, "spec")
    _template(spec)
    spec.setdefault("revisionHistoryLimit", 10)
    strategy = _part(spec, "updateStrategy")
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        _defaults(_part(strategy, "rollingUpdate"), {"maxUnavailable": 1, "maxSurge": 0})


def _job(document: Object) -> None:
    spec = _part(document, "spec")
    _job_spec(spec)
    if not spec.get("manualSelector"):
        uid, name = document["metadata"]["uid"], document["metadata"]["name"]
        spec.setdefault("selector", {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}})
        labels = _part(_part(_part(spec, "template"), "metadata"), "labels")
        for domain in ("", "batch.kubernetes.io/"):
            _defaults(labels, {f"{domain}controller-uid": uid, f"{domain}job-name": name})


def _job_spec(spec: dict[str, Any]) -> None:
    _template(spec)
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    _defaults(
        spec,
        {
            "parallelism": 1,
            "backoffLimit": 6,
            "completionMode": "NonIndexed",
            "suspend": False,
            "podReplacementPolicy": "TerminatingOrFailed",
        },
    )


def _cron_job(document: Object) -> None:
    spec = _part(document, "spec")
    _job_spec(_part(_part(spec, "jobTemplate"), "spec"))
    _defaults(
        spec,
        {
            "concurrencyPolicy": "Allow",
            "suspend": False,
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 1,
        },
    )


# --------------------------------------------------------------------------------------- others


def _service(document: Object) -> None:
    spec = _part(document, "spec")
    _defaults(
        spec, {"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"}
    )
    for port in _each(spec, "ports"):
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port"))
    if spec["type"] != "ExternalName":
        digest = hashlib.sha256(document["metadata"]["uid"].encode()).digest()
        spec.setdefault("clusterIP", f"10.96.{digest[0]}.{1 + digest[1] % 254}")
        spec.setdefault("clusterIPs", [spec["clusterIP"]])
        _defaults(spec, {"ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"})


def _namespace(document: Object) -> None:
    spec = _part(document, "spec")
    if not document["metadata"].get("deletionTimestamp"):
        spec.setdefault("finalizers", ["kubernetes"])
    labels = _part(document["metadata"], "labels")
    labels["kubernetes.io/metadata.name"] = document["metadata"]["name"]
    _part(document, "status").setdefault("phase", "Active")


def _secret(document: Object) -> None:
    document.setdefault("type", "Opaque")
    text = document.pop("stringData", None)
    if isinstance(text, dict):
        data = _part(document, "data")
        for name, value in text.items():
            data[name] = base64.b64encode(str(value).encode()).decode()


def _persistent_volume(document: Object) -> None:
    spec = _part(document, "spec")
    _defaults(spec, {"persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem"})
    if isinstance(spec.get("hostPath"), dict):
        spec["hostPath"].setdefault("type", "")
    _part(document, "status").setdefault("phase", "Available")


def _claim(document: Object) -> None:
    _part(document, "spec").setdefault("volumeMode", "Filesystem")
    _part(document, "status").setdefault("phase", "Pending")


def _binding(document: Object) -> None:
    for subject in _each(document, "subjects"):
        if subject.get("kind") in {"User", "Group"}:
            subject.setdefault("apiGroup", _RBAC)
    _part(document, "roleRef").setdefault("apiGroup", _RBAC)


def _policy(document: Object) -> None:
    spec = _part(document, "spec")
    spec.setdefault("failurePolicy", "Fail")
    if isinstance(spec.get("matchConstraints"), dict):
        _match_resources(spec["matchConstraints"])


def _policy_binding(document: Object) -> None:
    spec = _part(document, "spec")
    if isinstance(spec.get("matchResources"), dict):
        _match_resources(spec["matchResources"])


def _match_resources(holder: dict[str, Any]) -> None:
    _defaults(holder, {"matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {}})
    for rule in _each(holder, "resourceRules"):
        rule.setdefault("scope", "*")


def _definition(document: Object) -> None:
    spec = _part(document, "spec")
    names = _part(spec, "names")
    kind = str(names.get("kind", ""))
    _defaults(names, {"singular": kind.lower(), "listKind": f"{kind}List"})
    spec.setdefault("conversion", {"strategy": "None"})
    when = document["metadata"]["creationTimestamp"]
    conditions = [
        {
            "type": type_,
            "status": "True",
            "reason": reason,
            "message": message,
            "lastTransitionTime": when,
        }
        for type_, reason, message in (
            ("NamesAccepted", "NoConflicts", "no conflicts found"),
            ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        )
    ]
    stored = [one.get("name") for one in _each(spec, "versions") if one.get("storage")]
    status = {"conditions": conditions, "acceptedNames": dict(names), "storedVersions": stored}
    _defaults(_part(document, "status"), status)


_FILLERS: dict[str, Callable[[Object], None]] = {
    "ClusterRoleBinding": _binding,
    "CronJob": _cron_job,
    "CustomResourceDefinition": _definition,
    "DaemonSet": _daemon_set,
    "Job": _job,
    "Namespace": _namespace,
    "PersistentVolume": _persistent_volume,
    "PersistentVolumeClaim": _claim,
    "Pod": _pod,
    "RoleBinding": _binding,
    "Secret": _secret,
    "Service": _service,
    "ValidatingAdmissionPolicy": _policy,
    "ValidatingAdmissionPolicyBinding": _policy_binding,
}
