"""Who calls the mock of Google Cloud, what they may do, and the tokens that prove it.

Tokens are the mock's own and end after an hour, as Google's do; whoever shows an old or a made-up
one is refused.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from edgefleet.testing.cloud.calls import Refused
from edgefleet_gcp.cloud.accounts import EVERYTHING, Account, Binding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from edgefleet_gcp.cloud.calls import Call

TOKEN_S = 3600
OPERATOR = "operator"


class Identities:
    """Everybody who may call, and their tokens.

    Args:
        project: that they are in.
        clock: gives the time, in seconds of the epoch.
    """

    def __init__(self, project: str, clock: Callable[[], float] = time.time) -> None:
        self._project = project
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._accounts: dict[str, Account] = {}
        self.add(OPERATOR, [Binding(EVERYTHING, (EVERYTHING,))])

    def email(self, name: str) -> str:
        """The address of an account of this project."""
        return f"{name}@{self._project}.iam.gserviceaccount.com"

    def add(self, name: str, bindings: Iterable[Binding]) -> Account:
        """An account; one that is there already is given these bindings too."""
        email = self.email(name)
        account = self._accounts.setdefault(email, Account(email))
        account.bindings += bindings
        return account

    def get(self, name: str) -> Account | None:
        """An account by its name or its address; None for none."""
        return self._accounts.get(name if "@" in name else self.email(name))

    def key_file(self, name: str, token_uri: str) -> dict[str, str]:
        """A new key of an account, as the file that Google gives; the last one made is good.

        https://cloud.google.com/iam/docs/keys-create-delete
        """
        account = self.add(name, ())
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        account.public_key = (
            key.public_key()
            .public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            .decode()
        )
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()
        return {
            "type": "service_account",
            "project_id": self._project,
            "private_key_id": secrets.token_hex(20),
            "private_key": pem,
            "client_email": account.email,
            "client_id": str(int(hashlib.sha256(account.email.encode()).hexdigest()[:12], 16)),
            "token_uri": token_uri,
        }

    def token(self, account: Account, *, lasts_s: float = TOKEN_S) -> dict[str, Any]:
        """A token, as an OAuth token endpoint answers it."""
        claims = {
            "email": account.email,
            "exp": self._clock() + lasts_s,
            "id": secrets.token_hex(8),
        }
        body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()
        token = f"ya29.{body}.{self._mac(body)}"
        return {"access_token": token, "expires_in": int(lasts_s), "token_type": "Bearer"}

    def end_tokens(self) -> None:
        """Have every token that was given so far be refused, as if its hour were over."""
        self._secret = secrets.token_bytes(32)

    def admit(self, call: Call) -> None:
        """Find out who calls; nobody is an answer, too.

        Raises:
            Refused: the token is none of ours, or has ended.
        """
        scheme, _, token = call.headers.get("authorization", "").partition(" ")
        if not token:
            return
        _, _, rest = token.partition(".")
        body, _, mac = rest.rpartition(".")
        if scheme.lower() != "bearer" or not hmac.compare_digest(mac, self._mac(body)):
            raise _invalid()
        claims = json.loads(base64.urlsafe_b64decode(body))
        account = self._accounts.get(claims["email"])
        if account is None or claims["exp"] <= self._clock():
            raise _invalid()
        call.account = account

    def _mac(self, body: str) -> str:
        return hmac.new(self._secret, body.encode(), hashlib.sha256).hexdigest()

    def kept(self) -> dict[str, Any]:
        """Accounts with what they may, and what makes their tokens good."""
        return {
            "secret": self._secret.hex(),
            "accounts": {
                email: {
                    "bindings": [[*binding] for binding in account.bindings],
                    "public_key": account.public_key,
                }
                for email, account in self._accounts.items()
            },
        }

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Become what `kept` told."""
        self._secret = bytes.fromhex(kept["secret"])
        self._accounts = {
            email: Account(
                email,
                [Binding(where, tuple(given), below) for where, given, below in told["bindings"]],
                public_key=told["public_key"],
            )
            for email, told in kept["accounts"].items()
        }


def _invalid() -> Refused:
    return Refused(
        401,
        "authError",
        "Invalid Credentials",
        headers={"WWW-Authenticate": 'Bearer realm="https://accounts.google.com/"'},
    )
