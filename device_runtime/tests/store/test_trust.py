"""Contexts of TLS: one for all connections, and another when what it is made of changes."""

from __future__ import annotations

import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from device_runtime.tests.store.loopback import serving_blobs
from edgefleet.errors import ConfigurationError, UnavailableError
from edgefleet.protocol.digest import digest_of
from edgefleet_runtime.store.http import HttpSource, put_opener
from edgefleet_runtime.store.renewing import Renewing

DATA = b"0123456789" * 10


def tls_of(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


def read(source: HttpSource) -> bytes:
    with source.open(digest_of(DATA), 0) as stream:
        return stream.read(1000)


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[trustme.CA], None]:
    """Writes the authority that the system trusts."""

    def trust(authority: trustme.CA) -> None:
        fresh = tmp_path / "fresh.pem"
        authority.cert_pem.write_to_path(fresh)
        fresh.replace(tmp_path / "system.pem")

    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    return trust


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[ssl.SSLContext]:
    """Contexts that were made for the system's authorities."""
    found: list[ssl.SSLContext] = []
    inner = ssl.create_default_context

    def noted() -> ssl.SSLContext:
        found.append(inner())
        return found[-1]

    monkeypatch.setattr(ssl, "create_default_context", noted)
    monkeypatch.setattr(ssl, "_create_default_https_context", noted)
    return found


def test_connections_share_one_context(
    system: Callable[[trustme.CA], None], made: list[ssl.SSLContext]
) -> None:
    authority = trustme.CA()
    system(authority)
    with serving_blobs(DATA, tls=tls_of(authority)) as server:
        for _ in range(3):
            assert read(HttpSource(server.address)) == DATA
            url = f"{server.address}/absent"
            with pytest.raises(urllib.error.HTTPError):
                put_opener().open(urllib.request.Request(url, b"x", method="PUT"), timeout=90)
    assert len(made) == 1


def test_a_system_whose_authorities_change_counts_without_a_restart(
    system: Callable[[trustme.CA], None], made: list[ssl.SSLContext]
) -> None:
    before, after = trustme.CA(), trustme.CA()
    system(before)
    with (
        serving_blobs(DATA, tls=tls_of(before)) as old,
        serving_blobs(DATA, tls=tls_of(after)) as new,
    ):
        to_old, to_new = HttpSource(old.address), HttpSource(new.address)
        assert read(to_old) == DATA
        with pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            read(to_new)
        system(after)
        assert read(to_new) == DATA
        with pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            read(to_old)
    assert len(made) == 2


def test_files_that_dont_fit_yet_leave_what_there_was_and_that_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "key.pem"

    def make() -> ssl.SSLContext:
        if file.read_text().startswith("half"):
            raise ConfigurationError("the key doesn't fit")
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    given = Renewing("certificates", make, lambda: (file,))
    file.write_text("half")
    with pytest.raises(ConfigurationError):
        given()
    file.write_text("whole")
    first = given()
    assert given() is first
    for content in ("half", "half of another"):
        file.write_text(content)
        for _ in range(3):
            assert given() is first
    assert len(caplog.records) == 2
    file.write_text("whole again")
    second = given()
    assert second is not first
    assert given() is second


def test_threads_that_ask_at_once_get_the_same(tmp_path: Path) -> None:
    count = 8
    gate = threading.Barrier(count)
    given = Renewing(
        "certificates", lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), lambda: (tmp_path,)
    )
    found: list[ssl.SSLContext] = []

    def ask() -> None:
        gate.wait(90)
        found.append(given())

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1
    assert len(found) == count
