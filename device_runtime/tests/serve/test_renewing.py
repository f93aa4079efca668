"""Certificates that are renewed while a server serves, over REST and over gRPC."""

from __future__ import annotations

import socket
import ssl
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
import trustme

from device_runtime.tests.serve.grpc_serving import serving_grpc
from device_runtime.tests.serve.test_access import pem
from device_runtime.tests.serve.test_afar import shaken, trusting
from device_runtime.tests.serving import LIVE, WAIT_S, serving, table_of
from edgefleet_runtime.serve.access import Access

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    Shakes = Callable[[trustme.CA, trustme.CA | None], bool]
    """Whether somebody who trusts one authority, and has a certificate of another, comes in."""
    Served = Callable[[Access], AbstractContextManager[Shakes]]


@contextmanager
def over_rest(access: Access) -> Iterator[Shakes]:
    with serving(table_of(), access=access) as running:

        def shakes(authority: trustme.CA, issuer: trustme.CA | None = None) -> bool:
            context = ssl.create_default_context()
            authority.configure_trust(context)
            if issuer is not None:
                issuer.issue_cert("client@example.org").configure_cert(context)
            try:
                with (
                    socket.create_connection(running.address, WAIT_S) as plain,
                    context.wrap_socket(plain, server_hostname="127.0.0.1") as client,
                ):
                    client.sendall(LIVE)
                    return client.recv(1000).startswith(b"HTTP/1.1 200 ")
            except ssl.SSLError:
                return False

        yield shakes


@contextmanager
def over_grpc(access: Access) -> Iterator[Shakes]:
    with serving_grpc(table_of(), access=access) as (_, address):

        def shakes(authority: trustme.CA, issuer: trustme.CA | None = None) -> bool:
            return shaken(address, trusting(authority, issuer))

        yield shakes


both = pytest.mark.parametrize("served", [over_rest, over_grpc])


@both
def test_new_connections_go_by_the_renewed_certificate(served: Served, tmp_path: Path) -> None:
    before, after = trustme.CA(), trustme.CA()
    with served(pem(before, tmp_path)) as shakes:
        assert shakes(before, None)
        pem(after, tmp_path)
        assert shakes(after, None)
        assert not shakes(before, None)
        assert shakes(after, None)


@both
def test_files_that_do_not_fit_leave_the_certificate_and_are_told_once(
    served: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before, after = trustme.CA(), trustme.CA()
    access = pem(before, tmp_path)
    assert access.tls_key is not None
    with served(access) as shakes:
        access.tls_key.write_bytes(after.issue_cert("127.0.0.1").private_key_pem.bytes())
        for _ in range(3):
            assert shakes(before, None)
        told = [one for one in caplog.records if "can't be used yet" in one.getMessage()]
        assert len(told) == 1
        pem(after, tmp_path)
        assert shakes(after, None)


@both
def test_new_connections_go_by_the_authorities_of_callers_as_they_are_then(
    served: Served, tmp_path: Path
) -> None:
    authority, before, after = trustme.CA(), trustme.CA(), trustme.CA()
    path = tmp_path / "callers.pem"
    before.cert_pem.write_to_path(path)
    access = msgspec.structs.replace(pem(authority, tmp_path), tls_client_ca=path)
    with served(access) as shakes:
        assert shakes(authority, before)
        after.cert_pem.write_to_path(path)
        assert shakes(authority, after)
        assert not shakes(authority, before)
        assert not shakes(authority, None)
