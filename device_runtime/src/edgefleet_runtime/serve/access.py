"""Who may use a TCP address: whether to listen on it, whom to let in, under which certificate.

Rules kept here:

- An address that other machines reach is served only when somebody said so and callers are told
  apart: by a token or by their certificates. A Unix socket has the permissions of its file instead.
- A caller without the token is refused before the body of its request is taken in.
- The token is in a file that others can't read; it is in no argument, log, error or report, and in
  memory only as its digest.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import os
import re
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, NoReturn, TypeVar, cast

import msgspec

from edgefleet.errors import ConfigurationError
from edgefleet_runtime.serve.messages import refusal

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

    from edgefleet_runtime.serve.messages import Response

    Admit = Callable[[bytes, bytes, Mapping[bytes, bytes]], Response | None]
    """Refuses a request by its method, target and headers, or gives None to let it in."""
    HasToken = Callable[[bytes | None], bool]
    """Whether the value of an ``Authorization`` header holds the token."""

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

PASSED_ON = b"edgefleet-authorization"
"""As ``Authorization``, for callers behind a proxy that takes that one for itself, as Kubernetes'
API server does."""
LOOK_S = 1.0  # between two looks at the token's file: one a request would cost more than the rest
MIN_TOKEN = 32  # characters
MAX_TOKEN = 4096
HEALTH = frozenset({b"/v2/health/live", b"/v2/health/ready", b"/v2/health/settled"})
METRICS = frozenset({b"/metrics"})
_TOKEN = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")  # RFC 6750, 2.1
_FOR_OTHERS = stat.S_IRWXO | stat.S_IWGRP
_REALM = 'Bearer realm="edgefleet"'
MAKE_TOKEN = "make one with: (umask 077; openssl rand -hex 32 > FILE)"  # noqa: S105 - tells how


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator decided about an address.

    Attributes:
        allow_remote: other machines may reach it.
        token_file: holds the token that callers send as ``Authorization: Bearer TOKEN``.
        tls_cert: the server's certificate and those between it and its authority, PEM.
        tls_key: the certificate's key, PEM, without a password.
        tls_client_ca: authorities of callers' certificates, PEM; without one of theirs nobody
            connects.
        open_health: health may be asked without the token.
        open_metrics: figures may be read without the token.
        allow_hosts: names by which callers ask who need neither token nor certificate, beside those
            of `serve.hosts`.
    """

    allow_remote: bool = False
    token_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    open_health: bool = False
    open_metrics: bool = False
    allow_hosts: tuple[str, ...] = ()


