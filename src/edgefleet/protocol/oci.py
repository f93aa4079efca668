"""What an OCI registry's address, its challenges and docker's credentials mean. Does no IO.

Rules kept here, for whoever speaks with a registry, operator or device:

- TLS always, plain HTTP for a registry on loopback alone. The same holds for where a registry sends
  us for a token: credentials never leave in the clear.
- Credentials belong to the host, or the longest path below it, that the file names.
- No secret is in the text of a value or an error.

Specifications: OCI distribution-spec 1.1 (names); RFC 9110, 11.6.1 and RFC 6750 (challenges);
distribution/distribution ``docs/content/spec/auth/token.md`` and ``oauth.md`` (tokens); docker's
``config.json``.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from edgefleet.errors import ConfigurationError, InvalidInputError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable

SCHEME = "oci"
# distribution-spec 1.1, "Pulling manifests".
_NAME = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
)
MAX_NAME_CHARACTERS = 255
_LOOPBACK = re.compile(r"localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\]")
_DOCKER_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_HUB_API = "registry-1.docker.io"
_PARAMETER = re.compile(r'([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))')
_TOKEN_USER = "<token>"  # noqa: S105 - docker's name for "the secret is an identity token"
DEFAULT_LIFETIME_S = 60.0  # of a token whose answer names none, says the token specification
CLIENT = "edgefleet"


class Repository(msgspec.Struct, frozen=True):
    """A repository of a registry.

    Attributes:
        host: of the registry, with its port where it names one.
        name: of the repository.
    """

    host: str
    name: str

    def __str__(self) -> str:
        return f"{SCHEME}://{self.host}/{self.name}"

    @property
    def loopback(self) -> bool:
        """Whether the registry is on this machine."""
        return is_loopback(self.host)

    @property
    def origin(self) -> str:
        """Where the registry's API answers: ``https://HOST``, on loopback ``http://HOST``."""
        host = _HUB_API if self.host in _DOCKER_HUB else self.host
        return f"{'http' if self.loopback else 'https'}://{host}"

    @property
    def url(self) -> str:
        """The repository's address below its registry's API."""
        return f"{self.origin}/v2/{self.name}"


def is_loopback(host: str) -> bool:
    """Whether a host, with or without a port, is this machine."""
    return _LOOPBACK.fullmatch(host.rpartition(":")[0] if _ported(host) else host) is not None


def _ported(host: str) -> bool:
    return re.search(r":\d+$", host) is not None and not host.endswith("]")


def read_repository(address: str) -> Repository:
    """What ``oci://HOST[:PORT]/REPOSITORY`` names.

    Raises:
        InvalidInputError: it is no such address.
    """
    scheme, _, rest = address.partition("://")
    host, _, name = rest.rstrip("/").partition("/")
    long = len(name) > MAX_NAME_CHARACTERS
    if scheme != SCHEME or not host or "@" in host or long or not _NAME.fullmatch(name):
        raise InvalidInputError(
            f"not the address of a repository: {address[:200]!r}",
            cure="write oci://HOST[:PORT]/REPOSITORY, the repository in small letters",
        )
    return Repository(host, name)


