"""Whether an address may be served on, and what makes a token and a certificate usable."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trustme

from device_runtime.tests.support import Clock
from edgefleet.errors import ConfigurationError
from edgefleet_runtime.serve.access import (
    LOOK_S,
    Access,
    check_access,
    is_loopback,
    tls_context,
    token_check,
    token_guard,
)

LOOPBACK = ["127.0.0.1", "127.0.0.2", "127.8.8.8", "::1", "localhost"]
REMOTE = ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1", "example.com", ""]
TOKEN = "f" * 64
SOME = Path("some")


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_needs_no_word(host: str) -> None:
    assert is_loopback(host)
    check_access(host, Access())


@pytest.mark.parametrize("host", REMOTE)
@pytest.mark.parametrize(
    "given,cure",
    [
        ({}, "--allow-remote"),
        ({"token_file": SOME}, "--allow-remote"),
        ({"tls_cert": SOME, "tls_key": SOME, "tls_client_ca": SOME}, "--allow-remote"),
        ({"allow_remote": True}, "--token-file"),
        ({"allow_remote": True, "tls_cert": SOME, "tls_key": SOME}, "--tls-client-ca"),
    ],
)
def test_other_machines_are_kept_out_and_the_cure_is_named(
    host: str, given: dict[str, Path], cure: str
) -> None:
    assert not is_loopback(host)
    with pytest.raises(ConfigurationError, match=cure):
        check_access(host, Access(**given))  # type: ignore[arg-type]


@pytest.mark.parametrize("host", REMOTE)
def test_other_machines_are_let_in_where_callers_are_told_apart(host: str) -> None:
    check_access(host, Access(allow_remote=True, token_file=SOME))
    check_access(host, Access(allow_remote=True, tls_cert=SOME, tls_key=SOME, tls_client_ca=SOME))


@pytest.mark.parametrize(
    "access",
    [
        Access(tls_cert=SOME),
        Access(tls_key=SOME),
        Access(tls_client_ca=SOME),
        Access(open_health=True),
        Access(open_metrics=True),
        Access(
            open_health=True,
            token_file=SOME,
            tls_cert=SOME,
            tls_key=SOME,
            tls_client_ca=SOME,
        ),
    ],
)
def test_what_does_not_go_together_is_refused_on_any_address(access: Access) -> None:
    with pytest.raises(ConfigurationError, match="cure: "):
        check_access("127.0.0.1", access)


# ----------------------------------------------------------------------------------------- token


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o620, 0o644, 0o666])
def test_a_token_that_others_could_read_or_change_is_refused(token: Path, mode: int) -> None:
    token.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 640"):
        token_guard(Access(token_file=token))


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o440, 0o640])
def test_owner_and_group_may_read_it(token: Path, mode: int) -> None:
    token.chmod(mode)
    assert token_guard(Access(token_file=token)) is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_a_token_that_is_somebody_elses_is_refused(token: Path) -> None:
    os.chown(token, 4711, -1)
    with pytest.raises(ConfigurationError, match="not ours"):
        token_guard(Access(token_file=token))


@pytest.mark.parametrize(
    "content", ["", "\n", "f" * 31, "f" * 4097, "f" * 32 + " f", "é" * 32, "f" * 32 + "\nsecond"]
)
def test_what_is_no_token_is_refused_without_telling_it(token: Path, content: str) -> None:
    token.write_text(content)
    with pytest.raises(ConfigurationError, match="openssl rand") as refused:
        token_guard(Access(token_file=token))
    assert not content.strip() or content.strip() not in str(refused.value)


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_token_file_that_is_none_says_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="cure: "):
        token_guard(Access(token_file=tmp_path / name))


def test_the_token_stays_out_of_what_is_printed(token: Path) -> None:
    access = Access(token_file=token)
    assert TOKEN not in f"{access} {access!r} {token_guard(access)!r}"


def test_a_renewed_token_counts_soon_and_a_broken_one_leaves_the_old(
    token: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    has_token = token_check(Access(token_file=token), clock=clock)
    assert has_token is not None
    old, new = b"Bearer " + TOKEN.encode(), b"Bearer " + b"0" * 64

    def known() -> tuple[bool, bool]:
        clock.now += LOOK_S
        return has_token(old), has_token(new)

    assert known() == (True, False)
    token.write_text("short")
    assert [known() for _ in range(3)] == [(True, False)] * 3
    assert ["a token that changed" in one.getMessage() for one in caplog.records] == [True]
    token.write_text("0" * 64)
    assert known() == (False, True)


# ----------------------------------------------------------------------------------- certificates


def pem(authority: trustme.CA, folder: Path) -> Access:
    issued = authority.issue_cert("127.0.0.1")
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    key.chmod(0o600)
    return Access(tls_cert=cert, tls_key=key)


def test_without_a_certificate_there_is_no_tls() -> None:
    assert tls_context(Access()) is None


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    access = pem(trustme.CA(), tmp_path)
    assert access.tls_key is not None
    access.tls_key.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 640"):
        tls_context(access)


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    access = pem(trustme.CA(), tmp_path)
    assert access.tls_key is not None
    access.tls_key.write_bytes(trustme.CA().issue_cert("127.0.0.1").private_key_pem.bytes())
    with pytest.raises(ConfigurationError, match="PEM files that fit"):
        tls_context(access)


def test_a_key_with_a_password_asks_nobody(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as s

    access = pem(trustme.CA(), tmp_path)
    assert access.tls_key is not None
    key = s.load_pem_private_key(access.tls_key.read_bytes(), None)
    locked = s.BestAvailableEncryption(b"secret")
    access.tls_key.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, locked))
    with pytest.raises(ConfigurationError, match="needs a password"):
        tls_context(access)