def check_access(host: str, access: Access) -> None:
    """Decide whether that address may be served on. Reads no file.

    Raises:
        ConfigurationError: it may not; the cure says what would let it.
    """
    if (access.tls_cert is None) is not (access.tls_key is None):
        raise ConfigurationError(
            "a certificate and its key belong together", cure="give both --tls-cert and --tls-key"
        )
    if access.tls_client_ca is not None and access.tls_cert is None:
        raise ConfigurationError(
            "callers' certificates are asked for under TLS only",
            cure="give --tls-cert and --tls-key with --tls-client-ca",
        )
    opened = access.open_health or access.open_metrics
    if opened and (access.token_file is None or access.tls_client_ca is not None):
        what = "health" if access.open_health else "metrics"
        raise ConfigurationError(
            f"open {what} is an exception from the token, and there is none from certificates",
            cure=f"use --open-{what} with --token-file and without --tls-client-ca",
        )
    if is_loopback(host):
        return
    if not access.allow_remote:
        raise ConfigurationError(
            f"{host or 'every address'} can be reached from other machines",
            cure="serve on 127.0.0.1 or a Unix socket; or give --allow-remote, and --token-file "
            "or --tls-client-ca to tell callers apart",
        )
    if access.token_file is None and access.tls_client_ca is None:
        raise ConfigurationError(
            f"{host or 'every address'} can be reached from other machines, and nothing tells "
            "callers apart",
            cure="give --token-file FILE, or --tls-client-ca with --tls-cert and --tls-key; "
            + MAKE_TOKEN,
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name; where it leads can change


def warn_of_clear_text(host: str, access: Access) -> None:
    """Say in the log what serving on that address without a certificate shows to others."""
    if not is_loopback(host) and access.tls_cert is None:
        _log.warning("whoever sees the network of %s sees tokens and data: no --tls-cert", host)


def token_check(access: Access, *, clock: Callable[[], float] = time.monotonic) -> HasToken | None:
    """What knows the token as its file was at most `LOOK_S` seconds ago; None where there is none.

    A file that changed and can't be used leaves the token that there was.

    Raises:
        ConfigurationError: the token's file can't be read, is open to others, or holds no token.
    """
    path = access.token_file
    if path is None:
        return None
    from edgefleet_runtime.store.renewing import Renewing  # noqa: PLC0415 - most serve without

    expected = Renewing("a token", lambda: _token_digest(path), lambda: (path,))
    known, looked = expected(), clock()

    def has_token(given: bytes | None) -> bool:
        nonlocal known, looked
        if clock() - looked >= LOOK_S:
            known, looked = expected(), clock()
        scheme, _, sent = (given or b"").partition(b" ")
        # Digests: then not even the length of the token shows in how long this takes.
        right = hmac.compare_digest(hashlib.sha256(sent.strip()).digest(), known)
        return right and scheme.lower() == b"bearer"

    return has_token


def _token_digest(path: Path) -> bytes:
    with _opened(path, "--token-file") as file:
        token = os.read(file.fileno(), MAX_TOKEN + 2).rstrip(b"\r\n")
    if not MIN_TOKEN <= len(token) <= MAX_TOKEN or not _TOKEN.fullmatch(token):
        raise ConfigurationError(
            f"{path} holds no token: one line of {MIN_TOKEN} to {MAX_TOKEN} letters, "
            "digits and -._~+/",
            cure=MAKE_TOKEN,
        )
    return hashlib.sha256(token).digest()


def told(given: bytes | None) -> str:
    """What a caller is told who has no token, or another than ours."""
    said = "a token is needed here" if given is None else "this is not the token"
    return f"{said}; send it as 'Authorization: Bearer TOKEN'"


def token_guard(access: Access) -> Admit | None:
    """What lets in only those who have the token; None where there is none.

    Raises:
        ConfigurationError: as `token_check`.
    """
    has_token = token_check(access)
    if has_token is None:
        return None
    open_paths = (HEALTH if access.open_health else frozenset()) | (
        METRICS if access.open_metrics else frozenset()
    )

    def admit(method: bytes, target: bytes, headers: Mapping[bytes, bytes]) -> Response | None:
        given = headers.get(b"authorization", headers.get(PASSED_ON))
        if has_token(given):
            return None
        if method in {b"GET", b"HEAD"} and target in open_paths and not _announces_body(headers):
            return None
        why = _REALM if given is None else f'{_REALM}, error="invalid_token"'
        return refusal(401, told(given), headers=(("WWW-Authenticate", why),))

    return admit


class Pem(NamedTuple):
    """Certificates and a key as their files hold them.

    Attributes:
        chain: the server's certificate and those between it and its authority.
        key: the certificate's.
        client_ca: authorities of callers' certificates; None where callers need none.
    """

    chain: bytes
    key: bytes
    client_ca: bytes | None

    def __repr__(self) -> str:
        return "Pem(…)"  # a key belongs in no log


def tls_files(access: Access) -> Callable[[], Pem] | None:
    """Gives what encrypts connections, for a library that takes PEM, as the files are now.

    None without a certificate. Files that changed and can't be used leave what there was.

    Raises:
        ConfigurationError: as `tls_context`, which tries the files first.
    """
    return _renewing(access, _read)


def tls_context(access: Access) -> ssl.SSLContext | None:
    """What encrypts connections and checks callers' certificates; None without a certificate.

    Each new connection goes by what the files are then. Files that changed and can't be used leave
    what there was.

    Raises:
        ConfigurationError: a file can't be used, or the key is open to others.
    """
    newest = _renewing(access, _context)
    if newest is None:
        return None
    context = newest()

    def renew(connection: ssl.SSLObject, _name: str | None, _first: ssl.SSLContext) -> None:
        connection.context = newest()

    # Asked with each handshake, whether or not the client names a server. A pair that is loaded
    # into a context in use would leave neither the old nor the new where it doesn't fit.
    context.sni_callback = renew
    return context


def _renewing(access: Access, make: Callable[[Access], _T]) -> Callable[[], _T] | None:
    files = tuple(
        path for path in (access.tls_cert, access.tls_key, access.tls_client_ca) if path is not None
    )
    if access.tls_cert is None or access.tls_key is None:
        return None
    from edgefleet_runtime.store.renewing import Renewing  # noqa: PLC0415 - most serve without

    newest = Renewing("certificates", lambda: make(access), lambda: files)
    newest()
    return newest


def _read(access: Access) -> Pem:
    _context(access)
    cert, key = cast("Path", access.tls_cert), cast("Path", access.tls_key)
    try:
        with _opened(key, "--tls-key") as file:
            secret = file.read()
        client_ca = None if access.tls_client_ca is None else access.tls_client_ca.read_bytes()
        return Pem(cert.read_bytes(), secret, client_ca)
    except OSError as error:
        raise ConfigurationError(
            f"certificates can't be used: {error.strerror or error}", cure="start again"
        ) from error


def _context(access: Access) -> ssl.SSLContext:
    import ssl  # noqa: PLC0415 - most devices serve without

    cert, key = cast("Path", access.tls_cert), cast("Path", access.tls_key)
    with _opened(key, "--tls-key"):
        pass
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key, password=_no_password)
        if access.tls_client_ca is not None:
            context.load_verify_locations(access.tls_client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(
            f"certificates can't be used: {error.strerror or error}",
            cure="see that --tls-cert, --tls-key and --tls-client-ca are PEM files that fit",
        ) from error
    return context


def _opened(path: Path, option: str) -> BinaryIO:
    """The file, open, if others can neither read nor write it."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise ConfigurationError(
            f"can't read {path}: {error.strerror or error}", cure=f"give {option} a file of ours"
        ) from error
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode) or not _is_private(found):
        file.close()
        raise ConfigurationError(
            f"{path} is open to others, or is not ours",
            cure=f"chown it to the runtime's user or root, and: chmod 640 {path}",
        )
    return file


def _is_private(found: os.stat_result) -> bool:
    # A group may read: Kubernetes mounts secrets as root's with the pod's group (mode 0440).
    if os.name != "posix":
        return True  # access lists, which have no such mode
    return not found.st_mode & _FOR_OTHERS and found.st_uid in {0, os.geteuid()}


def _announces_body(headers: Mapping[bytes, bytes]) -> bool:
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


def _no_password() -> NoReturn:
    raise ConfigurationError(
        "the key of --tls-key needs a password, and nobody is there to type it",
        cure="write it without: openssl pkey -in KEY -out PLAIN_KEY",
    )
