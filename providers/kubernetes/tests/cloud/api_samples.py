"""Objects that tests of the API server write."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]


def config_map(name: str = "a", data: dict[str, str] | None = None, **metadata: Any) -> Object:
    """A ConfigMap."""
    found: Object = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, **metadata},
    }
    if data is not None:
        found["data"] = data
    return found


def pod_spec(**changes: Any) -> Object:
    """A pod's spec, which the restricted standard lets through."""
    container = {
        "name": "main",
        "image": "registry.example/app:1",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        **changes,
    }


def pod(name: str = "p", *, labels: dict[str, str] | None = None, **spec: Any) -> Object:
    """A pod."""
    metadata = {"name": name, "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod_spec(**spec)}


def daemon_set(name: str = "d", **spec: Any) -> Object:
    """A DaemonSet."""
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": pod_spec()}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": labels}, "template": template, **spec},
    }


def job(name: str = "j", **spec: Any) -> Object:
    """A Job."""
    template = {"spec": pod_spec(restartPolicy="Never")}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": template, **spec},
    }


def plain(kind: str, name: str, api: str = "v1", **more: Any) -> Object:
    """An object of any kind."""
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name}, **more}
