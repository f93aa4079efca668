"""Who calls the mock of Azure: identities, their roles, and the endpoint that gives them tokens.

The endpoint is the one of managed identities in App Service
(https://learn.microsoft.com/azure/app-service/overview-managed-identity, "REST endpoint
reference"), which azure-identity finds by ``IDENTITY_ENDPOINT`` and ``IDENTITY_HEADER``. Rules kept
here: a token is for one audience and ends after an hour; whoever shows another's audience, an old
or a made-up token is refused; what an identity may do, its roles say.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from typing import TYPE_CHECKING, Any

from edgefleet.testing.cloud.calls import Refused, Reply
from edgefleet_azure.cloud.calls import Call
from edgefleet_azure.cloud.roles import TENANT, Principal, Role, role_named
from edgefleet_azure.cloud.server import Route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

TOKEN_PATH = "/msi/token"  # noqa: S105 - an address
TOKEN_S = 3600
OPERATOR = "operator"
"""The identity that everybody has who names none; it may do everything."""


class Identities:
    """Everybody who may call, and their tokens.

    Args:
        clock: gives the time, in seconds of the epoch.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self.header = secrets.token_hex(16)
        self._everybody = {OPERATOR: Principal(OPERATOR, [(role_named("Everything"), "/")])}

    @property
    def operator(self) -> Principal:
        """Whoever names no other identity."""
        return self._everybody[OPERATOR]

    def add(self, name: str, roles: Iterable[str | Role], scope: str = "/") -> Principal:
        """Somebody who may do what roles say.

        Args:
            name: of the identity; one that is there already is given these roles too.
            roles: names of built-in roles, or roles.
            scope: path that the roles count below.
        """
        principal = self._everybody.setdefault(name, Principal(name))
        principal.roles += [
            (role_named(role) if isinstance(role, str) else role, scope) for role in roles
        ]
        return principal

    def __iter__(self) -> Iterator[Principal]:
        """Everybody."""
        return iter(tuple(self._everybody.values()))

    def get(self, identifier: str) -> Principal | None:
        """An identity by its name or its id."""
        for principal in self._everybody.values():
            if identifier.lower() in {principal.name, principal.id}:
                return principal
        return None

    def token(self, principal: Principal, audience: str) -> str:
        """A token of somebody for an audience."""
        now = int(self._clock())
        claims = {
            "aud": audience,
            "iss": f"https://sts.windows.net/{TENANT}/",
            "iat": now,
            "nbf": now,
            "exp": now + TOKEN_S,
            "appid": principal.id,
            "oid": principal.id,
            "sub": principal.id,
            "tid": TENANT,
            "name": principal.name,
        }
        head = _encoded(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
        signed = f"{head}.{_encoded(json.dumps(claims).encode())}"
        return f"{signed}.{_encoded(self._mac(signed))}"

    def holder(self, call: Call, audiences: Iterable[str]) -> Principal:
        """Whoever shows a token for one of the audiences; slashes at their ends don't count.

        Raises:
            Refused: there is none, it is not ours, too old, or for somebody else.
        """
        scheme, _, token = call.headers.get("authorization", "").partition(" ")
        wanted = {audience.rstrip("/") for audience in audiences}
        if scheme.lower() != "bearer" or not token:
            raise _unauthorized("AuthenticationFailed", "The 'Authorization' header is missing.")
        signed, _, mac = token.rpartition(".")
        if not hmac.compare_digest(_encoded(self._mac(signed)), mac):
            raise _unauthorized("InvalidAuthenticationToken", "The access token is invalid.")
        claims = json.loads(_decoded(signed.partition(".")[2]))
        if claims["exp"] <= self._clock():
            raise _unauthorized("ExpiredAuthenticationToken", "The access token expired.")
        if str(claims["aud"]).rstrip("/") not in wanted:
            raise _unauthorized(
                "InvalidAuthenticationTokenAudience",
                f"The access token has been obtained for wrong audience: {claims['aud']}.",
            )
        found = self.get(str(claims["oid"]))
        if found is None:
            raise _unauthorized("InvalidAuthenticationToken", "Nobody has this identity any more.")
        return found

    def admit(self, *audiences: str) -> Callable[[Call], None]:
        """What lets those in who show a token for one of the audiences."""

        def admit(call: Call) -> None:
            call.principal = self.holder(call, audiences)

        return admit

    @property
    def routes(self) -> Sequence[Route]:
        """The endpoint of managed identities."""
        return (Route("identity.GetToken", "GET", TOKEN_PATH, self._give, open=True),)

    def _give(self, call: Call) -> Reply:
        if not hmac.compare_digest(call.headers.get("x-identity-header", ""), self.header):
            raise Refused(401, "Unauthorized", "The identity header is wrong.")
        audience = call.query.get("resource", "")
        if not audience:
            raise Refused(400, "BadRequest", "The parameter 'resource' is missing.")
        named = call.query.get("client_id", "")
        principal = self.get(named or OPERATOR)
        if principal is None:
            raise Refused(400, "BadRequest", f"No User Assigned identity with id {named} found.")
        return Reply(
            body={
                "access_token": self.token(principal, audience),
                "expires_on": str(int(self._clock()) + TOKEN_S),
                "resource": audience,
                "token_type": "Bearer",
                "client_id": principal.id,
            }
        )

    def _mac(self, signed: str) -> bytes:
        return hmac.new(self._secret, signed.encode(), hashlib.sha256).digest()

    def kept(self) -> dict[str, Any]:
        """Identities with their roles, and what makes their tokens good."""
        return {
            "secret": self._secret.hex(),
            "header": self.header,
            "everybody": {
                name: [[role.kept(), scope] for role, scope in principal.roles]
                for name, principal in self._everybody.items()
            },
        }

    def restore(self, kept: dict[str, Any]) -> None:
        """Become what `kept` told."""
        self._secret, self.header = bytes.fromhex(kept["secret"]), kept["header"]
        self._everybody = {
            name: Principal(name, [(Role.of(role), scope) for role, scope in roles])
            for name, roles in kept["everybody"].items()
        }


def _unauthorized(code: str, message: str) -> Refused:
    challenge = f'Bearer authorization_uri="https://login.microsoftonline.com/{TENANT}"'
    return Refused(401, code, message, headers={"WWW-Authenticate": challenge})


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
