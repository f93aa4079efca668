"""The kinds of objects that the mock's API server serves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgefleet_kubernetes.cloud.api_status import (
    NoPage,
    Refused,
    bad_request,
    nothing_there,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

VERBS = (
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
)


@dataclass(frozen=True)
class Kind:
    """A kind of object.

    Attributes:
        group: of the API; empty for the core.
        version: of the API.
        kind: as objects write it.
        plural: as addresses write it.
        namespaced: whether its objects lie in namespaces.
        status: whether status is a subresource of its own.
        spec: whether ``metadata.generation`` counts changes of it.
        short: what kubectl takes for it, too.
        others: subresources beside status, such as ``eviction``.
        stored: whether there are objects; False for what is only asked, such as an access review.
        schema: of what a custom resource definition gives; None for a kind of Kubernetes' own.
    """

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    status: bool = False
    spec: bool = False
    short: tuple[str, ...] = ()
    others: tuple[tuple[str, str], ...] = ()
    stored: bool = True
    schema: Mapping[str, Any] | None = field(default=None, hash=False)

    @property
    def api_version(self) -> str:
        """As objects write it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """As messages write it: ``daemonsets.apps``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def singular(self) -> str:
        """As kubectl takes it."""
        return self.kind.lower()


def _kind(api: str, kind: str, plural: str, flags: str = "", *more: Any) -> Kind:  # noqa: ANN401
    """Flags: ``c`` cluster-wide, ``s`` status, ``g`` generation, ``a`` only asked."""
    group, _, version = api.rpartition("/")
    short = tuple(one for one in more if isinstance(one, str))
    others = tuple(one for one in more if isinstance(one, tuple))
    return Kind(
        group,
        version,
        kind,
        plural,
        namespaced="c" not in flags,
        status="s" in flags,
        spec="g" in flags,
        short=short,
        others=others,
        stored="a" not in flags,
    )


_ADMISSION = "admissionregistration.k8s.io/v1"
_RBAC = "rbac.authorization.k8s.io/v1"
_ACCESS = "authorization.k8s.io/v1"
KINDS = (
    _kind("v1", "Namespace", "namespaces", "cs", "ns", ("finalize", "Namespace")),
    _kind("v1", "Node", "nodes", "cs", "no"),
    _kind(
        "v1",
        "Pod",
        "pods",
        "sg",
        "po",
        ("binding", "Binding"),
        ("eviction", "Eviction"),
        ("log", "Pod"),
        ("proxy", "Pod"),
    ),
    _kind("v1", "ConfigMap", "configmaps", "", "cm"),
    _kind("v1", "Secret", "secrets"),
    _kind("v1", "Service", "services", "s", "svc"),
    _kind("v1", "ServiceAccount", "serviceaccounts", "", "sa", ("token", "TokenRequest")),
    _kind("v1", "Event", "events", "", "ev"),
    _kind("v1", "PersistentVolume", "persistentvolumes", "cs", "pv"),
    _kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims", "s", "pvc"),
    _kind("v1", "ResourceQuota", "resourcequotas", "s", "quota"),
    _kind("apps/v1", "DaemonSet", "daemonsets", "sg", "ds"),
    _kind("apps/v1", "ControllerRevision", "controllerrevisions"),
    _kind("batch/v1", "Job", "jobs", "sg"),
    _kind("batch/v1", "CronJob", "cronjobs", "sg", "cj"),
    _kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", "sg", "pdb"),
    _kind("coordination.k8s.io/v1", "Lease", "leases"),
    _kind("node.k8s.io/v1", "RuntimeClass", "runtimeclasses", "c"),
    _kind("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", "c", "pc"),
    _kind("storage.k8s.io/v1", "StorageClass", "storageclasses", "c", "sc"),
    _kind(_RBAC, "Role", "roles"),
    _kind(_RBAC, "RoleBinding", "rolebindings"),
    _kind(_RBAC, "ClusterRole", "clusterroles", "c"),
    _kind(_RBAC, "ClusterRoleBinding", "clusterrolebindings", "c"),
    _kind(_ADMISSION, "ValidatingAdmissionPolicy", "validatingadmissionpolicies", "csg"),
    _kind(_ADMISSION, "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", "c"),
    _kind(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        "csg",
        "crd",
        "crds",
    ),
    _kind(_ACCESS, "SelfSubjectAccessReview", "selfsubjectaccessreviews", "ca"),
    _kind(_ACCESS, "SubjectAccessReview", "subjectaccessreviews", "ca"),
    _kind("authentication.k8s.io/v1", "SelfSubjectReview", "selfsubjectreviews", "ca"),
    _kind("authentication.k8s.io/v1", "TokenReview", "tokenreviews", "ca"),
)
"""What every cluster has here; see
https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.34/."""


def kind_of_definition(definition: Mapping[str, Any]) -> Kind:
    """The kind that a CustomResourceDefinition makes: its version that is stored."""
    spec = definition["spec"]
    names = spec["names"]
    version = next(one for one in spec["versions"] if one.get("storage"))
    schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
    return Kind(
        spec["group"],
        version["name"],
        names["kind"],
        names["plural"],
        namespaced=spec["scope"] == "Namespaced",
        status="status" in (version.get("subresources") or {}),
        spec=True,
        short=tuple(names.get("shortNames") or ()),
        schema=schema,
    )


class Kinds:
    """All kinds of one cluster: Kubernetes' own, and what custom resource definitions add."""

    def __init__(self) -> None:
        self._by_kind: dict[str, Kind] = {}
        self._by_path: dict[tuple[str, str, str], Kind] = {}
        for kind in KINDS:
            self.add(kind)

    def __iter__(self) -> Iterator[Kind]:
        return iter(tuple(self._by_kind.values()))

    def add(self, kind: Kind) -> None:
        """Have another kind, or a kind with another schema."""
        self._by_kind[kind.kind] = kind
        self._by_path[kind.group, kind.version, kind.plural] = kind

    def remove(self, kind: str) -> None:
        """Have a kind no longer."""
        found = self._by_kind.pop(kind, None)
        if found is not None:
            del self._by_path[found.group, found.version, found.plural]

    def named(self, kind: str | Kind) -> Kind:
        """The kind of a name, such as ``DaemonSet``.

        Raises:
            Refused: there is none.
        """
        if isinstance(kind, Kind):
            return kind
        found = self._by_kind.get(kind)
        if found is None:
            raise nothing_there()
        return found

    def at(self, group: str, version: str, plural: str) -> Kind:
        """The kind at an address.

        Raises:
            Refused: there is none.
        """
        found = self._by_path.get((group, version, plural))
        if found is None:
            served = any((one.group, one.version) == (group, version) for one in self)
            raise nothing_there() if served else NoPage()
        return found

    def of(self, document: Mapping[str, Any]) -> Kind:
        """The kind that an object says it is of.

        Raises:
            Refused: it doesn't say, or there is none.
        """
        kind, version = document.get("kind"), document.get("apiVersion")
        if not isinstance(kind, str) or not kind:
            raise bad_request("Object 'Kind' is missing in the request body")
        found = self._by_kind.get(kind)
        if found is None or found.api_version != version:
            raise Refused(
                400,
                "BadRequest",
                f'no kind "{kind}" is registered for version "{version}" in the mock\'s scheme',
            )
        return found
