"""Who gets an answer from a server that tells callers apart, over real sockets on loopback."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme

from device_runtime.tests.serve.test_access import pem
from device_runtime.tests.serving import (
    WAIT_S,
    FakeModel,
    infer_bytes,
    read_replies,
    served,
    serving,
    table_of,
)
from edgefleet_runtime.serve.access import Access
from edgefleet_runtime.serve.messages import Limits
from edgefleet_runtime.serve.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from device_runtime.tests.serving import Reply, Running

TOKEN = "0123456789abcdef" * 4
BEARER = f"Bearer {TOKEN}"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Short enough for a socket's path on every system."""
    with tempfile.TemporaryDirectory(prefix="ef") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def token(folder: Path) -> Path:
    path = folder / "token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def guarded(token: Path) -> Iterator[Running]:
    table = table_of(served(FakeModel()))
    with serving(table, uds=token.parent / "s", access=Access(token_file=token)) as running:
        yield running


def ask(running: Running, authorization: str | None, path: str = "/v2/health/live") -> Reply:
    headers = {} if authorization is None else {"Authorization": authorization}
    return running.ask("GET", path, headers=headers)


@pytest.mark.parametrize("given", [BEARER, f"bearer {TOKEN}", f"BEARER  {TOKEN}"])
def test_the_token_lets_in(guarded: Running, given: str) -> None:
    assert ask(guarded, given).status == 200


def test_the_token_lets_in_behind_a_proxy_that_takes_authorization_for_itself(
    guarded: Running,
) -> None:
    reply = guarded.ask("GET", "/v2/models/m", headers={"Edgefleet-Authorization": BEARER})
    assert reply.status == 200
    wrong = {"Edgefleet-Authorization": f"{BEARER}0"}
    assert guarded.ask("GET", "/v2/models/m", headers=wrong).status == 401


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/models/m", "/metrics", "/nowhere"])
def test_without_it_nothing_is_told_but_how_to_come_in(guarded: Running, path: str) -> None:
    reply = ask(guarded, None, path)
    assert reply.status == 401
    assert reply.headers["WWW-Authenticate"] == 'Bearer realm="edgefleet"'
    assert "Authorization: Bearer" in reply.json["error"]


@pytest.mark.parametrize(
    "given",
    [
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}0",
        f"Bearer {TOKEN.upper()}",
        f"Basic {TOKEN}",
        f"Bearer{TOKEN}",
        f"{BEARER}, {BEARER}",
        TOKEN,
        "Bearer",
        "Bearer é",
        "",
    ],
)
def test_a_wrong_token_is_refused_and_not_repeated(guarded: Running, given: str) -> None:
    reply = ask(guarded, given)
    assert reply.status == 401
    assert reply.headers["WWW-Authenticate"] == 'Bearer realm="edgefleet", error="invalid_token"'
    assert TOKEN[:8].encode() not in reply.body


def test_a_refused_caller_is_told_before_its_body_is_taken_in(guarded: Running) -> None:
    with guarded.connect() as client:
        client.sendall(b"POST /v2/models/m/infer HTTP/1.1\r\nContent-Length: 50000000\r\n\r\n")
        [reply] = read_replies(client)
        assert (reply.status, reply.headers["Connection"]) == (401, "close")


def test_the_token_is_asked_for_with_every_request(guarded: Running) -> None:
    with guarded.connect() as client:
        client.sendall(infer_bytes(1.0, f"Authorization: {BEARER}") + infer_bytes(2.0))
        assert [reply.status for reply in read_replies(client, 2)] == [200, 401]


