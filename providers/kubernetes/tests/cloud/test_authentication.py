"""Who calls: tokens, tokens of service accounts, client certificates."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trustme
from lightkube import ApiError

from edgefleet_kubernetes.clients import Clients
from edgefleet_kubernetes.cloud.api_store import Store
from edgefleet_kubernetes.cloud.api_users import MASTERS, NODE_NAME
from edgefleet_kubernetes.cloud.authentication import Authentication
from edgefleet_kubernetes.cloud.stage import Stage
from providers.kubernetes.tests.cloud.api_samples import plain, pod

REVIEW = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
NODES = "apis/authentication.k8s.io/v1/selfsubjectreviews"
MakeClients = Callable[..., Clients]


def _whoami(clients: Clients) -> Any:
    return clients.call("POST", NODES, document=REVIEW)["status"]["userInfo"]


def _claims(token: str) -> Any:
    body = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))


class Clock:
    """Time that a test sets, in seconds."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(store: Store, clock: Clock) -> Authentication:
    store.create(plain("ServiceAccount", "robot"))
    return Authentication(store, clock=clock)


def test_the_operator_is_a_master(clients: Clients) -> None:
    assert MASTERS in _whoami(clients)["groups"]


def test_a_token_that_nobody_has_is_refused(make_clients: MakeClients) -> None:
    with pytest.raises(ApiError) as caught:
        _whoami(make_clients("made-up"))
    assert (caught.value.status.code, caught.value.status.reason) == (401, "Unauthorized")


def test_nobody_may_see_the_version_and_no_more(cluster: Stage) -> None:
    trusting = ssl.create_default_context(cafile=str(cluster.authority.certificate))
    with httpx2.Client(base_url=cluster.url, verify=trusting) as bare:
        assert bare.get("version").status_code == 200
        answer = bare.get("api/v1/namespaces")
    assert answer.status_code == 403
    assert 'User "system:anonymous" cannot list resource "namespaces"' in answer.json()["message"]


def test_a_client_certificate_names_user_and_groups(cluster: Stage, tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    authority = trustme.CA.from_pem(
        cluster.authority.certificate.read_bytes(),
        (cluster.authority.certificate.parent / "ca-key.pem").read_bytes(),
    )
    issued = authority.issue_cert("ada@example", common_name="ada", organization_name="engineers")
    path = folder / "client.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(path)
    context = ssl.create_default_context(cafile=str(cluster.authority.certificate))
    context.load_cert_chain(path)
    with httpx2.Client(base_url=cluster.url, verify=context) as bare:
        answer = bare.post(NODES, json=REVIEW).json()
    info = answer["status"]["userInfo"]
    assert info["username"] == "ada"
    assert info["groups"] == ["engineers", "system:authenticated"]


def test_a_certificate_of_another_authority_ends_the_connection(
    cluster: Stage, tmp_path: Path
) -> None:
    issued = trustme.CA().issue_cert("mallory@example", common_name="system:admin")
    path = tmp_path / "client.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(path)
    context = ssl.create_default_context(cafile=str(cluster.authority.certificate))
    context.load_cert_chain(path)
    with (
        httpx2.Client(base_url=cluster.url, verify=context) as bare,
        pytest.raises(httpx2.TransportError),
    ):
        bare.post(NODES, json=REVIEW)


def test_a_token_tells_its_account(
    cluster: Stage, make_clients: MakeClients, namespace: str
) -> None:
    token = cluster.authentication.issue(namespace, "default").token
    info = _whoami(make_clients(token))
    assert info["username"] == f"system:serviceaccount:{namespace}:default"
    assert f"system:serviceaccounts:{namespace}" in info["groups"]


def test_a_pods_token_tells_its_node(store: Store, tokens: Authentication) -> None:
    store.create(plain("Node", "cam-1"))
    store.create(pod(nodeName="cam-1"))
    token = tokens.issue("default", "robot", pod="p").token
    user = tokens.holder(token)
    assert user is not None
    assert user.extra[NODE_NAME] == ("cam-1",)
    assert _claims(token)["kubernetes.io"]["node"]["name"] == "cam-1"


def test_before_1_30_tokens_tell_no_node() -> None:
    store = Store(version="1.29")
    store.create(plain("Namespace", "default"))
    store.create(plain("ServiceAccount", "robot"))
    store.create(pod(nodeName="cam-1"))
    token = Authentication(store).issue("default", "robot", pod="p").token
    assert "node" not in _claims(token)["kubernetes.io"]


def test_a_token_ends_with_its_time(tokens: Authentication, clock: Clock) -> None:
    token = tokens.issue("default", "robot", seconds=600).token
    clock.now += 599
    assert tokens.holder(token) is not None
    clock.now += 1
    assert tokens.holder(token) is None


@pytest.mark.parametrize("kind,name", [("Pod", "p"), ("ServiceAccount", "robot")])
def test_a_token_ends_with_its_pod_and_its_account(
    store: Store, tokens: Authentication, kind: str, name: str
) -> None:
    store.create(pod())
    token = tokens.issue("default", "robot", pod="p").token
    assert tokens.holder(token) is not None
    store.delete(kind, name, "default")
    assert tokens.holder(token) is None


def test_a_token_for_others_isnt_for_the_api_server(tokens: Authentication) -> None:
    token = tokens.issue("default", "robot", audiences=["https://registry.example"]).token
    assert tokens.holder(token) is None
    assert tokens.holder(token, ["https://registry.example"]) is not None


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_token_that_was_changed_doesnt_hold(tokens: Authentication, part: int) -> None:
    parts = tokens.issue("default", "robot").token.split(".")
    parts[part] = ("B" if parts[part][0] == "A" else "A") + parts[part][1:]
    assert tokens.holder(".".join(parts)) is None


def test_a_token_is_asked_for(clients: Clients, cluster: Stage, namespace: str) -> None:
    path = f"api/v1/namespaces/{namespace}/serviceaccounts/default/token"
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": ["x"], "expirationSeconds": 600},
    }
    made = clients.call("POST", path, document=request)
    assert _claims(made["status"]["token"])["aud"] == ["x"]
    request["spec"] = {"audiences": [], "expirationSeconds": 60}
    with pytest.raises(ApiError, match=r"may not specify a duration less than 10 minutes"):
        clients.call("POST", path, document=request)


def test_a_review_tells_whose_a_token_is(clients: Clients, cluster: Stage, namespace: str) -> None:
    token = cluster.authentication.issue(namespace, "default", audiences=["x"]).token
    path = "apis/authentication.k8s.io/v1/tokenreviews"
    for audience, authenticated in (("x", True), ("y", False)):
        document = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience]},
        }
        status = clients.call("POST", path, document=document)["status"]
        assert status["authenticated"] is authenticated