class Credentials(msgspec.Struct, frozen=True):
    """Who asks.

    Attributes:
        user: empty where the secret is a token.
        secret: password, or token.
        kind: ``basic`` for a user's password, ``identity`` for a token that is exchanged for
            others (OAuth 2's refresh token), ``bearer`` for one that is shown as it is.
    """

    user: str
    secret: str
    kind: str = "basic"

    def __repr__(self) -> str:
        return f"Credentials(kind={self.kind!r})"

    def basic(self) -> str:
        """The value of an ``Authorization`` header that shows user and password."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.secret}".encode()).decode("ascii")


class Helper(msgspec.Struct, frozen=True):
    """A program that knows credentials: ``docker-credential-NAME``.

    Attributes:
        name: of the program, without its prefix.
        server: what it is asked for.
    """

    name: str
    server: str


def credentials_in(config: bytes, repository: Repository) -> Credentials | Helper | None:
    """Who a file of docker's form says we are at a repository; None where it says nothing.

    Args:
        config: content of a ``config.json``, or of a ``kubernetes.io/dockerconfigjson`` Secret.
        repository: that is to be read or written.

    Raises:
        ConfigurationError: the file is none; its content is not repeated.
    """
    try:
        found = json.loads(config)
        auths, helpers = found.get("auths") or {}, found.get("credHelpers") or {}
        places = {key: _score(key, repository) for key in (*helpers, *auths)}
        best = max(places, key=lambda key: places[key], default=None)
        if best is not None and places[best] > 0:
            if best in helpers:
                return Helper(_helper_name(helpers[best]), best)
            entry = _entry(auths[best])
            if entry is not None:
                return entry
        if found.get("credsStore"):
            server = best if best is not None and places[best] > 0 else repository.host
            return Helper(_helper_name(found["credsStore"]), server)
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError, binascii.Error):
        # Nothing of the cause may go on: messages of decoders repeat what they decode.
        raise ConfigurationError(
            "the credentials of the registry are in no file of docker's form",
            cure='write {"auths": {"HOST": {"auth": "…"}}}, as `docker login` does',
        ) from None
    return None


def _helper_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
        raise ValueError("no name of a program")
    return name


def _score(key: str, repository: Repository) -> int:
    """How well an entry fits: the length of its path plus 1; 0 for another registry's."""
    place = key.partition("://")[2] if "://" in key else key
    host, _, path = place.rstrip("/").partition("/")
    if path in {"v1", "v2"}:
        path = ""
    same = host == repository.host or {host, repository.host} <= _DOCKER_HUB
    below = not path or f"{repository.name}/".startswith(f"{path}/")
    return 1 + len(path) if same and below else 0


def _entry(entry: dict[str, str]) -> Credentials | None:
    if entry.get("registrytoken"):
        return Credentials("", _shown(entry["registrytoken"]), "bearer")
    if entry.get("identitytoken"):
        return Credentials("", entry["identitytoken"], "identity")
    user, secret = entry.get("username", ""), entry.get("password", "")
    if entry.get("auth"):
        text = base64.b64decode(entry["auth"], validate=True).decode("utf-8")
        user, _, secret = text.partition(":")
    return _of_user(user, secret.rstrip("\0")) if user else None


def _of_user(user: str, secret: str) -> Credentials:
    identity = user == _TOKEN_USER
    return Credentials("" if identity else user, secret, "identity" if identity else "basic")


def credentials_told(answer: bytes) -> Credentials:
    """What a helper answered to ``get``.

    Raises:
        ConfigurationError: no credentials.
    """
    try:
        told = json.loads(answer)
        return _of_user(str(told["Username"]), str(told["Secret"]))
    except (ValueError, RecursionError, TypeError, KeyError):
        raise ConfigurationError(
            "the credential helper of the registry answered no credentials",
            cure="log in again with the registry's own tool",
        ) from None


class Challenge(msgspec.Struct, frozen=True):
    """What a registry wants to be shown.

    Attributes:
        scheme: ``basic`` or ``bearer``.
        realm: address that gives tokens.
        service: name that the token is for.
        scopes: what it must allow, such as ``repository:fleet:pull,push``.
    """

    scheme: str
    realm: str = ""
    service: str = ""
    scopes: tuple[str, ...] = ()


def read_challenge(header: str) -> Challenge | None:
    """What a ``WWW-Authenticate`` header asks for; None where nothing here can do it.

    A registry that takes both is shown a token: it can be less than a password is.
    """
    found: dict[str, Challenge] = {}
    starts = [*re.finditer(r"(?:^|,)\s*(Basic|Bearer)(?=\s|$|,)", header, re.IGNORECASE)]
    for at, start in enumerate(starts):
        end = starts[at + 1].start() if at + 1 < len(starts) else len(header)
        values = {
            name.lower(): re.sub(r"\\(.)", r"\1", quoted) or plain
            for name, quoted, plain in _PARAMETER.findall(header[start.end() : end])
        }
        scheme = start[1].lower()
        found[scheme] = Challenge(
            scheme,
            values.get("realm", ""),
            values.get("service", ""),
            tuple(values.get("scope", "").split()),
        )
    return found.get("bearer") or found.get("basic")