def test_a_unix_socket_has_its_permissions_instead(guarded: Running, folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(WAIT_S)
        client.connect(str(folder / "s"))
        client.sendall(infer_bytes(1.0))
        assert read_replies(client)[0].status == 200
    with guarded.connect() as client:  # what the socket has seen opens nothing here
        client.sendall(infer_bytes(1.0))
        assert read_replies(client)[0].status == 401


def test_open_health_opens_health_alone(token: Path) -> None:
    access = Access(token_file=token, open_health=True)
    with serving(table_of(served(FakeModel())), access=access) as running:
        for path in ("/v2/health/live", "/v2/health/ready"):
            assert ask(running, None, path).status == 200
        for path in ("/v2/health/live/", "/v2/health/live?x", "/v2", "/v2/models/m/ready"):
            assert ask(running, None, path).status == 401
        assert running.ask("POST", "/v2/health/live", b"x").status == 401
        assert running.ask("GET", "/v2/health/live", b"x").status == 401


def test_open_metrics_open_metrics_alone(token: Path) -> None:
    access = Access(token_file=token, open_metrics=True)
    with serving(table_of(served(FakeModel())), access=access) as running:
        assert ask(running, None, "/metrics").status == 200
        for path in ("/v2/health/live", "/metrics/", "/metrics?x", "/v2"):
            assert ask(running, None, path).status == 401
        assert running.ask("POST", "/metrics", b"x").status == 401


def test_no_log_tells_a_token(token: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(table_of(), access=Access(token_file=token)) as running:
        ask(running, BEARER)
        ask(running, f"Bearer {TOKEN}x")
    assert TOKEN not in caplog.text


# -------------------------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def client_of(authority: trustme.CA, issuer: trustme.CA | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if issuer is not None:
        issuer.issue_cert("client@example.org").configure_cert(context)
    return context


def live(running: Running, context: ssl.SSLContext) -> int:
    client = http.client.HTTPSConnection(*running.address, timeout=WAIT_S, context=context)
    try:
        client.request("GET", "/v2/health/live")
        return client.getresponse().status
    finally:
        client.close()


def test_a_certificate_makes_it_https(authority: trustme.CA, tmp_path: Path) -> None:
    with serving(table_of(), access=pem(authority, tmp_path)) as running:
        assert running.server.endpoint.startswith("https://127.0.0.1:")
        assert live(running, client_of(authority)) == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            live(running, client_of(trustme.CA()))


def test_callers_need_a_certificate_where_authorities_are_named(
    authority: trustme.CA, tmp_path: Path
) -> None:
    callers = trustme.CA()
    callers.cert_pem.write_to_path(str(tmp_path / "callers.pem"))
    own = pem(authority, tmp_path)
    access = Access(
        tls_cert=own.tls_cert, tls_key=own.tls_key, tls_client_ca=tmp_path / "callers.pem"
    )
    with serving(table_of(), access=access) as running:
        assert live(running, client_of(authority, callers)) == 200
        for issuer in (None, trustme.CA(), authority):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                live(running, client_of(authority, issuer))
        assert live(running, client_of(authority, callers)) == 200


def test_a_token_is_asked_for_under_tls_too(
    authority: trustme.CA, token: Path, tmp_path: Path
) -> None:
    own = pem(authority, tmp_path)
    access = Access(tls_cert=own.tls_cert, tls_key=own.tls_key, token_file=token)
    limits = Limits(linger_s=0.2)
    with serving(table_of(), access=access, limits=limits) as running:
        assert live(running, client_of(authority)) == 401


def test_a_client_that_does_not_shake_hands_is_dropped(
    authority: trustme.CA, tmp_path: Path
) -> None:
    limits = Limits(head_timeout_s=1.0)  # in which who does shake hands must have done so
    with serving(table_of(), access=pem(authority, tmp_path), limits=limits) as running:
        with running.connect() as client:
            assert client.recv(1) == b""
        assert live(running, client_of(authority)) == 200


def test_large_bodies_come_whole_over_tls(authority: trustme.CA, tmp_path: Path) -> None:
    size = 300_000
    body = infer_bytes(2.0, size=size).partition(b"\r\n\r\n")[2]
    with serving(table_of(served(FakeModel(1.0))), access=pem(authority, tmp_path)) as running:
        client = http.client.HTTPSConnection(
            *running.address, timeout=WAIT_S, context=client_of(authority)
        )
        try:
            client.request("POST", "/v2/models/m/infer", body)
            answer = json.loads(client.getresponse().read())
        finally:
            client.close()
    assert answer["outputs"][0]["data"] == [3.0] * size


def test_a_token_in_the_clear_is_warned_of(token: Path, caplog: pytest.LogCaptureFixture) -> None:
    access = Access(allow_remote=True, token_file=token)
    Server(table_of(), "192.0.2.1", access=access)  # made, never started
    assert "no --tls-cert" in caplog.text
