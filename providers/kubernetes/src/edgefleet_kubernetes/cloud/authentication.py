"""Who calls: bearer tokens, tokens of service accounts, client certificates.

Tokens of service accounts are JSON Web Tokens with the claims that Kubernetes gives them, the
node's among them; see
https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/. They are signed
with a secret of the mock's own, as nobody but the mock verifies them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from edgefleet_kubernetes.cloud.api_objects import at, meta
from edgefleet_kubernetes.cloud.api_status import (
    Refused,
    bad_request,
    conflict,
    invalid,
    unauthorized,
    wrong,
)
from edgefleet_kubernetes.cloud.api_users import (
    ANONYMOUS,
    AUTHENTICATED,
    NODE_NAME,
    User,
    service_account,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgefleet_kubernetes.cloud.api_calls import ApiCall, Target
    from edgefleet_kubernetes.cloud.api_objects import Object
    from edgefleet_kubernetes.cloud.api_store import Store

ISSUER = "https://kubernetes.default.svc.cluster.local"
"""Who issues tokens, and the audience that the API server itself is."""
SHORTEST_S, LONGEST_S, USUAL_S = 600, 1 << 32, 3600
"""How long tokens are good, in seconds."""
_EXTRA = "authentication.kubernetes.io"
_WITH_NODES = (1, 30)  # version of Kubernetes whose tokens have a node's claim, as a beta


@dataclass(frozen=True)
class Token:
    """A token of a service account.

    Attributes:
        token: it.
        expires: when, as the API writes it.
    """

    token: str
    expires: str


class Authentication:
    """Finds out who calls, and issues tokens.

    Args:
        store: of service accounts, pods and nodes.
        clock: gives the time, in seconds since 1970.
    """

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        self._store, self._clock = store, clock
        self._secret = secrets.token_hex(32)
        self._tokens: dict[str, User] = {}

    def add(self, token: str, user: User) -> None:
        """Know a user by a token."""
        self._tokens[token] = user

    def token_of(self, name: str) -> str | None:
        """A token that a user is known by; None for a user that isn't known."""
        return next((token for token, user in self._tokens.items() if user.name == name), None)

    def __call__(self, call: ApiCall) -> User:
        """Who calls.

        Raises:
            Refused: what they show doesn't hold (401).
        """
        kind, _, token = call.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            found = self._tokens.get(token.strip()) or self.holder(token.strip())
            if found is None:
                raise unauthorized()
            return found
        certificate = call.environ.get("SSL_CLIENT_CERT")
        if certificate:
            return _of_certificate(str(certificate))
        return User(ANONYMOUS, ("system:unauthenticated",))

    def issue(
        self,
        namespace: str,
        account: str,
        *,
        audiences: Sequence[str] = (),
        seconds: int = USUAL_S,
        pod: str = "",
    ) -> Token:
        """A token of a service account.

        Args:
            namespace: of it.
            account: its name.
            audiences: whom it is for; empty for the API server.
            seconds: how long it is good.
            pod: that it dies with; it tells the pod's node, too. Empty for none.

        Raises:
            Refused: there is no such account or pod (404).
        """
        owner = self._store.get("ServiceAccount", account, namespace)
        now = int(self._clock())
        about: dict[str, Any] = {
            "namespace": namespace,
            "serviceaccount": {"name": account, "uid": meta(owner)["uid"]},
        }
        if pod:
            found = self._store.get("Pod", pod, namespace)
            about["pod"] = {"name": pod, "uid": meta(found)["uid"]}
            node = at(found, "spec.nodeName")
            if node and self._tells_nodes:
                there = self._store.find("Node", node)
                about["node"] = {"name": node, **({"uid": meta(there)["uid"]} if there else {})}
        claims = {
            "aud": list(audiences) or [ISSUER],
            "exp": now + seconds,
            "iat": now,
            "iss": ISSUER,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": about,
            "nbf": now,
            "sub": f"system:serviceaccount:{namespace}:{account}",
        }
        expires = datetime.fromtimestamp(now + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return Token(self._signed(claims), expires)

    def holder(self, token: str, audiences: Sequence[str] = (ISSUER,)) -> User | None:
        """Whom a token of a service account is of; None when it doesn't hold, or not for these."""
        claims = self._claims(token)
        if claims is None or not set(audiences) & set(claims["aud"]):
            return None
        if not claims["nbf"] <= self._clock() < claims["exp"]:
            return None
        about = claims["kubernetes.io"]
        namespace, account = about["namespace"], about["serviceaccount"]
        if not self._is_there("ServiceAccount", namespace, account):
            return None
        extra = {f"{_EXTRA}/credential-id": (f"JTI={claims['jti']}",)}
        if "pod" in about:
            if not self._is_there("Pod", namespace, about["pod"]):
                return None
            extra[f"{_EXTRA}/pod-name"] = (about["pod"]["name"],)
            extra[f"{_EXTRA}/pod-uid"] = (about["pod"]["uid"],)
        if "node" in about:
            extra[NODE_NAME] = (about["node"]["name"],)
            if "uid" in about["node"]:
                extra[f"{_EXTRA}/node-uid"] = (about["node"]["uid"],)
        return service_account(namespace, account["name"], account["uid"], extra)

    # ------------------------------------------------------------------------------- requests

    def request_token(self, call: ApiCall, target: Target) -> Object:
        """Answer a TokenRequest."""
        document = call.document()
        spec = document.get("spec") or {}
        seconds = int(spec.get("expirationSeconds") or USUAL_S)
        field = "spec.expirationSeconds"
        if not SHORTEST_S <= seconds <= LONGEST_S:
            told = "may not specify a duration less than 10 minutes"
            raise invalid(target.kind, target.name, [wrong(field, seconds, told)])
        bound = spec.get("boundObjectRef") or {}
        if bound and bound.get("kind") != "Pod":
            raise bad_request(f"cannot bind token for serviceaccount to {bound.get('kind')!r}")
        pod = bound.get("name", "")
        if pod and bound.get("uid"):
            there = self._store.get("Pod", pod, target.namespace)
            if meta(there)["uid"] != bound["uid"]:
                told = f"the UID in the bound object reference ({bound['uid']}) does not match"
                raise conflict(self._store.kinds.named("Pod"), pod, told)
        made = self.issue(
            target.namespace,
            target.name,
            audiences=spec.get("audiences") or (),
            seconds=seconds,
            pod=pod,
        )
        status = {"token": made.token, "expirationTimestamp": made.expires}
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": target.name, "namespace": target.namespace},
            "spec": {"audiences": [ISSUER], "expirationSeconds": seconds, **spec},
            "status": status,
        }

    def review_token(self, call: ApiCall, _target: Target) -> Object:
        """Answer a TokenReview."""
        document = call.document()
        spec = document.get("spec") or {}
        audiences = spec.get("audiences") or [ISSUER]
        found = self.holder(spec.get("token", ""), audiences)
        status: dict[str, Any] = {"authenticated": found is not None}
        if found is not None:
            status |= {"user": found.info, "audiences": audiences}
        return {**document, "metadata": {}, "status": status}

    def review_self(self, call: ApiCall, _target: Target) -> Object:
        """Answer a SelfSubjectReview: ``kubectl auth whoami``."""
        document = call.document()
        return {**document, "metadata": {}, "status": {"userInfo": call.user.info}}

    # -------------------------------------------------------------------------------- keeping

    def kept(self) -> Any:  # noqa: ANN401 - JSON
        """The secret that tokens are signed with, and the tokens of users."""
        users = {token: [user.name, list(user.groups)] for token, user in self._tokens.items()}
        return {"secret": self._secret, "users": users}

    def restore(self, kept: Any) -> None:  # noqa: ANN401 - JSON
        """Sign with the secret, and know the users, that `kept` told."""
        self._secret = kept["secret"]
        for token, (name, groups) in kept["users"].items():
            self._tokens[token] = User(name, tuple(groups))

    # ------------------------------------------------------------------------------------ own

    @property
    def _tells_nodes(self) -> bool:
        major, minor = self._store.schemas.version.split(".")
        return (int(major), int(minor)) >= _WITH_NODES

    def _is_there(self, kind: str, namespace: str, named: dict[str, str]) -> bool:
        found = self._store.find(kind, named["name"], namespace)
        return found is not None and meta(found)["uid"] == named["uid"]

    def _signed(self, claims: dict[str, Any]) -> str:
        head = _packed(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
        body = _packed(json.dumps(claims).encode())
        return f"{head}.{body}.{self._mark(f'{head}.{body}')}"

    def _mark(self, text: str) -> str:
        return _packed(hmac.digest(self._secret.encode(), text.encode(), hashlib.sha256))

    def _claims(self, token: str) -> dict[str, Any] | None:
        signed, dot, mark = token.rpartition(".")
        if not dot or not hmac.compare_digest(mark.encode(), self._mark(signed).encode()):
            return None
        try:
            body = signed.partition(".")[2]
            found: dict[str, Any] = json.loads(
                base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
            )
        except (ValueError, binascii.Error):
            return None
        return found


def _packed(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _of_certificate(text: str) -> User:
    """The user that a client certificate names: common name, and organizations as groups."""
    try:
        subject = x509.load_pem_x509_certificate(text.encode()).subject
        names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        groups = subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        return User(str(names[0].value), (*(str(group.value) for group in groups), AUTHENTICATED))
    except (ValueError, IndexError) as error:
        raise Refused(401, "Unauthorized", "Unauthorized") from error
