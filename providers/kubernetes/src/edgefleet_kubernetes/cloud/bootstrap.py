"""What every cluster has before anybody came: namespaces, roles, and what each namespace gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgefleet_kubernetes.cloud.api_objects import meta
from edgefleet_kubernetes.cloud.api_users import AUTHENTICATED, MASTERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet_kubernetes.cloud.api_kinds import Kind
    from edgefleet_kubernetes.cloud.api_objects import Object
    from edgefleet_kubernetes.cloud.api_store import Store

NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
_RBAC = "rbac.authorization.k8s.io"
_READ = ["get", "list", "watch"]
_WRITE = ["create", "delete", "deletecollection", "patch", "update"]
_DISCOVERY = ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*"]
_WORK: tuple[tuple[str, list[str]], ...] = (
    ("", ["configmaps", "persistentvolumeclaims", "pods", "services", "serviceaccounts"]),
    ("apps", ["daemonsets", "controllerrevisions"]),
    ("batch", ["cronjobs", "jobs"]),
    ("policy", ["poddisruptionbudgets"]),
)
_MORE_TO_READ = ["events", "namespaces", "pods/log", "resourcequotas"]


def _rule(groups: list[str], resources: list[str], verbs: list[str]) -> dict[str, Any]:
    return {"apiGroups": groups, "resources": resources, "verbs": verbs}


def _paths(*paths: str) -> dict[str, Any]:
    return {"nonResourceURLs": list(paths), "verbs": ["get"]}


_VIEW = [_rule([group], names, _READ) for group, names in _WORK]
_VIEW.append(_rule([""], _MORE_TO_READ, _READ))
_EDIT = [*_VIEW, *(_rule([group], names, _WRITE) for group, names in _WORK)]
_EDIT.append(_rule([""], ["secrets"], [*_READ, *_WRITE]))
_ADMIN = [*_EDIT, _rule([_RBAC], ["roles", "rolebindings"], [*_READ, *_WRITE])]
_ALL = [_rule(["*"], ["*"], ["*"]), {"nonResourceURLs": ["*"], "verbs": ["*"]}]
_ASK = [
    _rule(["authorization.k8s.io"], ["selfsubjectaccessreviews"], ["create"]),
    _rule(["authentication.k8s.io"], ["selfsubjectreviews"], ["create"]),
]
_ROLES: dict[str, tuple[list[dict[str, Any]], tuple[str, ...]]] = {
    "admin": (_ADMIN, ()),
    "cluster-admin": (_ALL, (MASTERS,)),
    "edit": (_EDIT, ()),
    "system:basic-user": (_ASK, (AUTHENTICATED,)),
    "system:discovery": (
        [_paths(*_DISCOVERY, "/readyz", "/version", "/version/")],
        (AUTHENTICATED,),
    ),
    "system:public-info-viewer": (
        [_paths("/healthz", "/livez", "/readyz", "/version", "/version/")],
        (AUTHENTICATED, "system:unauthenticated"),
    ),
    "view": (_VIEW, ()),
}


def bootstrap(store: Store, authority: str) -> None:
    """Have what every cluster has; what is there already stays.

    Args:
        store: of the cluster's objects.
        authority: certificate that the API server is trusted by, in PEM.
    """
    store.on_write.append(_furnish(store, authority))
    for name in NAMESPACES:
        _once(store, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    version = f"{_RBAC}/v1"
    for name, (rules, groups) in _ROLES.items():
        role = {"apiVersion": version, "kind": "ClusterRole", "metadata": {"name": name}}
        _once(store, {**role, "rules": rules})
        if groups:
            subjects = [{"kind": "Group", "apiGroup": _RBAC, "name": group} for group in groups]
            reference = {"apiGroup": _RBAC, "kind": "ClusterRole", "name": name}
            binding = {**role, "kind": "ClusterRoleBinding"}
            _once(store, {**binding, "subjects": subjects, "roleRef": reference})


def _furnish(store: Store, authority: str) -> Callable[[Kind, Object | None, Object | None], None]:
    """What gives each new namespace its default account and the cluster's authority."""

    def furnish(kind: Kind, old: Object | None, new: Object | None) -> None:
        if kind.kind != "Namespace" or old is not None or new is None:
            return
        where = {"namespace": meta(new)["name"]}
        account = {"metadata": {**where, "name": "default"}}
        store.create({"apiVersion": "v1", "kind": "ServiceAccount", **account})
        given = {"metadata": {**where, "name": "kube-root-ca.crt"}, "data": {"ca.crt": authority}}
        store.create({"apiVersion": "v1", "kind": "ConfigMap", **given})

    return furnish


def _once(store: Store, document: Object) -> None:
    if store.find(document["kind"], meta(document)["name"]) is None:
        store.create(document)
