"""Every object of a fleet, as plain dicts in the order in which they are applied. Pure.

Rules kept here:

- The same settings give the same objects, in the same order, and the same bytes of YAML.
- All have the fleet's labels, by which a teardown finds them.
- A release changes a ConfigMap and nothing of a DaemonSet, so no pod restarts for a model. The
  exception is a profile with ``model_images``, whose pods mount the releases that they may run.
- Devices' reports have a namespace of their own, so that a device's role never reaches a pointer.
- Namespaces are held to the "restricted" pod security standard, but where the profile wants the
  store's folder mounted without a PersistentVolume.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgefleet.protocol.digest import hex_of
from edgefleet.protocol.release import EMPTY
from edgefleet_kubernetes import roles
from edgefleet_kubernetes.names import (
    FLEET,
    GROUP,
    POINTER_KEY,
    REPORT_KEY,
    cluster_name,
    device_account,
    fleet_labels,
    object_name,
    pointer_name,
    report_name,
    runtime_name,
)
from edgefleet_kubernetes.pod import PORT, PORT_NAME, pod_spec, store_claim

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from edgefleet.protocol.pointer import Pointer
    from edgefleet_kubernetes.settings import KubernetesSettings

Document = dict[str, Any]

MAX_REPORT = 8 << 10  # bytes; `edgefleet.protocol.report` writes 7 KiB at most
NODE_CLAIM = "authentication.kubernetes.io/node-name"
"""In a pod's token since Kubernetes 1.30, where admission policies are stable as well."""
POLICIES_SINCE = (1, 30)
IMAGES_SINCE = (1, 31)
"""Volumes from images, with the feature gate ImageVolume, which later versions have on."""
_RBAC = "rbac.authorization.k8s.io"
_ADMISSION = "admissionregistration.k8s.io"
_VOLUME_SIZE = "10Gi"  # claim and volume must name one; nothing holds a folder to it


def fleet_documents(settings: KubernetesSettings, *, policies: bool = True) -> list[Document]:
    """What a fleet has once in each cluster.

    Args:
        settings: of the fleet.
        policies: whether the cluster knows ValidatingAdmissionPolicy, from Kubernetes 1.30 on.
    """
    return [
        *namespaces(settings),
        _device_account(settings),
        *_roles(settings),
        *(_report_policy(settings) if policies else ()),
        *(_store(settings) if settings.store == "claim" else ()),
    ]


def group_documents(
    settings: KubernetesSettings, group: str, pointer: Pointer | None = None
) -> list[Document]:
    """What a group has in each cluster, but for its pointer.

    Args:
        settings: of the fleet.
        group: its bare name.
        pointer: in place there, whose releases' images are mounted where the profile wants it.

    Raises:
        ProfileError: the profile names no image of the runtime.
    """
    budget = [_budget(settings, group)] if settings.min_available else []
    watching = _watching(settings, group) if settings.watch_pointers else []
    return [*watching, _service(settings, group), *budget, daemon_set(settings, group, pointer)]


def namespaces(settings: KubernetesSettings) -> list[Document]:
    """Namespaces, held to the pod security standard that their pods pass."""
    level = "restricted" if settings.store == "claim" else "privileged"
    held = {
        settings.namespace: level,
        settings.reports_namespace: "restricted",
        settings.training_namespace: "restricted",
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": name,
                "labels": {
                    **fleet_labels(settings.prefix),
                    "pod-security.kubernetes.io/audit": "restricted",
                    "pod-security.kubernetes.io/enforce": enforced,
                },
            },
        }
        for name, enforced in held.items()
    ]


def pointer_document(settings: KubernetesSettings, group: str, pointer: Pointer) -> Document:
    """The ConfigMap that brings a pointer to a group's devices; the pointer as it was written."""
    name = pointer_name(settings.prefix, group)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(settings, name, group=group, part="pointer"),
        "data": {POINTER_KEY: pointer.encoded().decode()},
    }


