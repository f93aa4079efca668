"""By which names a server is asked, and which are refused: a page's that lead here."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from device_runtime.tests.serve.test_access import TOKEN
from device_runtime.tests.serve.test_afar import UnixConnection
from device_runtime.tests.serving import (
    LIVE,
    FakeModel,
    Running,
    infer_bytes,
    read_replies,
    served,
    serving,
    table_of,
)
from edgefleet_runtime.serve.access import Access
from edgefleet_runtime.serve.hosts import known_hosts

PAGE = {"Host": "page.example:8000"}


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b"127.0.0.1",
        b"127.0.0.1:8000",
        b"[::1]:8000",
        b"[::1]",
        b"192.0.2.1:80",
        b"localhost:8000",
        b"LocalHost",
        b"localhost.:8000",
        b"models.localhost:8000",
        b"edgefleet:8000",
        b"host.docker.internal:8000",
        b"cam-07.plant-a.example:8000",
        b"front.example",
        b"FRONT.example.:443",
    ],
)
def test_who_means_this_machine_is_served(host: bytes) -> None:
    assert known_hosts(["front.example:443"], own="cam-07.plant-a.example")(host)


@pytest.mark.parametrize(
    "host",
    [
        b"page.example",
        b"page.example:8000",
        b"127.0.0.1.page.example",
        b"localhost.page.example:8000",
        b"notlocalhost.example",
        b"sub.front.example",
        b"1.2.3.4.5",
        b"p\xe4ge.example",
    ],
)
def test_a_name_that_may_be_a_web_pages_is_not_known(host: bytes) -> None:
    assert not known_hosts(["front.example"], own="cam-07")(host)


def asked(running: Running, method: str, path: str, body: bytes | None = None) -> int:
    return running.ask(method, path, body, PAGE).status


def test_a_page_that_made_its_name_lead_here_reads_nothing() -> None:
    with serving(table_of(served(FakeModel(1)))) as running:
        assert running.infer(1.0).status == 200
        for path in ("/v2", "/metrics", "/v2/models/m", "/v2/health/live"):
            reply = running.ask("GET", path, headers=PAGE)
            assert (reply.status, "--allow-host page.example" in reply.json["error"]) == (421, True)
        for _ in range(3):
            with running.connect() as client:
                client.sendall(
                    infer_bytes(1).replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\nHost: a.b\r\n")
                )
                assert read_replies(client)[0].status == 421
        with running.connect() as client:  # no browser
            client.sendall(LIVE)
            assert read_replies(client)[0].status == 200


def test_a_name_that_was_allowed_is_served() -> None:
    access = Access(allow_hosts=("page.example",))
    with serving(table_of(), access=access) as running:
        assert asked(running, "GET", "/v2/health/live") == 200


def test_who_brings_the_token_may_ask_by_any_name(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    with serving(table_of(), access=Access(token_file=path)) as running:
        headers = {**PAGE, "Authorization": f"Bearer {TOKEN}"}
        assert running.ask("GET", "/v2/health/live", headers=headers).status == 200


def test_over_a_unix_socket_any_name_will_do() -> None:
    with tempfile.TemporaryDirectory(prefix="ef") as folder:
        near = Path(folder) / "s"
        with serving(table_of(), uds=near) as running:
            connection = UnixConnection(near)
            connection.request("GET", "/v2/health/live", headers=PAGE)
            assert connection.getresponse().status == 200
            connection.close()
            assert asked(running, "GET", "/v2/health/live") == 421
