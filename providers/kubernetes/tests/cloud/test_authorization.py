"""Roles: who may do what, in the vendor's words, and that nobody gives away what they haven't."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from lightkube import ApiError

from edgefleet_kubernetes.clients import Clients
from edgefleet_kubernetes.cloud.stage import Stage
from providers.kubernetes.tests.cloud.api_samples import Object, config_map, plain

GROUP = "rbac.authorization.k8s.io"
API = f"{GROUP}/v1"
READER = {"apiGroup": GROUP, "kind": "Role", "name": "reader"}
MakeClients = Callable[..., Clients]


def _rule(verbs: list[str], resources: list[str], group: str = "", **more: Any) -> Any:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs, **more}


def _grant(
    cluster: Stage, user: str, namespace: str, *rules: Any, everywhere: bool = False
) -> None:
    kind = "ClusterRole" if everywhere else "Role"
    name = f"{user}-{namespace}-{cluster.store.version}"
    subject = {"kind": "User", "apiGroup": GROUP, "name": user}
    reference = {"apiGroup": GROUP, "kind": kind, "name": name}
    role = plain(kind, name, API, rules=list(rules))
    binding = plain(f"{kind}Binding", name, API, roleRef=reference, subjects=[subject])
    for document in (role, binding):
        cluster.store.create(document, namespace="" if everywhere else namespace)


@pytest.fixture
def ada(cluster: Stage, make_clients: MakeClients, namespace: str) -> tuple[str, Clients]:
    """A user of the test's own, who may nothing, and her clients."""
    name = f"ada-{namespace}"
    return name, make_clients(cluster.add_user(name))


def _maps(namespace: str, name: str = "") -> str:
    return f"api/v1/namespaces/{namespace}/configmaps" + (f"/{name}" if name else "")


def _denied(call: Callable[[], Any]) -> str:
    with pytest.raises(ApiError) as caught:
        call()
    status = caught.value.status
    assert (status.code, status.reason) == (403, "Forbidden")
    return str(status.message)


def test_what_no_role_grants_is_refused_in_kubernetes_words(
    ada: tuple[str, Clients], namespace: str
) -> None:
    name, clients = ada
    told = _denied(lambda: clients.call("GET", _maps(namespace, "a")))
    assert told == (
        f'configmaps "a" is forbidden: User "{name}" cannot get resource "configmaps" in API group '
        f'"" in the namespace "{namespace}"'
    )
    told = _denied(lambda: clients.call("GET", "apis/apps/v1/daemonsets"))
    assert told == (
        f'daemonsets.apps is forbidden: User "{name}" cannot list resource "daemonsets" in API '
        'group "apps" at the cluster scope'
    )


def test_a_role_grants_its_verbs_in_its_namespace(
    cluster: Stage, ada: tuple[str, Clients], namespace: str
) -> None:
    name, clients = ada
    _grant(cluster, name, namespace, _rule(["get", "list"], ["configmaps"]))
    assert clients.call("GET", _maps(namespace))["kind"] == "ConfigMapList"
    _denied(lambda: clients.call("POST", _maps(namespace), document=config_map()))
    _denied(lambda: clients.call("GET", _maps("default")))


def test_a_cluster_role_grants_everywhere(
    cluster: Stage, ada: tuple[str, Clients], namespace: str
) -> None:
    name, clients = ada
    _grant(cluster, name, namespace, _rule(["list"], ["nodes"]), everywhere=True)
    assert clients.call("GET", "api/v1/nodes")["kind"] == "NodeList"


def test_a_rule_can_be_for_names_alone(
    cluster: Stage, ada: tuple[str, Clients], namespace: str
) -> None:
    name, clients = ada
    cluster.store.create(config_map("a"), namespace=namespace)
    _grant(cluster, name, namespace, _rule(["get"], ["configmaps"], resourceNames=["a"]))
    assert clients.call("GET", _maps(namespace, "a"))["kind"] == "ConfigMap"
    _denied(lambda: clients.call("GET", _maps(namespace, "b")))
    _denied(lambda: clients.call("GET", _maps(namespace)))


def test_a_list_of_one_name_needs_a_right_for_that_name_alone(
    cluster: Stage, ada: tuple[str, Clients], namespace: str
) -> None:
    name, clients = ada
    cluster.store.create(config_map("a"), namespace=namespace)
    _grant(cluster, name, namespace, _rule(["list", "watch"], ["configmaps"], resourceNames=["a"]))
    query = {"fieldSelector": "metadata.name=a"}
    (found,) = clients.call("GET", _maps(namespace), query=query)["items"]
    assert found["metadata"]["name"] == "a"
    told = _denied(
        lambda: clients.call("GET", _maps(namespace), query={"fieldSelector": "metadata.name=b"})
    )
    assert told.startswith('configmaps "b" is forbidden')
    _denied(lambda: clients.call("GET", _maps(namespace)))


