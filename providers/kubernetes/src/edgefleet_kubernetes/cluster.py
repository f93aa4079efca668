"""One cluster's API, for objects as plain dicts.

What we put in place is applied by the server, under our own field manager and never by force: a
field that somebody else manages is a conflict, which names them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from lightkube.core.exceptions import ApiError
from lightkube.models.meta_v1 import Status

from edgefleet.errors import AlreadyExistsError, ConflictError
from edgefleet.interfaces.abilities import Reply
from edgefleet.protocol.typed import UNREADABLE, convert, decoder
from edgefleet_kubernetes.errors import reason_of, status_of
from edgefleet_kubernetes.names import FLEET, MANAGED_BY, MANAGER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import httpx2

    from edgefleet_kubernetes.clients import Clients

Object = dict[str, Any]

_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
PAGE = 500  # objects of a listing at once, as kubectl asks for them
_RBAC = "rbac.authorization.k8s.io"


class Kind(NamedTuple):
    """A kind of object that we handle."""

    group: str
    version: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As objects write it."""
        return f"{self.group}/{self.version}" if self.group else self.version


KINDS: dict[str, Kind] = {
    "ClusterRole": Kind(_RBAC, "v1", "clusterroles", namespaced=False),
    "ClusterRoleBinding": Kind(_RBAC, "v1", "clusterrolebindings", namespaced=False),
    "ConfigMap": Kind("", "v1", "configmaps"),
    "DaemonSet": Kind("apps", "v1", "daemonsets"),
    "Event": Kind("", "v1", "events"),
    "Job": Kind("batch", "v1", "jobs"),
    "Namespace": Kind("", "v1", "namespaces", namespaced=False),
    "Node": Kind("", "v1", "nodes", namespaced=False),
    "PersistentVolume": Kind("", "v1", "persistentvolumes", namespaced=False),
    "PersistentVolumeClaim": Kind("", "v1", "persistentvolumeclaims"),
    "Pod": Kind("", "v1", "pods"),
    "PodDisruptionBudget": Kind("policy", "v1", "poddisruptionbudgets"),
    "Role": Kind(_RBAC, "v1", "roles"),
    "RoleBinding": Kind(_RBAC, "v1", "rolebindings"),
    "Secret": Kind("", "v1", "secrets"),
    "SelfSubjectAccessReview": Kind(
        "authorization.k8s.io", "v1", "selfsubjectaccessreviews", namespaced=False
    ),
    "Service": Kind("", "v1", "services"),
    "ServiceAccount": Kind("", "v1", "serviceaccounts"),
    "TrainJob": Kind("trainer.kubeflow.org", "v1alpha1", "trainjobs"),
    "ValidatingAdmissionPolicy": Kind(
        "admissionregistration.k8s.io", "v1", "validatingadmissionpolicies", namespaced=False
    ),
    "ValidatingAdmissionPolicyBinding": Kind(
        "admissionregistration.k8s.io", "v1", "validatingadmissionpolicybindings", namespaced=False
    ),
}


