"""The pod that runs the runtime on a node. Pure.

Rules kept here:

- It passes the "restricted" pod security standard, but for the volume of its store where the
  profile says ``store = "hostPath"``. GPUs and cameras come as resources of device
  plugins, which need no exception.
- Nothing of a model is in it, but for the images of releases where the profile names
  ``model_images``: else a release changes a ConfigMap that is mounted as a folder, without
  ``subPath``, whose updates kubelet never brings.
- No token is mounted by itself. The one that is projected ends within the hour, and is tied to the
  pod and its node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgefleet_kubernetes.names import (
    POINTER_KEY,
    device_account,
    pointer_name,
    serving_secret,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefleet_kubernetes.settings import KubernetesSettings

CONTAINER = "runtime"
USER = 10001
"""Whom the runtime runs as: the image's own user, which the folder of its store belongs to."""
PORT = 8080
PORT_NAME = "http"
ORDERS_PORT = 8081
POINTER_FOLDER = "/etc/edgefleet/pointer"
STORE = "/var/lib/edgefleet"
TOKEN_FOLDER = "/var/run/secrets/edgefleet"  # noqa: S105 - a folder
ORDERS_KEY = "orders"
"""Of the Secret: the token of whoever gives orders, beside the applications' own."""
SERVING_FOLDER = "/var/run/secrets/edgefleet-serving"
REGISTRY_FOLDER = "/var/run/secrets/edgefleet-registry"
SEGMENTS_FOLDER = "/var/run/secrets/edgefleet-segments"
MODELS_FOLDER = "/var/lib/edgefleet-models"
"""Below it each image of a release is mounted, in a folder of the image's own."""
TOKEN_S = 3600  # a projected token's life; kubelet renews it after four fifths
CLUSTER_CA = "kube-root-ca.crt"
"""The ConfigMap with the API server's authority, which every namespace has."""


def pod_spec(
    settings: KubernetesSettings, group: str, images: Sequence[str] = ()
) -> dict[str, Any]:
    """The spec of a group's pods.

    Args:
        settings: of the fleet.
        group: its bare name.
        images: references of releases' images that are mounted, see `images`.

    Raises:
        ProfileError: the profile names no image of the runtime.
    """
    spec: dict[str, Any] = {
        "serviceAccountName": device_account(settings.prefix),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(settings, group, images)],
        "volumes": _volumes(settings, group) + [_image(reference) for reference in images],
    }
    if settings.pull_secret is not None:
        spec["imagePullSecrets"] = [{"name": settings.pull_secret}]
    if settings.runtime_class is not None:
        spec["runtimeClassName"] = settings.runtime_class
    if settings.priority_class is not None:
        spec["priorityClassName"] = settings.priority_class
    if settings.tolerations:
        spec["tolerations"] = [one.model_dump(exclude_none=True) for one in settings.tolerations]
    return spec


def _image(reference: str) -> dict[str, Any]:
    source = {"reference": reference, "pullPolicy": "IfNotPresent"}
    return {"name": _tag(reference), "image": source}


def _models(reference: str) -> str:
    """The folder that an image is mounted at."""
    return f"{MODELS_FOLDER}/{_tag(reference)}"


def _tag(reference: str) -> str:
    return reference.rpartition(":")[2]


def _container(settings: KubernetesSettings, group: str, images: Sequence[str]) -> dict[str, Any]:
    # A resource that isn't the node's own has to have equal request and limit.
    limits = {**settings.runtime_limits, **settings.device_resources}
    requests = {**settings.runtime_requests, **settings.device_resources}
    resources = {"requests": requests, **({"limits": limits} if limits else {})}
    return {
        "name": CONTAINER,
        "image": settings.needed("runtime_image", "installing"),
        "args": _arguments(settings, group, images),
        "env": [
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        ],
        "ports": [
            {"name": PORT_NAME, "containerPort": PORT, "protocol": "TCP"},
            {"name": "orders", "containerPort": ORDERS_PORT, "protocol": "TCP"},
        ],
        "resources": resources,
        "startupProbe": {**_probe("live"), "periodSeconds": 2, "failureThreshold": 90},
        "livenessProbe": {**_probe("live"), "periodSeconds": 10, "failureThreshold": 6},
        # Not `ready`: before the first release no pod would be, and an upgrade took all at once.
        "readinessProbe": {**_probe("settled"), "periodSeconds": 5, "failureThreshold": 2},
        # What the runtime said last is read by `edgefleet why`.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            *_mounts(settings),
            *({"name": _tag(one), "mountPath": _models(one), "readOnly": True} for one in images),
        ],
    }