def test_a_subresource_needs_a_right_of_its_own(
    cluster: Stage, ada: tuple[str, Clients], namespace: str
) -> None:
    name, clients = ada
    _grant(cluster, name, namespace, _rule(["*"], ["serviceaccounts"]))
    path = f"api/v1/namespaces/{namespace}/serviceaccounts/default/token"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    told = _denied(lambda: clients.call("POST", path, document=request))
    assert 'cannot create resource "serviceaccounts/token"' in told
    _grant(cluster, name, namespace, _rule(["create"], ["serviceaccounts/token"]))
    assert clients.call("POST", path, document=request)["status"]["token"]


def test_applying_what_isnt_there_needs_a_right_to_create(
    cluster: Stage, ada: tuple[str, Clients], namespace: str
) -> None:
    name, clients = ada
    _grant(cluster, name, namespace, _rule(["patch"], ["configmaps"]))

    def apply() -> Any:
        return clients.call(
            "PATCH",
            _maps(namespace, "a"),
            query={"fieldManager": "ada"},
            document=config_map(namespace=namespace),
            media="application/apply-patch+yaml",
        )

    assert 'cannot create resource "configmaps"' in _denied(apply)
    cluster.store.create(config_map(namespace=namespace))
    assert apply()["metadata"]["name"] == "a"


def test_watching_is_a_verb_of_its_own(
    cluster: Stage, ada: tuple[str, Clients], namespace: str
) -> None:
    name, clients = ada
    _grant(cluster, name, namespace, _rule(["list"], ["configmaps"]))
    with (
        pytest.raises(ApiError, match=r"cannot watch resource"),
        clients.stream(_maps(namespace), query={"watch": "true"}),
    ):
        pass


def test_a_service_account_has_the_roles_that_it_is_bound_to(
    cluster: Stage, make_clients: MakeClients, namespace: str
) -> None:
    subject = {"kind": "ServiceAccount", "name": "default", "namespace": namespace}
    reference = {"apiGroup": GROUP, "kind": "ClusterRole", "name": "view"}
    binding = plain("RoleBinding", "viewers", API, roleRef=reference, subjects=[subject])
    cluster.store.create(binding, namespace=namespace)
    clients = make_clients(cluster.authentication.issue(namespace, "default").token)
    assert clients.call("GET", _maps(namespace))["kind"] == "ConfigMapList"
    _denied(lambda: clients.call("GET", f"api/v1/namespaces/{namespace}/secrets"))


@pytest.mark.parametrize(
    "document",
    [
        plain("Role", "more", API, rules=[_rule(["get"], ["secrets"])]),
        plain("RoleBinding", "more", API, roleRef=READER, subjects=[]),
    ],
    ids=lambda document: document["kind"],
)
def test_nobody_gives_rights_that_they_havent(
    cluster: Stage, ada: tuple[str, Clients], namespace: str, document: Object
) -> None:
    name, clients = ada
    reader = plain("Role", "reader", API, rules=[_rule(["get"], ["secrets"])])
    cluster.store.create(reader, namespace=namespace)
    _grant(cluster, name, namespace, _rule(["create"], ["roles", "rolebindings"], GROUP))
    path = f"apis/{API}/namespaces/{namespace}/{document['kind'].lower()}s"
    told = _denied(lambda: clients.call("POST", path, document=document))
    assert "attempting to grant RBAC permissions not currently held" in told
    assert '{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}' in told
    _grant(cluster, name, namespace, _rule(["get"], ["secrets"]))
    assert clients.call("POST", path, document=document)["metadata"]["name"] == "more"


@pytest.mark.parametrize("verb,resource", [("escalate", "roles"), ("bind", "roles")])
def test_who_may_escalate_or_bind_gives_more_than_they_have(
    cluster: Stage, ada: tuple[str, Clients], namespace: str, verb: str, resource: str
) -> None:
    name, clients = ada
    reader = plain("Role", "reader", API, rules=[_rule(["get"], ["secrets"])])
    cluster.store.create(reader, namespace=namespace)
    _grant(cluster, name, namespace, _rule(["create"], ["roles", "rolebindings"], GROUP))
    _grant(cluster, name, namespace, _rule([verb], [resource], GROUP))
    documents = {
        "escalate": plain("Role", "more", API, rules=reader["rules"]),
        "bind": plain("RoleBinding", "more", API, roleRef=READER, subjects=[]),
    }
    document = documents[verb]
    path = f"apis/{API}/namespaces/{namespace}/{document['kind'].lower()}s"
    assert clients.call("POST", path, document=document)["metadata"]["name"] == "more"


@pytest.mark.parametrize("verb,allowed", [("list", True), ("delete", False)])
def test_a_review_tells_what_one_may(
    cluster: Stage, ada: tuple[str, Clients], namespace: str, verb: str, *, allowed: bool
) -> None:
    name, clients = ada
    _grant(cluster, name, namespace, _rule(["list"], ["configmaps"]))
    attributes = {"namespace": namespace, "verb": verb, "resource": "configmaps"}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    path = "apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    assert clients.call("POST", path, document=review)["status"]["allowed"] is allowed
