"""Where google-auth gets tokens from: OAuth's endpoint, Security Token Service, metadata server.

- Key files: a JWT that the account's key has signed
  (https://developers.google.com/identity/protocols/oauth2/service-account#httprest).
- Workload identity federation: a token of somebody else's that a pool trusts
  (https://cloud.google.com/iam/docs/reference/sts/rest/v1/TopLevel/token).
- Metadata server: whoever runs on the machine; the header is required
  (https://cloud.google.com/compute/docs/metadata/querying-metadata).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from google.auth import jwt

from edgefleet.testing.cloud.calls import Refused, Reply
from edgefleet_gcp.cloud.calls import Call, Route

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefleet_gcp.cloud.accounts import Account
    from edgefleet_gcp.cloud.identities import Identities

BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
AUDIENCE = "https://oauth2.googleapis.com/token"  # google-auth names it whatever the address is
_FLAVOR = {"Metadata-Flavor": "Google", "Server": "Metadata Server for VM"}
_TEXT = {"Content-Type": "application/text", **_FLAVOR}
_JSON = {"Content-Type": "application/json", **_FLAVOR}
_ACCOUNT = "/computeMetadata/v1/instance/service-accounts/{account}"
_MOST_SKEW_S = 10


class Tokens:
    """The endpoints.

    Args:
        identities: who may have tokens.
        project: of this machine.

    Attributes:
        machine: account that this machine runs as; None where it has none.
        federated: tokens of somebody else's that the pool trusts, with the account they stand for.
    """

    def __init__(self, identities: Identities, project: str) -> None:
        self._identities = identities
        self._project = project
        self.machine: str | None = None
        self.federated: dict[str, str] = {}

    @property
    def routes(self) -> Sequence[Route]:
        """What it answers."""
        return (
            Route("oauth.Token", "POST", "/token", self._signed, open=True),
            Route("sts.Token", "POST", "/v1/token", self._exchanged, open=True),
            Route("metadata.Ping", "GET", "/", self._ping, open=True),
            Route(
                "metadata.Project",
                "GET",
                "/computeMetadata/v1/project/project-id",
                self._project_id,
                open=True,
            ),
            Route(
                "metadata.Universe",
                "GET",
                "/computeMetadata/v1/universe/universe-domain",
                self._universe,
                open=True,
            ),
            Route("metadata.Token", "GET", f"{_ACCOUNT}/token", self._of_machine, open=True),
            Route("metadata.Account", "GET", _ACCOUNT, self._about, open=True),
        )

    def _signed(self, call: Call) -> Reply:
        form = _form(call)
        if form.get("grant_type") != BEARER:
            raise Refused(400, "unsupported_grant_type", "Invalid grant_type")
        assertion = form.get("assertion", "")
        try:
            claims: dict[str, Any] = jwt.decode(assertion, verify=False)  # type: ignore[no-untyped-call]
            account = self._identities.get(str(claims.get("iss", "")))
            if account is None or not account.public_key:
                raise _no_grant("Invalid grant: account not found")
            jwt.decode(  # type: ignore[no-untyped-call]
                assertion,
                certs=account.public_key,
                audience=AUDIENCE,
                clock_skew_in_seconds=_MOST_SKEW_S,
            )
        except ValueError as error:
            raise _no_grant("Invalid JWT Signature.") from error
        return Reply(body=self._identities.token(account))

    def _exchanged(self, call: Call) -> Reply:
        form = _form(call)
        if form.get("grant_type") != EXCHANGE:
            raise Refused(400, "invalid_request", "Invalid grant_type")
        name = self.federated.get(form.get("subject_token", ""))
        account = None if name is None else self._identities.get(name)
        if account is None:
            raise _no_grant("The subject token isn't one that the pool's provider trusts.")
        issued = "urn:ietf:params:oauth:token-type:access_token"
        return Reply(body={**self._identities.token(account), "issued_token_type": issued})

    def _ping(self, call: Call) -> Reply:
        return Reply(body=b"computeMetadata/\n", headers=_TEXT)

    def _project_id(self, call: Call) -> Reply:
        _check_flavor(call)
        return Reply(body=self._project.encode(), headers=_TEXT)

    def _universe(self, call: Call) -> Reply:
        _check_flavor(call)
        return Reply(body=b"googleapis.com", headers=_TEXT)

    def _of_machine(self, call: Call) -> Reply:
        return Reply(body=self._identities.token(self._account(call)), headers=_JSON)

    def _about(self, call: Call) -> Reply:
        scope = "https://www.googleapis.com/auth/cloud-platform"
        told = {"aliases": ["default"], "email": self._account(call).email, "scopes": [scope]}
        return Reply(body=told, headers=_JSON)

    def _account(self, call: Call) -> Account:
        _check_flavor(call)
        account = None if self.machine is None else self._identities.get(self.machine)
        if account is None or call.parts["account"] not in {"default", account.email}:
            raise Refused(404, "notFound", "The service account was not found.", headers=_FLAVOR)
        return account

    def kept(self) -> dict[str, Any]:
        """Who this machine is, and whom the pool trusts."""
        return {"machine": self.machine, "federated": self.federated}

    def restore(self, kept: dict[str, Any]) -> None:
        """Become what `kept` told."""
        self.machine, self.federated = kept["machine"], kept["federated"]


def oauth_error(refused: Refused) -> Reply:
    """As OAuth's endpoints answer (RFC 6749, 5.2)."""
    body = {"error": refused.code, "error_description": refused.message}
    return Reply(refused.status, body, refused.headers)


def _form(call: Call) -> dict[str, str]:
    found = parse_qs(call.body(1 << 20).decode("ascii", "replace"))
    return {name: values[0] for name, values in found.items()}


def _no_grant(message: str) -> Refused:
    return Refused(400, "invalid_grant", message)


def _check_flavor(call: Call) -> None:
    if call.headers.get("metadata-flavor") != "Google":
        raise Refused(403, "forbidden", "The header Metadata-Flavor: Google is missing.")