def _arguments(settings: KubernetesSettings, group: str, images: Sequence[str]) -> list[str]:
    options = {
        "reports": f"{settings.reports_namespace}/{settings.prefix}",
        "pointer": f"{POINTER_FOLDER}/{POINTER_KEY}",
        "token": TOKEN_FOLDER,
        "orders": f"[$(POD_IP)]:{ORDERS_PORT}",
        "orders_token": f"{SERVING_FOLDER}/{ORDERS_KEY}",
    }
    if settings.watch_pointers:
        options["watch"] = f"{settings.namespace}/{pointer_name(settings.prefix, group)}"
    if settings.events is not None:
        options["events"] = settings.events
    if settings.pull_secret is not None:
        options["registry_credentials"] = f"{REGISTRY_FOLDER}/config.json"
    if images:
        options["models"] = ",".join(map(_models, images))
    if settings.segments is not None:
        options["segments"] = settings.segments
    if settings.segments_secret is not None:
        options["segments_credentials"] = f"{SEGMENTS_FOLDER}/config.json"
    return [
        "run",
        f"--root={STORE}",
        "--device=$(NODE_NAME)",
        "--channel=kubernetes",
        *(f"--option={key}={value}" for key, value in options.items()),
        # Brackets hold an address of either family.
        f"--http=[$(POD_IP)]:{PORT}",
        "--allow-remote",
        f"--token-file={SERVING_FOLDER}/token",
        "--open-health",
        "--open-metrics",
    ]


def _probe(what: str) -> dict[str, Any]:
    return {"httpGet": {"path": f"/v2/health/{what}", "port": PORT_NAME}, "timeoutSeconds": 5}


def _mounts(settings: KubernetesSettings) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [
        {"name": "pointer", "mountPath": POINTER_FOLDER, "readOnly": True},
        {"name": "store", "mountPath": STORE},
        {"name": "token", "mountPath": TOKEN_FOLDER, "readOnly": True},
        {"name": "serving", "mountPath": SERVING_FOLDER, "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the container's own
    ]
    if settings.pull_secret is not None:
        mounts.append({"name": "registry", "mountPath": REGISTRY_FOLDER, "readOnly": True})
    if settings.segments_secret is not None:
        mounts.append({"name": "segments", "mountPath": SEGMENTS_FOLDER, "readOnly": True})
    return mounts


def _volumes(settings: KubernetesSettings, group: str) -> list[dict[str, Any]]:
    pointer = pointer_name(settings.prefix, group)
    token = {"path": "token", "expirationSeconds": TOKEN_S}
    authority = {"name": CLUSTER_CA, "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    volumes: list[dict[str, Any]] = [
        # There is none before the first release; kubelet brings it when it comes.
        {"name": "pointer", "configMap": {"name": pointer, "optional": True, "defaultMode": 0o444}},
        {"name": "store", **store_volume(settings)},
        {
            "name": "token",
            "projected": {
                "defaultMode": 0o440,
                "sources": [{"serviceAccountToken": token}, {"configMap": authority}],
            },
        },
        {
            "name": "serving",
            "secret": {"secretName": serving_secret(settings.prefix), "defaultMode": 0o440},
        },
        {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
    ]
    for name, secret in (
        ("registry", settings.pull_secret),
        ("segments", settings.segments_secret),
    ):
        if secret is not None:
            items = [{"key": ".dockerconfigjson", "path": "config.json"}]
            content = {"secretName": secret, "items": items, "defaultMode": 0o440}
            volumes.append({"name": name, "secret": content})
    return volumes


def store_volume(settings: KubernetesSettings) -> dict[str, Any]:
    """The source of the store's volume.

    The folder has to be there: one that kubelet makes is root's, and of no use to the runtime.
    """
    if settings.store == "claim":
        return {"persistentVolumeClaim": {"claimName": store_claim(settings.prefix)}}
    return {"hostPath": {"path": settings.host_path, "type": "Directory"}}


def store_claim(prefix: str) -> str:
    """Name of the claim on the volume that is a folder of each node."""
    return f"{prefix}-store"
