"""Who may do what at a stand-in registry: users, tokens for a while, and challenges."""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from edgefleet.testing.cloud.calls import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

PUSH = frozenset({"pull", "push", "delete"})
PULL = frozenset({"pull"})


@dataclass(frozen=True)
class User:
    """Somebody whom the registry knows.

    Attributes:
        password: that they show, as an identity token, too.
        actions: that they may do in their repositories.
        below: how the names of their repositories begin; empty for all of them.
    """

    password: str
    actions: frozenset[str] = PUSH
    below: str = ""

    def may(self, action: str, name: str) -> bool:
        """Whether they may do that in a repository."""
        return action in self.actions and f"{name}/".startswith(self.below)


class Access:
    """Lets requests in.

    Args:
        users: by name; the one of the empty name is whoever shows nothing.
        bearer: whether tokens are wanted; else passwords are.
        lifetime_s: of a token, in seconds.
        clock: gives the time, in seconds.
    """

    def __init__(
        self,
        users: Mapping[str, User],
        *,
        bearer: bool,
        lifetime_s: float,
        clock: Callable[[], float],
    ) -> None:
        self.users = dict(users)
        self.lifetime_s = lifetime_s
        self._bearer, self._clock = bearer, clock
        self._tokens: dict[str, tuple[float, frozenset[tuple[str, str]]]] = {}

    def expire(self) -> None:
        """Have every token end now."""
        self._tokens.clear()

    # distribution/distribution docs/content/spec/auth/token.md, oauth.md

    def give(self, authorization: str, query: str, form: str | None) -> dict[str, Any]:
        """A token for whoever asks.

        Args:
            authorization: the request's header.
            query: of its address.
            form: that it posts; None for a GET.

        Raises:
            Refused: nobody is known by that.
        """
        asked = parse_qs(query if form is None else form)
        if form is None:
            user = self._by_password(authorization)
        else:
            secret = asked.get("refresh_token", [""])[0]
            known = asked.get("grant_type") == ["refresh_token"] and secret
            user = next((u for u in self.users.values() if known and u.password == secret), None)
        if user is None:
            raise Refused(401, "UNAUTHORIZED", "authentication required")
        scopes = [scope for text in asked.get("scope", []) for scope in text.split()]
        token = secrets.token_urlsafe(24)
        self._tokens[token] = (self._clock() + self.lifetime_s, _granted(scopes, user))
        return {"token": token, "expires_in": int(self.lifetime_s)}

    def _by_password(self, authorization: str) -> User | None:
        kind, _, shown = authorization.partition(" ")
        if not authorization:
            return self.users.get("")
        try:
            name, _, password = base64.b64decode(shown, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            return None
        user = self.users.get(name)
        right = kind == "Basic" and user is not None and name
        if not right or user is None:
            return None
        return user if hmac.compare_digest(user.password, password) else None

    def check(self, authorization: str, name: str, action: str, realm: str) -> None:
        """Let a request pass.

        Args:
            authorization: the request's header.
            name: of the repository; empty for the API itself.
            action: ``pull``, ``push`` or ``delete``.
            realm: address that gives tokens.

        Raises:
            Refused: it may not.
        """
        if self._bearer:
            ends, granted = self._tokens.get(authorization.removeprefix("Bearer "), (0.0, None))
            held = granted is not None and ends > self._clock()
            if held and granted is not None and (not name or (name, action) in granted):
                return
            actions = "pull" if action == "pull" else f"pull,{action}"
            scope = f',scope="repository:{name}:{actions}"' if name else ""
            why = "insufficient_scope" if held else "invalid_token"
            challenge = f'Bearer realm="{realm}",service="registry"{scope}'
            if authorization:
                challenge += f',error="{why}"'
        else:
            user = self._by_password(authorization)
            if user is not None:
                if not user.may(action, name):
                    raise Refused(403, "DENIED", "requested access to the resource is denied")
                return
            challenge = 'Basic realm="registry"'
        raise Refused(
            401,
            "UNAUTHORIZED",
            "authentication required",
            headers={"WWW-Authenticate": challenge},
        )


def _granted(scopes: Iterable[str], user: User) -> frozenset[tuple[str, str]]:
    granted = set()
    for scope in scopes:
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        if kind == "repository":
            granted |= {(name, one) for one in actions.split(",") if user.may(one, name)}
    return frozenset(granted)
