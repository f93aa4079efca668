"""``edgefleet gateway serve`` as people run it: another process, real signals."""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from edgefleet.cli.app import cli
from edgefleet.protocol.digest import digest_of_file
from edgefleet.protocol.documents import decode
from edgefleet.testing.kit.upgrading import runtime_archive
from edgefleet.testing.waiting import TIMEOUT_S
from edgefleet_gateway.certificates import pin
from edgefleet_gateway.commands import allow_connections
from edgefleet_gateway.fleet_folder import profile_of_folder
from edgefleet_gateway.records import AuthorityRecord, Keys
from edgefleet_gateway.server.scratch import sole
from edgefleet_local.state import DirectoryStateStore

COMMAND = [sys.executable, "-m", "edgefleet.cli"]


@contextlib.contextmanager
def serving(*arguments: str, lines: int) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A gateway, and what it said until it listened."""
    command = [*COMMAND, "gateway", "serve", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            yield process, [process.stderr.readline().strip() for _ in range(lines)]
        finally:
            process.kill()


def port_of(said: list[str]) -> int:
    line = next(line for line in said if line.startswith("listening at "))
    return int(line.rpartition(":")[2])


def status(port: int, path: str) -> int:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().status


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_folder_is_enough_and_a_signal_ends_it(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    root = tmp_path / "a fleet"
    with serving("--root", str(root), "--port", "0", lines=6) as (process, said):
        assert said[0] == f"wrote {root / 'edgefleet.toml'}"
        assert any(f"EDGEFLEET_CONFIG='{root / 'edgefleet.toml'}'" in line for line in said)
        port = port_of(said)
        assert status(port, "/health") == 200
        assert status(port, "/v1/ca") == 200
        assert status(port, "/v1/pointer") == 401
        process.send_signal(number)
        assert process.wait(TIMEOUT_S) == code
    listed = CliRunner(env={"EDGEFLEET_CONFIG": str(root / "edgefleet.toml")})
    assert listed.invoke(cli, ["devices"]).exit_code == 0


def test_a_runtime_that_is_given_is_what_devices_that_join_install(tmp_path: Path) -> None:
    given = runtime_archive(tmp_path, "7.8.9")
    arguments = ("--root", str(tmp_path / "fleet"), "--port", "0", "--runtime", str(given))
    for lines in (7, 6):  # the same again changes nothing
        with serving(*arguments, lines=lines) as (_, said):
            assert "devices that join install the runtime 7.8.9" in said
            port = port_of(said)
            assert status(port, "/install.sh") == 200
            digest, _ = digest_of_file(given)
            assert status(port, f"/v1/archives/{digest.replace(':', '/')}") == 200


def test_two_versions_at_once_are_no_runtime(tmp_path: Path) -> None:
    files = [runtime_archive(tmp_path, version) for version in ("1.0", "2.0")]
    given = [part for file in files for part in ("--runtime", str(file))]
    result = CliRunner().invoke(
        cli, ["gateway", "serve", "--root", str(tmp_path), "--port", "0", *given]
    )
    assert result.exit_code == 1
    assert "two archives are for linux-x86_64" in result.stderr


def test_another_certificate_is_served_and_devices_are_told_of_it(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gw.example")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(4711)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(Encoding.PEM)
    (tmp_path / "cert.pem").write_bytes(pem)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(private)
    given = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    with serving("--root", str(tmp_path), "--port", "0", *given, lines=6) as (_, said):
        shown = ssl.get_server_certificate(("127.0.0.1", port_of(said)))
    assert x509.load_pem_x509_certificate(shown.encode()).serial_number == 4711
    stored = DirectoryStateStore(tmp_path / "fleet").read(Keys("edgefleet").authority)
    assert stored is not None
    record = decode(AuthorityRecord, stored.data)
    assert pin(key.public_key()) in record.pins
    assert record.others == pem.decode()
    (tmp_path / "key.pem").write_bytes(b"no key")
    result = CliRunner().invoke(
        cli, ["gateway", "serve", "--root", str(tmp_path), "--port", "0", *given]
    )
    assert result.exit_code == 1
    assert "check the certificate, and that the key belongs to it" in result.stderr


def test_one_scratch_folder_is_for_one_gateway(tmp_path: Path) -> None:
    with serving("--root", str(tmp_path), "--port", "0", lines=6) as (_, said):
        assert port_of(said)
        result = CliRunner().invoke(
            cli, ["gateway", "serve", "--root", str(tmp_path), "--port", "0"]
        )
        assert result.exit_code == 1
        assert "another gateway uses the folder" in result.stderr


def test_a_gateway_that_finds_its_scratch_folder_in_use_touches_no_outbox(tmp_path: Path) -> None:
    sink = 'kind = "http"\nname = "plant"\nurl = "https://plant.example"\n'
    (tmp_path / "edgefleet.toml").write_text(
        profile_of_folder("https://localhost:8443") + f"[[profiles.default.gateway.sinks]]\n{sink}"
    )
    scratch = tmp_path / ".edgefleet" / "gateway"
    with sole(scratch):
        result = CliRunner().invoke(
            cli, ["gateway", "serve", "--root", str(tmp_path), "--port", "0"]
        )
    assert result.exit_code == 1
    assert "another gateway uses the folder" in result.stderr
    assert [file.name for file in scratch.iterdir()] == ["lock"]


def test_an_audit_log_that_can_t_be_written_is_said(tmp_path: Path) -> None:
    log = tmp_path / "edgefleet.toml" / "log"
    result = CliRunner().invoke(
        cli, ["gateway", "serve", "--root", str(tmp_path), "--port", "0", "--audit-log", str(log)]
    )
    assert result.exit_code == 1
    assert f"the audit log {log} can't be written" in result.stderr


@pytest.mark.parametrize(
    "hard, connections",
    [(resource.RLIM_INFINITY, 20_000), (1 << 20, 20_000), (4096, 3496), (100, 1)],
)
def test_connections_leave_files_for_what_a_gateway_stands_before(
    monkeypatch: pytest.MonkeyPatch, hard: int, connections: int
) -> None:
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: set_to.append(limits))
    assert allow_connections(20_000) == connections
    assert set_to == [(hard, hard)]


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--host", "0.0.0.0"], "say --public, too"),
        (["--tls-cert", os.devnull], "--tls-cert and --tls-key go together"),
        (["--root", "x", "--profile", "y"], "--root goes without --profile"),
        (["--observers", "10.0.0.1/8"], "10.0.0.1/8 has host bits set"),
        (["--observers", "everybody"], "'everybody' does not appear to be"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["gateway", "serve", *arguments])
    assert result.exit_code == 2
    assert said in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_profile_without_a_gateway_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["gateway", "serve", "--port", "0"])
    assert result.exit_code == 1
    assert "has no deployer 'gateway'" in result.stderr


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(
            cli, ["gateway", "serve", "--root", str(tmp_path), "--port", port]
        )
    assert result.exit_code == 1
    assert f"can't listen at 127.0.0.1:{port}" in result.stderr