def daemon_set(
    settings: KubernetesSettings, group: str, pointer: Pointer | None = None
) -> Document:
    """The DaemonSet that has each of a group's nodes run the runtime.

    Args:
        settings: of the fleet.
        group: its bare name.
        pointer: as for `group_documents`.

    Raises:
        ProfileError: the profile names no image of the runtime.
    """
    limit = settings.max_unavailable
    unavailable: int | str = limit if limit.endswith("%") else int(limit)
    annotations = {
        "prometheus.io/path": "/metrics",
        "prometheus.io/port": str(PORT),
        "prometheus.io/scrape": "true",
    }
    name = runtime_name(settings.prefix, group)
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": _metadata(settings, name, group=group, part="runtime"),
        "spec": {
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": _selector(settings, group)},
            "updateStrategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": unavailable},
            },
            "template": {
                "metadata": {
                    "labels": fleet_labels(settings.prefix, group=group, part="runtime"),
                    "annotations": annotations,
                },
                "spec": {
                    "nodeSelector": {FLEET: settings.prefix, GROUP: group},
                    **pod_spec(settings, group, image_references(settings, pointer)),
                },
            },
        },
    }


def image_references(settings: KubernetesSettings, pointer: Pointer | None) -> tuple[str, ...]:
    """The images of a pointer's releases; none where the profile names no ``model_images``."""
    if settings.model_images is None or pointer is None:
        return ()
    ahead = () if pointer.next is None else (pointer.next.release,)
    wanted = dict.fromkeys((pointer.current, *ahead))
    return tuple(
        f"{settings.model_images}:{image_tag(release)}"
        for release in wanted
        if release != EMPTY.digest
    )


def restart_warnings(
    settings: KubernetesSettings, group: str, before: Iterable[Pointer | None], after: Pointer
) -> Iterator[str]:
    """That publishing restarts a group's pods, where they mount images and get others.

    Args:
        settings: of the fleet.
        group: its name.
        before: pointers in place, of each cluster.
        after: the one to be published.
    """
    if settings.model_images is None:
        return
    wanted = image_references(settings, after)
    if any(image_references(settings, one) != wanted for one in before):
        yield (
            f"{group}: publishing restarts the pods, {settings.max_unavailable} at a time, because "
            "they mount their releases' images (`model_images` of the profile)"
        )


def image_tag(release: str) -> str:
    """The tag of a release's image, which is also the name of its volume."""
    return f"release-{hex_of(release)[:12]}"


def _metadata(settings: KubernetesSettings, name: str, **labels: str) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": settings.namespace,
        "labels": fleet_labels(settings.prefix, **labels),
    }


def _selector(settings: KubernetesSettings, group: str) -> dict[str, str]:
    found = fleet_labels(settings.prefix, group=group, part="runtime")
    return {key: value for key, value in found.items() if "/managed-by" not in key}


def _service(settings: KubernetesSettings, group: str) -> Document:
    name = runtime_name(settings.prefix, group)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(settings, name, group=group, part="runtime"),
        "spec": {
            "type": "ClusterIP",
            # An application asks the runtime of its own node, or none.
            "internalTrafficPolicy": "Local",
            "selector": _selector(settings, group),
            "ports": [
                {"name": PORT_NAME, "port": PORT, "targetPort": PORT_NAME, "protocol": "TCP"}
            ],
        },
    }


def _budget(settings: KubernetesSettings, group: str) -> Document:
    # For pods of a DaemonSet a budget takes whole numbers of available ones only:
    # https://kubernetes.io/docs/tasks/run-application/configure-pdb/, "Arbitrary workloads".
    name = runtime_name(settings.prefix, group)
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(settings, name, group=group, part="runtime"),
        "spec": {
            "minAvailable": settings.min_available,
            "selector": {"matchLabels": _selector(settings, group)},
            # A runtime that isn't ready protects nothing.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def _device_account(settings: KubernetesSettings) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": _metadata(settings, device_account(settings.prefix), part="device"),
        "automountServiceAccountToken": False,
    }


def _device(settings: KubernetesSettings) -> dict[str, str]:
    name = device_account(settings.prefix)
    return {"kind": "ServiceAccount", "name": name, "namespace": settings.namespace}


def _roles(settings: KubernetesSettings) -> list[Document]:
    operators = [roles.subject(who) for who in settings.operators]
    return [
        *role_documents(settings, "device", roles.DEVICE, [_device(settings)]),
        *role_documents(
            settings, "operator", roles.operators(images=bool(settings.model_images)), operators
        ),
    ]


def _watching(settings: KubernetesSettings, group: str) -> list[Document]:
    """What lets a group's devices watch their pointer."""
    return role_documents(settings, "watch", roles.WATCH, [_device(settings)], group=group)