class Cluster:
    """One cluster.

    Args:
        clients: to reach it with.
        context: its name in the kubeconfig.
    """

    def __init__(self, clients: Clients, context: str) -> None:
        self._clients = clients
        self.context = context

    def get(self, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """An object; None for none."""
        return self._unless_gone("GET", address(kind, namespace, name))

    def list(
        self,
        kind: str,
        namespace: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> Iterator[Object]:
        """Objects with all these labels and fields, page by page."""
        query = {"limit": str(PAGE)}
        for name, wanted in (("labelSelector", labels), ("fieldSelector", fields)):
            if wanted:
                query[name] = ",".join(f"{key}={value}" for key, value in wanted.items())
        while True:
            page = self._call("GET", address(kind, namespace), query=query)
            # Items of a list don't say what they are.
            for one in page["items"]:
                yield {"apiVersion": KINDS[kind].api_version, **one, "kind": kind}
            query["continue"] = page["metadata"].get("continue") or ""
            if not query["continue"]:
                return

    def serves(self, kind: str, namespace: str) -> bool:
        """Whether the cluster has a kind of object, such as one of an operator that is optional."""
        page = self._unless_gone("GET", address(kind, namespace), query={"limit": "1"})
        return page is not None

    def log(
        self, pod: str, container: str, namespace: str, *, since_s: int | None = None
    ) -> Iterator[str]:
        """Lines that a container printed, each behind the time when it did.

        Args:
            pod: its name.
            container: in the pod.
            namespace: of the pod.
            since_s: lines of the last so many seconds, by the node's clock; None for all.
        """
        query = {"container": container, "timestamps": "true"}
        if since_s is not None:
            query["sinceSeconds"] = str(since_s)
        return self.lines(f"{address('Pod', namespace, pod)}/log", query)

    def apply(self, document: Object, *, dry_run: bool = False) -> Object:
        """Have an object be as it is given, as far as it is given.

        Args:
            document: whole, with what names it.
            dry_run: go through all checks, and keep nothing.

        Returns:
            The object as it is then.

        Raises:
            ConflictError: somebody else manages one of its fields; or it has another version than
                the one given.
        """
        query = {"fieldManager": MANAGER, **({"dryRun": "All"} if dry_run else {})}
        try:
            return self._call(
                "PATCH", _place(document), document=document, query=query, media=_APPLY
            )
        except Exception as error:
            status = status_of(error)
            if status is None or status.code != 409:
                raise
            raise conflict_of(document, status, self.context) from error

    def create(self, document: Object) -> Object:
        """Make an object.

        Raises:
            AlreadyExistsError: it is there.
        """
        metadata, query = document["metadata"], {"fieldManager": MANAGER}
        path = address(document["kind"], metadata.get("namespace"))
        try:
            return self._call("POST", path, document=document, query=query)
        except Exception as error:
            if reason_of(error) != "AlreadyExists":
                raise
            raise AlreadyExistsError(f"{place_of(document)} is there") from error

    def review(self, attributes: Mapping[str, str]) -> bool:
        """Whether whoever calls may do something.

        Args:
            attributes: ``verb``, ``resource`` and so on, of a SelfSubjectAccessReview.
        """
        kind = "SelfSubjectAccessReview"
        document = {
            "apiVersion": KINDS[kind].api_version,
            "kind": kind,
            "spec": {"resourceAttributes": dict(attributes)},
        }
        found = self._call("POST", address(kind), document=document)
        return bool((found.get("status") or {}).get("allowed"))

    def merge(
        self, kind: str, name: str, change: Object, namespace: str | None = None
    ) -> Object | None:
        """Change an object by a merge patch; None where it isn't there.

        Raises:
            ConflictError: it has another version than the patch says.
        """
        path, query = address(kind, namespace, name), {"fieldManager": MANAGER}
        try:
            return self._unless_gone("PATCH", path, document=change, query=query, media=_MERGE)
        except Exception as error:
            if reason_of(error) != "Conflict":
                raise
            raise ConflictError(f"{kind} {name} was changed by somebody else") from error

    def delete(self, kind: str, name: str, namespace: str | None = None) -> None:
        """Delete an object, and what it owns with it; none is no error."""
        query = {"propagationPolicy": "Background"}
        self._unless_gone("DELETE", address(kind, namespace, name), query=query)

    def version(self) -> tuple[int, int]:
        """Of Kubernetes: major and minor."""
        found = self._call("GET", "version")
        digits = [re.sub(r"\D.*", "", str(found[part])) for part in ("major", "minor")]
        return int(digits[0]), int(digits[1])  # vendors write 29+

    def lines(self, path: str, query: Mapping[str, str]) -> Iterator[str]:
        """Lines of an answer that is text."""
        with self._clients.stream(path, query=query, context=self.context) as found:
            yield from found

    def ask(
        self,
        path: str,
        *,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout_s: float,
    ) -> Reply:
        """Carry one request to what the API server is a proxy of, and its answer back.

        Args:
            path: of the proxy, and what follows.
            body: a POST with these bytes; None for a GET.
            headers: of the request.
            timeout_s: give up after so many seconds.

        Raises:
            lightkube.ApiError: the API server itself says no: it may not be asked, or reaches
                nobody there.
        """
        response = self._clients.http(self.context).request(
            "GET" if body is None else "POST",
            path,
            content=body,
            headers=dict(headers),
            timeout=timeout_s,
        )
        refusal = _refusal(response)
        if refusal is not None:
            raise ApiError(request=response.request, status=refusal)
        given = {key.lower(): value for key, value in response.headers.items()}
        return Reply(response.status_code, given, response.content)

    def _call(self, method: str, path: str, **options: Any) -> Object:  # noqa: ANN401 - of `Clients.call`
        found: Object = self._clients.call(method, path, context=self.context, **options)
        return found

    def _unless_gone(self, method: str, path: str, **options: Any) -> Object | None:  # noqa: ANN401 - likewise
        try:
            return self._call(method, path, **options)
        except Exception as error:
            if reason_of(error) != "NotFound":
                raise
            return None


def address(kind: str, namespace: str | None = None, name: str = "") -> str:
    """Path of objects of a kind, or of one of them."""
    found = KINDS[kind]
    start = f"apis/{found.group}/{found.version}" if found.group else f"api/{found.version}"
    where = f"/namespaces/{namespace}" if namespace is not None else ""
    return f"{start}{where}/{found.plural}" + (f"/{quote(name)}" if name else "")


def _place(document: Object) -> str:
    metadata = document["metadata"]
    return address(document["kind"], metadata.get("namespace"), metadata["name"])


def _refusal(response: httpx2.Response) -> Status | None:
    """What an API server says instead of what it is a proxy of; None where that answered.

    Its own errors on the way to a pod are a ``Status``, too: ``pkg/util/proxy/transport.go`` of
    apimachinery. What only looks like one is the pod's.
    """
    if not response.is_error:
        return None
    try:
        told = decoder(dict[str, Any]).decode(response.content)
        if (told.get("apiVersion"), told.get("kind")) != ("v1", "Status"):
            return None
        return convert(told, Status)
    except UNREADABLE:
        return None


def is_ours(found: Object, prefix: str) -> bool:
    """Whether an object is the fleet's."""
    labels = found["metadata"].get("labels") or {}
    return labels.get(FLEET) == prefix and labels.get(MANAGED_BY) == MANAGER


def place_of(found: Object) -> str:
    """Kind, namespace and name, for messages."""
    metadata = found["metadata"]
    where = f"{metadata['namespace']}/" if metadata.get("namespace") else ""
    return f"{found['kind']} {where}{metadata['name']}"


def conflict_of(document: Object, status: Status, context: str) -> ConflictError:
    """What stands against an apply, with the managers and fields that it is about."""
    causes = (status.details.causes or ()) if status.details else ()
    ours = [one for one in causes if one.reason == "FieldManagerConflict"]
    where = f"{place_of(document)} in {context}"
    if not ours:
        return ConflictError(f"{where} was changed by somebody else", cure="repeat the call")
    fields = ", ".join(sorted({str(one.field) for one in ours}))
    managers = ", ".join(sorted({_manager(one.message or "") for one in ours}))
    return ConflictError(
        f"{where}: {managers} manages {fields}",
        cure="have them give it up (kubectl get -o yaml --show-managed-fields shows it), or take "
        "it over once: kubectl apply --server-side --force-conflicts --field-manager=edgefleet "
        "of what a dry run writes",
        retryable=False,
    )


def _manager(message: str) -> str:
    """The manager's name, of ``conflict with "NAME" using v1``."""
    return message.partition('"')[2].partition('"')[0] or "another field manager"