class TokenRequest(msgspec.Struct, frozen=True):
    """How a token is asked for.

    Attributes:
        url: to ask at.
        headers: to send.
        body: to post; None for a GET.
    """

    url: str
    headers: dict[str, str]
    body: bytes | None = None

    def __repr__(self) -> str:
        return f"TokenRequest(url={self.url.partition('?')[0]!r})"


def token_request(
    challenge: Challenge,
    credentials: Credentials | None,
    repository: Repository,
    scopes: Iterable[str] = (),
) -> TokenRequest:
    """How to get what a challenge asks for.

    Args:
        challenge: a bearer challenge.
        credentials: to ask with; None for nobody's, which public repositories give tokens to.
        repository: whose registry challenges.
        scopes: that the token shall allow beside the challenge's.

    Raises:
        UnavailableError: the registry sends us where credentials would travel in the clear.
    """
    realm = urlsplit(challenge.realm)
    plain = realm.scheme == "http" and repository.loopback and is_loopback(realm.netloc)
    if not realm.netloc or "@" in realm.netloc or (realm.scheme != "https" and not plain):
        raise UnavailableError(
            f"{repository.host} sends us for a token to a place without TLS",
            cure="have the registry name an https address as its realm",
            retryable=False,
        )
    wanted = dict.fromkeys((*challenge.scopes, *scopes)) or {
        f"repository:{repository.name}:pull": None
    }
    asked = [("service", challenge.service)] if challenge.service else []
    if credentials is not None and credentials.kind == "identity":
        form = [
            ("grant_type", "refresh_token"),
            ("client_id", CLIENT),
            *asked,
            ("scope", " ".join(wanted)),
            ("refresh_token", credentials.secret),
        ]
        return TokenRequest(
            challenge.realm,
            {"Content-Type": "application/x-www-form-urlencoded"},
            urlencode(form).encode("ascii"),
        )
    query = urlencode([*asked, *(("scope", scope) for scope in wanted)], quote_via=quote)
    headers = {} if credentials is None else {"Authorization": credentials.basic()}
    return TokenRequest(f"{challenge.realm}{'&' if realm.query else '?'}{query}", headers)


def answer_to(
    challenge: Challenge,
    credentials: Credentials | None,
    repository: Repository,
    scopes: Iterable[str] = (),
) -> str | TokenRequest | None:
    """What to show a registry that challenges.

    Args:
        challenge: as it came.
        credentials: who we are; None for nobody.
        repository: whose registry challenges.
        scopes: that a token shall allow beside the challenge's.

    Returns:
        The value of an ``Authorization`` header; or how to get a token, which is shown after
        ``Bearer``; or None where there is nothing to show.

    Raises:
        UnavailableError: as of `token_request`.
    """
    if credentials is not None and credentials.kind == "bearer":
        return f"Bearer {credentials.secret}"
    if challenge.scheme == "bearer":
        return token_request(challenge, credentials, repository, scopes)
    return None if credentials is None else credentials.basic()


class Token(msgspec.Struct, frozen=True):
    """What a registry takes for a while.

    Attributes:
        value: to be shown.
        lifetime_s: seconds for which it does, from when it was given.
    """

    value: str
    lifetime_s: float

    def __repr__(self) -> str:
        return f"Token(lifetime_s={self.lifetime_s})"


def read_token(answer: bytes) -> Token:
    """The token in an answer.

    Raises:
        UnavailableError: there is none; nothing of the answer is repeated.
    """
    try:
        told: dict[str, Any] = json.loads(answer)
        shown = _shown(told.get("token") or told["access_token"])
        lifetime = float(told.get("expires_in") or DEFAULT_LIFETIME_S)
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        raise UnavailableError("the registry's token service answered without a token") from None
    return Token(shown, max(1.0, lifetime))


def _shown(token: str) -> str:
    """A token that can stand in a header; http.client's error of another repeats it."""
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise ValueError("no token")
    return token