def role_documents(
    settings: KubernetesSettings,
    who: str,
    rules: roles.Rules,
    subjects: list[dict[str, str]],
    *,
    group: str = "",
) -> list[Document]:
    """A role at each place that rules stand at, and its binding where somebody has it.

    Args:
        settings: of the fleet.
        who: has it, such as ``operator``.
        rules: by place.
        subjects: of the bindings; empty for none.
        group: that the rules are about; empty for the fleet.
    """
    found = []
    for place, held in rules.items():
        namespace = roles.namespace_of(place, settings)
        kind = "ClusterRole" if namespace is None else "Role"
        if namespace is None:
            metadata: Document = {"name": cluster_name(settings.namespace, settings.prefix, who)}
        else:
            metadata = {
                "name": object_name(settings.prefix, who, group),
                "namespace": namespace,
            }
        labels = {"part": "access", **({"group": group} if group else {})}
        metadata["labels"] = fleet_labels(settings.prefix, **labels)
        api = f"{_RBAC}/v1"
        written = roles.written(held, settings, group=group)
        found.append({"apiVersion": api, "kind": kind, "metadata": metadata, "rules": written})
        if subjects:
            binding = {
                "apiVersion": api,
                "kind": f"{kind}Binding",
                "metadata": metadata,
                "roleRef": {"apiGroup": _RBAC, "kind": kind, "name": metadata["name"]},
                "subjects": subjects,
            }
            found.append(binding)
    return found


def _report_policy(settings: KubernetesSettings) -> list[Document]:
    """Holds a device to its own report: the one with the name of its pod's node."""
    name = cluster_name(settings.namespace, settings.prefix, "reports")
    account = f"system:serviceaccount:{settings.namespace}:{device_account(settings.prefix)}"
    claim = f"request.userInfo.extra['{NODE_CLAIM}']"
    own = report_name(settings.prefix, "")
    labels = fleet_labels(settings.prefix, part="access")
    metadata = {"name": name, "labels": labels}
    small = f"size(object.data['{REPORT_KEY}']) <= {MAX_REPORT}"
    policy = {
        "apiVersion": f"{_ADMISSION}/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": metadata,
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": ["configmaps"],
                    }
                ]
            },
            "matchConditions": [
                {"name": "by-a-device", "expression": f"request.userInfo.username == '{account}'"}
            ],
            "validations": [
                {
                    "expression": f"'{NODE_CLAIM}' in request.userInfo.extra && "
                    f"object.metadata.name == '{own}' + {claim}[0]",
                    "message": "a device writes the report of its own node alone",
                    "reason": "Forbidden",
                },
                {
                    "expression": "!has(object.binaryData) && has(object.data) && "
                    f"size(object.data) == 1 && '{REPORT_KEY}' in object.data && {small}",
                    "message": f"a report is {REPORT_KEY} alone, of {MAX_REPORT} bytes at most",
                    "reason": "Invalid",
                },
            ],
        },
    }
    where = {"kubernetes.io/metadata.name": settings.reports_namespace}
    binding = {
        "apiVersion": f"{_ADMISSION}/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": metadata,
        "spec": {
            "policyName": name,
            "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": where}},
        },
    }
    return [policy, binding]


def _store(settings: KubernetesSettings) -> list[Document]:
    """A volume that is a folder of whichever node a pod is on, and the claim on it.

    A volume of the type ``hostPath`` is tied to no node, so one claim does for all pods of a
    DaemonSet; pods with a claim pass the "restricted" standard, and only who may make
    PersistentVolumes decides which folder it is.
    """
    name = cluster_name(settings.namespace, settings.prefix, "store")
    claim = store_claim(settings.prefix)
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name, "labels": fleet_labels(settings.prefix, part="store")},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "capacity": {"storage": _VOLUME_SIZE},
                "claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "name": claim,
                    "namespace": settings.namespace,
                },
                "hostPath": {"path": settings.host_path, "type": "Directory"},
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "",
                "volumeMode": "Filesystem",
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": _metadata(settings, claim, part="store"),
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "resources": {"requests": {"storage": _VOLUME_SIZE}},
                "storageClassName": "",
                "volumeMode": "Filesystem",
                "volumeName": name,
            },
        },
    ]
